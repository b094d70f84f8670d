//! JSON answers by shape: a client that finds a field at Docker must find one of the same type here.

use serde_json::Value;

/// Paths of fields that `docker` has and `ours` lacks or holds as another type. What only we have is no fault:
/// newer Dockers have more fields than the one that is compared with.
pub fn missing_paths(docker: &Value, ours: &Value) -> Vec<String> {
    let mut missing = Vec::new();
    walk("", docker, ours, &mut missing);
    missing
}

fn walk(path: &str, docker: &Value, ours: &Value, missing: &mut Vec<String>) {
    match (docker, ours) {
        (Value::Object(theirs), Value::Object(own)) => {
            for (key, value) in theirs {
                // Keys that are data (a port, a path, a network's name) are compared as they stand.
                match own.get(key) {
                    Some(found) => walk(&format!("{path}.{key}"), value, found, missing),
                    None => missing.push(format!("{path}.{key} is missing")),
                }
            }
        }
        (Value::Array(theirs), Value::Array(own)) => match (theirs.first(), own.first()) {
            (Some(first), Some(found)) => walk(&format!("{path}[0]"), first, found, missing),
            (Some(_), None) => missing.push(format!("{path} is empty")),
            (None, _) => {}
        },
        // Docker itself changes between null and an empty list or map over its versions.
        (Value::Null, _) => {}
        (Value::Array(list), Value::Null) if list.is_empty() => {}
        (Value::Object(map), Value::Null) if map.is_empty() => {}
        _ => {
            if kind(docker) != kind(ours) {
                missing.push(format!("{path} is {}, at Docker {}", kind(ours), kind(docker)));
            }
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shapes() {
        for (docker, ours, expected) in [
            (json!({"A": 1}), json!({"A": 2, "B": 1}), vec![]),
            (json!({"A": 1}), json!({}), vec![".A is missing"]),
            (json!({"A": "x"}), json!({"A": 1}), vec![".A is a number, at Docker a string"]),
            (json!([{"A": 1}]), json!([{}]), vec!["[0].A is missing"]),
            (json!({"A": null}), json!({"A": []}), vec![]),
            (json!({"A": [1]}), json!({"A": []}), vec![".A is empty"]),
        ] {
            assert_eq!(missing_paths(&docker, &ours), expected);
        }
    }
}
