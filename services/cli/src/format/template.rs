//! Executes a Go template over JSON.
//!
//! Docker's own templates run over Go structs. Over JSON the same names work, in the
//! document's order where Go would use a struct's and sorted for ranges over maps.

use serde_json::{Map, Value};

use super::functions;
use super::parser::{Base, Node, Operand, Pipeline, parse};

/// The hidden key under which a row keeps its labels for `{{.Label "name"}}`.
pub const LABELS: &str = "\u{0}labels";

pub struct Template {
    source: String,
    nodes: Vec<Node>,
}

impl Template {
    /// Parses; the error is in Go's words.
    pub fn parse(source: &str) -> Result<Self, String> {
        let nodes = parse(source).map_err(|e| format!("template: :1: {e}"))?;
        Ok(Self { source: source.to_owned(), nodes })
    }

    /// Fills the template. A name that is not there is an error that ends with `missing`
    /// applied to the name.
    pub fn render(&self, data: &Value, missing: fn(&str) -> String) -> Result<String, String> {
        let mut run =
            Run { out: String::new(), variables: vec![("$".into(), data.clone())], source: &self.source, missing };
        run.list(&self.nodes, data)?;
        Ok(run.out)
    }
}

#[derive(PartialEq)]
enum Flow {
    On,
    Break,
    Continue,
}

struct Run<'a> {
    out: String,
    variables: Vec<(String, Value)>,
    source: &'a str,
    missing: fn(&str) -> String,
}

