//! The part of JSON Schema that Boxyard's document uses. A keyword that is not known here fails the test: nothing in
//! the document may go unchecked.

use serde_json::Value;

/// Panics with the place where a value is not as its schema says.
#[track_caller]
pub fn check(document: &Value, schema: &Value, value: &Value, place: &str) {
    let wrong = wrong(document, schema, value, place);
    assert_eq!(wrong, None, "in {value}");
}

fn wrong(document: &Value, schema: &Value, value: &Value, place: &str) -> Option<String> {
    let rules = schema.as_object().expect("a schema is an object");
    rules.iter().find_map(|(keyword, rule)| broken(document, keyword, rule, schema, value, place))
}

fn broken(document: &Value, keyword: &str, rule: &Value, schema: &Value, value: &Value, place: &str) -> Option<String> {
    let fails = |is_fine: bool| (!is_fine).then(|| format!("{place}: {value} against {keyword} {rule}"));
    match keyword {
        "description" | "default" => None,
        "$ref" => wrong(document, resolve(document, rule), value, place),
        "anyOf" => {
            let branches = rule.as_array().expect("a list");
            fails(branches.iter().any(|branch| wrong(document, branch, value, place).is_none()))
        }
        "type" => fails(match rule {
            Value::Array(kinds) => kinds.iter().any(|kind| is_of(kind, value)),
            kind => is_of(kind, value),
        }),
        "enum" => fails(rule.as_array().expect("a list").contains(value)),
        "minimum" => fails(value.as_f64() >= rule.as_f64()),
        "format" => {
            assert_eq!(rule, "date-time");
            fails(value.as_str().is_some_and(is_time))
        }
        "items" => value.as_array()?.iter().enumerate().find_map(|(at, item)| {
            let place = format!("{place}[{at}]");
            wrong(document, rule, item, &place)
        }),
        "required" => {
            let fields = rule.as_array().expect("a list");
            fails(fields.iter().all(|field| value.get(field.as_str().expect("a name")).is_some()))
        }
        "properties" => {
            let fields = rule.as_object().expect("an object");
            let (name, schema, value) = fields.iter().find_map(|(name, schema)| {
                let value = value.get(name)?;
                wrong(document, schema, value, "")?;
                Some((name, schema, value))
            })?;
            wrong(document, schema, value, &format!("{place}.{name}"))
        }
        "additionalProperties" => {
            let known = schema.get("properties").and_then(Value::as_object);
            let more =
                value.as_object()?.iter().filter(|(name, _)| known.is_none_or(|known| !known.contains_key(*name)));
            more.map(|(name, value)| match rule {
                Value::Bool(false) => Some(format!("{place}.{name} is not in the document")),
                rule => wrong(document, rule, value, &format!("{place}.{name}")),
            })
            .find_map(|found| found)
        }
        other => panic!("{place}: the keyword {other} is not checked"),
    }
}

/// `#/components/schemas/Name` in the document.
pub fn resolve<'a>(document: &'a Value, reference: &Value) -> &'a Value {
    let reference = reference.as_str().expect("a text");
    let pointer = reference.strip_prefix('#').expect("in this document");
    document.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"))
}

fn is_of(kind: &Value, value: &Value) -> bool {
    match kind.as_str().expect("a text") {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        other => panic!("type {other}"),
    }
}

/// `2026-11-24T14:10:03.617Z`.
fn is_time(text: &str) -> bool {
    let form: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let (whole, fraction) = form.split_once('.').unwrap_or((&form, "Z"));
    let whole = whole.trim_end_matches('Z');
    whole == "0000-00-00T00:00:00" && fraction.trim_start_matches('0') == "Z"
}

#[test]
fn the_check_finds_what_is_wrong() {
    use serde_json::json;
    let document = json!({"a": {"type": "object", "required": ["x"], "additionalProperties": false,
        "properties": {"x": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}}}});
    let schema = json!({"type": "array", "items": {"$ref": "#/a"}});
    for (value, is_fine) in [
        (json!([]), true),
        (json!([{"x": null}, {"x": "2026-11-24T14:10:03.617Z"}, {"x": "2026-11-24T14:10:03Z"}]), true),
        (json!({}), false),
        (json!([{}]), false),
        (json!([{"x": 1}]), false),
        (json!([{"x": "today"}]), false),
        (json!([{"x": null, "y": 1}]), false),
    ] {
        assert_eq!(wrong(&document, &schema, &value, "").is_none(), is_fine, "{value}");
    }
}
