//! Lists of rows: Docker's `--format` (a table, JSON lines, a template).

use std::io::Write;

use serde_json::{Map, Value};
use tabwriter::TabWriter;

use super::template::{LABELS, Template};
use crate::failure::{Failure, Outcome};
use crate::output;

/// What a list can show.
pub struct Listing {
    /// The Go type that Docker's error names.
    pub kind: &'static str,
    /// Template of the default table, without the word `table`.
    pub default: String,
    /// Column heads by field.
    pub headers: &'static [(&'static str, &'static str)],
    pub rows: Vec<Value>,
}

/// A row from its fields, with the labels that `{{.Label}}` reads.
pub fn row(fields: &[(&str, Value)], labels: Option<&Value>) -> Value {
    // Go's encoder sorts a map's keys.
    let mut sorted: Vec<_> = fields.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    let mut map: Map<_, _> = sorted.into_iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    if let Some(labels) = labels {
        map.insert(LABELS.into(), labels.clone());
    }
    Value::Object(map)
}

impl Listing {
    /// Prints in the wanted format; none is the default table.
    pub fn print(&self, format: Option<&str>) -> Outcome {
        output::write(self.text(format)?.as_bytes());
        Ok(())
    }

    fn text(&self, format: Option<&str>) -> Outcome<String> {
        let wanted = format.unwrap_or("table").trim();
        let table = match wanted {
            "table" => Some(self.default.clone()),
            _ => wanted.strip_prefix("table").map(|t| t.trim().to_owned()),
        };
        let source = match wanted {
            "json" => "{{json .}}".to_owned(),
            _ => table.clone().unwrap_or_else(|| wanted.to_owned()),
        };
        let source = source.replace("\\t", "\t").replace("\\n", "\n");
        let template = Template::parse(&source).map_err(|e| Failure::new(format!("template parsing error: {e}")))?;
        let mut text = String::new();
        if table.is_some() {
            let heads = self.headers.iter().map(|(f, h)| (f.to_string(), Value::from(*h))).collect();
            text += &self.render(&template, &heads_of(heads, &source))?;
            text.push('\n');
        }
        for row in &self.rows {
            text += &self.render(&template, row)?;
            text.push('\n');
        }
        if table.is_some() { aligned(&text, 10) } else { Ok(text) }
    }

    fn render(&self, template: &Template, row: &Value) -> Outcome<String> {
        template
            .render(row, no_field)
            .map_err(|e| Failure::new(format!("failed to execute template: {}", e.replace('\u{1}', self.kind))))
    }
}

fn no_field(field: &str) -> String {
    format!("can't evaluate field {field} in type *formatter.\u{1}")
}

/// `{{.Label "x"}}` in a head shows the label's last part, as Docker does.
fn heads_of(mut heads: Map<String, Value>, source: &str) -> Value {
    let mut labels = Map::new();
    for part in source.split(".Label \"").skip(1) {
        let name = part.split('"').next().unwrap_or_default();
        let shown = name.rsplit('.').next().unwrap_or(name).replace(['-', '_'], " ");
        labels.insert(name.to_owned(), shown.into());
    }
    heads.insert(LABELS.into(), Value::Object(labels));
    Value::Object(heads)
}

/// Docker's column widths: `minimum` with the padding of three included.
pub fn aligned(text: &str, minimum: usize) -> Outcome<String> {
    let mut writer = TabWriter::new(Vec::new()).minwidth(minimum - 3).padding(3);
    writer.write_all(text.as_bytes())?;
    let bytes = writer.into_inner().map_err(|e| Failure::new(e.to_string()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables() {
        let listing = Listing {
            kind: "ThingContext",
            default: "{{.ID}}\t{{.Name}}".into(),
            headers: &[("ID", "THING ID"), ("Name", "NAME")],
            rows: vec![row(&[("Name", "n".into()), ("ID", "abc".into())], Some(&json!({"a.b": "c"})))],
        };
        for (format, expected) in [
            (None, "THING ID   NAME\nabc        n\n"),
            (Some("json"), "{\"ID\":\"abc\",\"Name\":\"n\"}\n"),
            (Some("{{.Name}}\\t{{.ID}}"), "n\tabc\n"),
            (Some("table {{.Name}}\\t{{.Label \"a.b\"}}"), "NAME      b\nn         c\n"),
        ] {
            assert_eq!(listing.text(format).expect("renders"), expected);
        }
        let failure = listing.text(Some("{{.Foo}}")).expect_err("unknown field");
        assert!(failure.message.ends_with("can't evaluate field Foo in type *formatter.ThingContext"));
    }
}