impl Run<'_> {
    fn list(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, String> {
        let depth = self.variables.len();
        for node in nodes {
            let flow = self.node(node, dot)?;
            if flow != Flow::On {
                self.variables.truncate(depth);
                return Ok(flow);
            }
        }
        self.variables.truncate(depth);
        Ok(Flow::On)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, String> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Action(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.variables.is_empty() {
                    self.out.push_str(&shown(pipeline, &value));
                }
            }
            Node::If { condition, then, otherwise } => {
                let value = self.pipeline(condition, dot)?;
                return self.list(if functions::truth(&value) { then } else { otherwise }, dot);
            }
            Node::With { value, then, otherwise } => {
                let value = self.pipeline(value, dot)?;
                return if functions::truth(&value) { self.list(then, &value) } else { self.list(otherwise, dot) };
            }
            Node::Range { over, body, otherwise } => return self.range(over, body, otherwise, dot),
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn range(&mut self, over: &Pipeline, body: &[Node], otherwise: &[Node], dot: &Value) -> Result<Flow, String> {
        let plain = Pipeline { variables: Vec::new(), commands: over.commands.clone() };
        let items: Vec<(Value, Value)> = match self.pipeline(&plain, dot)? {
            Value::Array(items) => items.into_iter().enumerate().map(|(i, v)| (i.into(), v)).collect(),
            Value::Object(map) => {
                let mut pairs: Vec<_> = map.into_iter().collect();
                pairs.sort_by(|a, b| a.0.cmp(&b.0));
                pairs.into_iter().map(|(k, v)| (k.into(), v)).collect()
            }
            Value::Null => Vec::new(),
            other => return Err(format!("range can't iterate over {}", functions::display(&other))),
        };
        if items.is_empty() {
            return self.list(otherwise, dot);
        }
        for (key, value) in items {
            let depth = self.variables.len();
            match over.variables.as_slice() {
                [v] => self.variables.push((v.clone(), value.clone())),
                [k, v] => {
                    self.variables.push((k.clone(), key));
                    self.variables.push((v.clone(), value.clone()));
                }
                _ => {}
            }
            let flow = self.list(body, &value)?;
            self.variables.truncate(depth);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(command, value, dot)?);
        }
        let value = value.unwrap_or(Value::Null);
        for name in &pipeline.variables {
            self.variables.push((name.clone(), value.clone()));
        }
        Ok(value)
    }

    fn command(&mut self, operands: &[Operand], piped: Option<Value>, dot: &Value) -> Result<Value, String> {
        let Some((first, rest)) = operands.split_first() else { return Ok(Value::Null) };
        if let (Base::Dot, [field], [name]) = (&first.base, first.fields.as_slice(), rest)
            && field == "Label"
        {
            let name = functions::display(&self.operand(name, dot)?);
            return Ok(dot.get(LABELS).and_then(|l| l.get(&name)).cloned().unwrap_or_else(|| "".into()));
        }
        if let (Base::Function(name), []) = (&first.base, first.fields.as_slice()) {
            let mut arguments = Vec::with_capacity(rest.len() + 1);
            for operand in rest {
                arguments.push(self.operand(operand, dot)?);
            }
            arguments.extend(piped);
            return functions::call(name, &arguments).map_err(|e| self.at(first, &e));
        }
        if !rest.is_empty() || piped.is_some() {
            return Err(self.at(first, "can't give argument to non-function"));
        }
        self.operand(first, dot)
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, String> {
        let base = match &operand.base {
            Base::Dot => dot.clone(),
            Base::Nil => Value::Null,
            Base::Literal(value) => value.clone(),
            Base::Paren(inner) => self.pipeline(inner, dot)?,
            Base::Function(name) => functions::call(name, &[])?,
            Base::Variable(name) => match self.variables.iter().rev().find(|(n, _)| n == name) {
                Some((_, value)) => value.clone(),
                None => return Err(format!("template: :1: undefined variable {name:?}")),
            },
        };
        let mut value = base;
        for field in &operand.fields {
            value = match lookup(&value, field) {
                Some(found) => found,
                None => {
                    let why = match value {
                        Value::Object(_) => (self.missing)(field),
                        Value::Null => format!("nil data; no entry for key {field:?}"),
                        other => format!("can't evaluate field {field} in type {}", functions::type_name(&other)),
                    };
                    return Err(self.at(operand, &why));
                }
            };
        }
        Ok(value)
    }

    fn at(&self, operand: &Operand, why: &str) -> String {
        let before = &self.source[..operand.position];
        let line = before.matches('\n').count() + 1;
        let column = operand.position - before.rfind('\n').map_or(0, |i| i + 1);
        let base = match &operand.base {
            Base::Variable(name) | Base::Function(name) => name.as_str(),
            _ => "",
        };
        let path: String = operand.fields.iter().map(|f| format!(".{f}")).collect();
        format!("template: :{line}:{column}: executing \"\" at <{base}{path}>: {why}")
    }
}

/// Null is an empty list or map in Docker's structs; which of both tells the field's name.
fn shown(pipeline: &Pipeline, value: &Value) -> String {
    const MAPS: [&str; 11] = [
        "Labels",
        "Volumes",
        "Options",
        "Sysctls",
        "Tmpfs",
        "StorageOpt",
        "Annotations",
        "ExposedPorts",
        "Ports",
        "PortBindings",
        "DriverOpts",
    ];
    const POINTERS: [&str; 5] = ["Health", "Healthcheck", "Init", "IPAMConfig", "GraphDriver"];
    let field = match pipeline.commands.as_slice() {
        [command] if command.len() == 1 => command[0].fields.last().map(String::as_str),
        _ => None,
    };
    match field {
        Some(name) if value.is_null() && MAPS.contains(&name) => "map[]".into(),
        Some(name) if value.is_null() && POINTERS.contains(&name) => "<nil>".into(),
        Some(_) if value.is_null() => "[]".into(),
        _ => functions::display(value),
    }
}

/// A member; Go's `ID` is `Id` in the API's JSON.
fn lookup(value: &Value, field: &str) -> Option<Value> {
    let object: &Map<String, Value> = value.as_object()?;
    object.get(field).or_else(|| (field == "ID").then(|| object.get("Id")).flatten()).cloned()
}

/// The words for a map without the key.
pub fn no_entry(field: &str) -> String {
    format!("map has no entry for key {field:?}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(template: &str, expected: Result<&str, &str>) {
        let data = json!({"Name": "n", "List": ["b", "a"], "Map": {"z": 1, "y": 2}, "No": null, "On": true,
            "Nets": {"bridge": {"IP": "10.0.0.1"}}});
        let got = Template::parse(template).and_then(|t| t.render(&data, no_entry));
        assert_eq!(got.as_deref().map_err(String::as_str), expected, "{template}");
    }

    #[test]
    fn renders_as_go_does() {
        check("x {{.Name}} {{- \" y\"}}", Ok("x n y"));
        check("{{.List}} {{.Map}}", Ok("[b a] map[y:2 z:1]"));
        check("{{range $k, $v := .Map}}{{$k}}={{$v}};{{else}}none{{end}}", Ok("y=2;z=1;"));
        check("{{range .Nets}}{{.IP}}{{end}}", Ok("10.0.0.1"));
        check("{{if and .On (eq .Name \"n\")}}yes{{else if .On}}maybe{{else}}no{{end}}", Ok("yes"));
        check("{{with .No}}a{{else}}b{{end}}", Ok("b"));
        check("{{json .List}} {{upper .Name}} {{join .List \"-\"}} {{len .List}}", Ok("[\"b\",\"a\"] N b-a 2"));
        check("{{index .List 1}} {{(index .Nets \"bridge\").IP}}", Ok("a 10.0.0.1"));
        check("{{printf \"%s-%d|%5s|%q\" .Name 3 \"a\" .Name}}", Ok("n-3|    a|\"n\""));
        check("{{.Name | upper | printf \"%s!\"}}{{println 1 2}}", Ok("N!1 2\n"));
        check("{{/* c */}}a{{$x := .Name}}{{$x}}", Ok("an"));
        check("{{.Foo}}", Err("template: :1:2: executing \"\" at <.Foo>: map has no entry for key \"Foo\""));
        check("{{.Nets.Foo}}", Err("template: :1:7: executing \"\" at <.Nets.Foo>: map has no entry for key \"Foo\""));
    }
}
