//! The functions of text/template and those that Docker adds.

use std::cmp::Ordering;

use serde_json::Value;

use super::template::LABELS;

pub fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let text = |i: usize| arguments.get(i).map(display).unwrap_or_default();
    let need = |count: usize| match arguments.len() {
        got if got < count => Err(format!("wrong number of args for {name}: want {count} got {got}")),
        _ => Ok(()),
    };
    Ok(match name {
        "json" => {
            need(1)?;
            go_json(&without_hidden(&arguments[0])).into()
        }
        "lower" => text(0).to_lowercase().into(),
        "upper" => text(0).to_uppercase().into(),
        "title" => title(&text(0)).into(),
        "join" => {
            need(2)?;
            let items = arguments[0].as_array().cloned().unwrap_or_default();
            items.iter().map(display).collect::<Vec<_>>().join(&text(1)).into()
        }
        "split" => text(0).split(text(1).as_str()).map(Value::from).collect(),
        "pad" => {
            need(3)?;
            let spaces = |i: usize| " ".repeat(arguments[i].as_u64().unwrap_or(0) as usize);
            if text(0).is_empty() { "".into() } else { format!("{}{}{}", spaces(1), text(0), spaces(2)).into() }
        }
        "truncate" => {
            need(2)?;
            text(0).chars().take(arguments[1].as_u64().unwrap_or(0) as usize).collect::<String>().into()
        }
        "print" => arguments.iter().map(display).collect::<String>().into(),
        "println" => format!("{}\n", arguments.iter().map(display).collect::<Vec<_>>().join(" ")).into(),
        "printf" => {
            need(1)?;
            printf(&text(0), &arguments[1..]).into()
        }
        "html" => text(0).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").into(),
        "urlquery" => url::form_urlencoded::byte_serialize(text(0).as_bytes()).collect::<String>().into(),
        "len" => {
            need(1)?;
            match &arguments[0] {
                Value::Array(items) => items.len().into(),
                Value::Object(map) => map.len().into(),
                Value::String(text) => text.len().into(),
                Value::Null => 0.into(),
                other => return Err(format!("error calling len: len of type {}", type_name(other))),
            }
        }
        "index" => {
            need(1)?;
            arguments[1..].iter().try_fold(arguments[0].clone(), |value, key| index(&value, key))?
        }
        "slice" => {
            need(1)?;
            let (from, to) = (arguments.get(1).and_then(Value::as_u64), arguments.get(2).and_then(Value::as_u64));
            let whole = text(0);
            let to = to.map_or(whole.len(), |t| t as usize);
            let part = whole.get(from.unwrap_or(0) as usize..to);
            part.ok_or("error calling slice: index out of range")?.into()
        }
        "not" => {
            need(1)?;
            (!truth(&arguments[0])).into()
        }
        "and" => arguments.iter().find(|v| !truth(v)).or(arguments.last()).cloned().unwrap_or(Value::Null),
        "or" => arguments.iter().find(|v| truth(v)).or(arguments.last()).cloned().unwrap_or(Value::Null),
        "eq" => {
            need(2)?;
            arguments[1..].iter().any(|v| compare(&arguments[0], v) == Some(Ordering::Equal)).into()
        }
        "ne" | "lt" | "le" | "gt" | "ge" => {
            need(2)?;
            let order = compare(&arguments[0], &arguments[1]);
            match name {
                "ne" => order != Some(Ordering::Equal),
                "lt" => order == Some(Ordering::Less),
                "le" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
                "gt" => order == Some(Ordering::Greater),
                _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
            }
            .into()
        }
        _ => return Err(format!("function {name:?} not defined")),
    })
}

/// Go's `%v`.
pub fn display(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".into(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::String(s) => s.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(display).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut keys: Vec<_> = map.keys().filter(|k| *k != LABELS).collect();
            keys.sort();
            let pairs: Vec<_> = keys.into_iter().map(|k| format!("{k}:{}", display(&map[k]))).collect();
            format!("map[{}]", pairs.join(" "))
        }
    }
}

pub fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(_) => "json.Number",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// JSON as Go's encoder writes it: `<`, `>` and `&` escaped.
pub fn go_json(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn without_hidden(value: &Value) -> Value {
    let mut value = value.clone();
    if let Some(map) = value.as_object_mut() {
        map.shift_remove(LABELS);
    }
    value
}

fn index(value: &Value, key: &Value) -> Result<Value, String> {
    match (value, key) {
        (Value::Object(map), key) => Ok(map.get(&display(key)).cloned().unwrap_or(Value::Null)),
        (Value::Array(items), key) => {
            let at = key.as_u64().ok_or("error calling index: cannot index slice/array with that type")?;
            let item = items.get(at as usize).cloned();
            item.ok_or_else(|| format!("error calling index: reflect: slice index out of range: {at}"))
        }
        (Value::Null, _) => Err("error calling index: index of untyped nil".into()),
        (other, _) => Err(format!("error calling index: can't index item of type {}", type_name(other))),
    }
}

fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (a, b) if a == b => Some(Ordering::Equal),
        _ => None,
    }
}

fn title(text: &str) -> String {
    let mut start = true;
    let mut out = String::new();
    for c in text.chars() {
        if start {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
        start = !(c.is_alphanumeric() || c == '_' || c == '\'');
    }
    out
}

fn printf(format: &str, arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut spec = String::new();
        while let Some(&c) = chars.peek()
            && matches!(c, '-' | '+' | '#' | ' ' | '.' | '0'..='9')
        {
            spec.push(c);
            chars.next();
        }
        let Some(verb) = chars.next() else { break };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(argument) = arguments.next() else {
            out.push_str(&format!("%!{verb}(MISSING)"));
            continue;
        };
        let (width, precision) = match spec.split_once('.') {
            Some((w, p)) => (w, p.parse::<usize>().ok()),
            None => (spec.as_str(), None),
        };
        let mut text = match (verb, precision) {
            ('q', _) => go_json(&display(argument).into()),
            ('f', p) => format!("{:.*}", p.unwrap_or(6), argument.as_f64().unwrap_or(0.0)),
            ('x', _) if argument.is_i64() => format!("{:x}", argument.as_i64().unwrap_or(0)),
            ('s' | 'v', Some(p)) => display(argument).chars().take(p).collect(),
            _ => display(argument),
        };
        let left = width.starts_with('-');
        let wanted = width.trim_start_matches(['-', '+', '#', ' ']).parse::<usize>().unwrap_or(0);
        let missing = wanted.saturating_sub(text.chars().count());
        match () {
            () if left => text.push_str(&" ".repeat(missing)),
            () if width.starts_with('0') => text.insert_str(0, &"0".repeat(missing)),
            () => text.insert_str(0, &" ".repeat(missing)),
        }
        out.push_str(&text);
    }
    out
}
