//! `inspect`, for every kind of object.

use clap::Args;
use serde_json::Value;

use crate::engine::{Engine, escape};
use crate::failure::{Failure, Outcome};
use crate::format::json::indent;
use crate::format::template::{Template, no_entry};
use crate::output;

#[derive(Args, Debug)]
pub struct Inspect {
    /// Format output using a custom template: 'json' or 'TEMPLATE'
    #[arg(short, long)]
    format: Option<String>,
    /// Display total file sizes if the type is container
    #[arg(short, long)]
    size: bool,
    /// Only inspect objects of the given type
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    #[arg(required = true, value_name = "NAME|ID")]
    names: Vec<String>,
}

/// `image inspect`, `volume inspect` and the others of one kind.
#[derive(Args, Debug)]
pub struct InspectOne {
    /// Format output using a custom template: 'json' or 'TEMPLATE'
    #[arg(short, long)]
    format: Option<String>,
    /// Display total file sizes
    #[arg(short, long)]
    size: bool,
    #[arg(required = true, value_name = "NAME|ID")]
    names: Vec<String>,
}

const KINDS: [&str; 4] = ["container", "image", "network", "volume"];

impl Inspect {
    pub async fn run(self, engine: &Engine) -> Outcome {
        let kinds: Vec<&str> = match self.kind.as_deref() {
            None | Some("") => KINDS.to_vec(),
            Some(kind) => match KINDS.iter().find(|k| **k == kind) {
                Some(kind) => vec![kind],
                None => {
                    return Err(Failure::new(format!(
                        "unknown type: {kind:?}: must be one of {}",
                        KINDS.map(|k| format!("{k:?}")).join(", ")
                    )));
                }
            },
        };
        show(engine, &kinds, &self.names, self.format.as_deref(), self.size).await
    }
}

impl InspectOne {
    pub async fn run(self, engine: &Engine, kind: &str) -> Outcome {
        show(engine, &[kind], &self.names, self.format.as_deref(), self.size).await
    }
}

async fn show(engine: &Engine, kinds: &[&str], names: &[String], format: Option<&str>, size: bool) -> Outcome {
    let format = format.map(|f| if f == "json" { "{{json .}}" } else { f });
    let template = format.map(Template::parse).transpose();
    let template = template.map_err(|e| Failure::new(format!("template parsing error: {e}")).code(64))?;
    let mut found = Vec::new();
    let mut failure = None;
    for name in names {
        match one(engine, kinds, name, size).await {
            Ok(raw) => {
                if let Some(template) = &template {
                    let value: Value = serde_json::from_slice(&raw)?;
                    match template.render(&value, no_entry) {
                        Ok(text) => output::line(text),
                        Err(e) => {
                            output::line("");
                            failure = Some(Failure::new(format!("template parsing error: {e}")));
                            break;
                        }
                    }
                } else {
                    found.push(raw);
                }
            }
            Err(e) => {
                if template.is_some() {
                    output::line("");
                }
                failure = Some(e);
            }
        }
        if failure.as_ref().is_some_and(|f| f.status != Some(404)) {
            break;
        }
    }
    if template.is_none() {
        let joined = [b"[".as_slice(), &found.join(b",".as_slice()), b"]"].concat();
        output::line(indent(&joined, "    "));
    }
    failure.map_or(Ok(()), Err)
}

async fn one(engine: &Engine, kinds: &[&str], name: &str, size: bool) -> Outcome<Vec<u8>> {
    for kind in kinds {
        let name = escape(name);
        let path = match *kind {
            "container" => format!("/containers/{name}/json"),
            "image" => format!("/images/{name}/json"),
            "network" => format!("/networks/{name}"),
            "worker" => format!("/boxyard/v1/workers/{name}"),
            _ => format!("/volumes/{name}"),
        };
        match engine.get(path).flag("size", size && *kind == "container").bytes().await {
            Ok(raw) => return Ok(raw.trim_ascii().to_vec()),
            Err(failure) if kinds.len() > 1 && failure.is_not_found() => {}
            Err(failure) if kinds.len() > 1 && failure.status == Some(400) => {}
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure { status: Some(404), ..Failure::new(format!("Error: No such object: {name}")) })
}
