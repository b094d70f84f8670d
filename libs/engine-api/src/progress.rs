use serde_json::{Map, Value, json};

/// Width of Docker's bar in characters.
const BAR: usize = 50;

/// A line without a bar, such as `Digest: sha256:...` or, with an id, `Pulling from library/busybox`.
pub fn message(id: &str, text: &str) -> Value {
    let mut line = Map::from_iter([("status".to_owned(), text.into())]);
    if !id.is_empty() {
        line.insert("id".to_owned(), id.into());
    }
    Value::Object(line)
}

/// How far one layer is: `current` of `total` bytes, where `total` 0 is not known.
pub fn progress(id: &str, action: &str, current: i64, total: i64) -> Value {
    let mut line = Map::from_iter([("status".to_owned(), Value::from(action))]);
    let mut detail = Map::new();
    if current > 0 {
        detail.insert("current".to_owned(), current.into());
    }
    if total > 0 {
        detail.insert("total".to_owned(), total.into());
    }
    line.insert("progressDetail".to_owned(), Value::Object(detail));
    if current > 0 || total > 0 {
        line.insert("progress".to_owned(), bar(current, total).into());
    }
    if !id.is_empty() {
        line.insert("id".to_owned(), id.into());
    }
    Value::Object(line)
}

/// A line for programs only.
pub fn aux(value: &Value) -> Value {
    json!({"progressDetail": {}, "aux": value})
}

/// `[====>      ]  1.2MB/3MB`, as Docker draws it where no terminal says how wide it is.
fn bar(current: i64, total: i64) -> String {
    if total <= 0 {
        return format!("{:>8}", human(current));
    }
    let done = usize::try_from(current.max(0).saturating_mul(100) / total).unwrap_or(0) / 2;
    let done = done.min(BAR);
    let numbers = match current > total {
        true => format!("{:>8}", human(current)),
        false => format!("{:>8}/{}", human(current), human(total)),
    };
    format!("[{}>{}] {numbers}", "=".repeat(done), " ".repeat(BAR - done))
}

/// Four significant digits with a decimal unit: `1.234kB`.
fn human(bytes: i64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1000.0 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    let whole = (size.abs().max(1.0).log10().floor() as usize) + 1;
    let text = format!("{size:.*}", 4_usize.saturating_sub(whole));
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_dockers() {
        for (line, wanted) in [
            (message("latest", "Pulling from library/x"), r#"{"status":"Pulling from library/x","id":"latest"}"#),
            (message("", "Digest: y"), r#"{"status":"Digest: y"}"#),
            (
                progress("ab", "Pulling fs layer", 0, 0),
                r#"{"status":"Pulling fs layer","progressDetail":{},"id":"ab"}"#,
            ),
            (
                progress("ab", "Downloading", 1_048_576, 2_097_152),
                r#"{"status":"Downloading","progressDetail":{"current":1048576,"total":2097152},"progress":"[=========================>                         ]  1.049MB/2.097MB","id":"ab"}"#,
            ),
            (
                progress("ab", "Downloading", 999, 0),
                r#"{"status":"Downloading","progressDetail":{"current":999},"progress":"    999B","id":"ab"}"#,
            ),
        ] {
            assert_eq!(line.to_string(), wanted);
        }
    }

    #[test]
    fn sizes_have_four_digits() {
        for (bytes, wanted) in [
            (0, "0B"),
            (512, "512B"),
            (1000, "1kB"),
            (1536, "1.536kB"),
            (99_950_000, "99.95MB"),
            (123_456_789, "123.5MB"),
        ] {
            assert_eq!(human(bytes), wanted);
        }
    }
}
