//! `--output`: fields of a flag, as `docker buildx build` reads them.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::attachables::Destination;
use crate::failure::{Failure, Outcome};

/// A type with its attributes, as the daemon is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Typed {
    pub kind: String,
    pub attributes: BTreeMap<String, String>,
}

impl Typed {
    pub fn json(&self) -> Value {
        json!({"type": self.kind, "attributes": self.attributes})
    }
}

/// One `--output` and where it goes on this machine; none: the daemon keeps it.
pub type Output = (Typed, Option<Destination>);

/// What becomes of the build. Without a flag its image is kept by the daemon.
pub fn outputs(flags: &[String], tags: &[String], push: bool, load: bool) -> Outcome<Vec<Output>> {
    let mut outputs = flags.iter().map(|flag| one(flag)).collect::<Outcome<Vec<_>>>()?;
    if push {
        match outputs.iter_mut().find(|(typed, _)| typed.kind == "image") {
            Some((image, _)) => drop(image.attributes.insert("push".into(), "true".into())),
            None => outputs.push(image(&[("push", "true")])),
        }
    }
    let has_image = outputs.iter().any(|(typed, _)| typed.kind == "image");
    if (load && !has_image) || outputs.is_empty() {
        outputs.push(image(&[]));
    }
    for (typed, _) in &mut outputs {
        if ["image", "oci", "docker"].contains(&typed.kind.as_str()) && !tags.is_empty() {
            typed.attributes.entry("name".to_owned()).or_insert_with(|| tags.join(","));
        }
    }
    Ok(outputs)
}

fn image(attributes: &[(&str, &str)]) -> Output {
    let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    (Typed { kind: "image".to_owned(), attributes }, None)
}

fn one(flag: &str) -> Outcome<Output> {
    let Typed { mut kind, mut attributes } = match flag {
        "-" => return to_file(Typed { kind: "tar".to_owned(), ..Typed::default() }, Some("-".to_owned())),
        path if !path.contains(['=', ',']) => {
            let typed = Typed { kind: "local".to_owned(), ..Typed::default() };
            return Ok((typed, Some(Destination::Folder(PathBuf::from(path)))));
        }
        fields => typed(fields, "output")?,
    };
    let destination = attributes.remove("dest");
    match kind.as_str() {
        "" => Err(Failure::new(format!("ERROR: type is required for output {flag:?}"))),
        "registry" => {
            attributes.insert("push".to_owned(), "true".to_owned());
            kind = "image".to_owned();
            Ok((Typed { kind, attributes }, None))
        }
        "image" | "cacheonly" => Ok((Typed { kind, attributes }, None)),
        "docker" if destination.is_none() => Ok((Typed { kind: "image".to_owned(), attributes }, None)),
        "local" => {
            let folder = destination.ok_or_else(|| Failure::new("ERROR: dest is required for local exporter"))?;
            Ok((Typed { kind, attributes }, Some(Destination::Folder(PathBuf::from(folder)))))
        }
        "tar" | "oci" | "docker" => {
            let is_folder = kind != "tar" && contexts::is_folder(attributes.get("tar").map(String::as_str));
            match destination {
                Some(folder) if is_folder => {
                    Ok((Typed { kind, attributes }, Some(Destination::Folder(PathBuf::from(folder)))))
                }
                destination => to_file(Typed { kind, attributes }, destination),
            }
        }
        _ => Err(Failure::new(format!("ERROR: exporter {kind:?} could not be found"))),
    }
}

fn to_file(typed: Typed, destination: Option<String>) -> Outcome<Output> {
    let destination = match destination.as_deref() {
        None | Some("-") if std::io::stdout().is_terminal() => {
            let kind = &typed.kind;
            return Err(Failure::new(format!(
                "ERROR: dest file is required for {kind} exporter. refusing to write to console"
            )));
        }
        None | Some("-") => Destination::Stdout,
        Some(path) if PathBuf::from(path).is_dir() => {
            return Err(Failure::new(format!(
                "ERROR: destination file is required for {} exporter, but {path} is a directory",
                typed.kind
            )));
        }
        Some(path) => Destination::File(PathBuf::from(path)),
    };
    Ok((typed, Some(destination)))
}

/// The fields of a flag.
pub fn typed(flag: &str, what: &str) -> Outcome<Typed> {
    let failed = |why: String| Failure::new(format!("ERROR: {why}"));
    let fields = dockerfile::csv::fields(flag).map_err(|e| failed(format!("failed to parse csv {what}: {e}")))?;
    let mut typed = Typed::default();
    for field in fields {
        let Some((key, value)) = field.split_once('=') else {
            return Err(failed(format!("invalid value {field}")));
        };
        match key.trim().to_lowercase().as_str() {
            "type" => value.clone_into(&mut typed.kind),
            key => drop(typed.attributes.insert(key.to_owned(), value.to_owned())),
        }
    }
    Ok(typed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(flags: &[&str], tags: &[&str], push: bool) -> Vec<(String, Option<Destination>)> {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let outputs = outputs(&owned(flags), &owned(tags), push, false).expect("outputs");
        outputs.into_iter().map(|(typed, to)| (typed.json().to_string(), to)).collect()
    }

    #[test]
    fn where_a_build_goes() {
        let json = |text: &str| text.to_owned();
        assert_eq!(told(&[], &["a", "b"], false), [(json(r#"{"type":"image","attributes":{"name":"a,b"}}"#), None)]);
        assert_eq!(
            told(&[], &["a"], true),
            [(json(r#"{"type":"image","attributes":{"name":"a","push":"true"}}"#), None)]
        );
        assert_eq!(
            told(&["out"], &[], false),
            [(json(r#"{"type":"local","attributes":{}}"#), Some(Destination::Folder("out".into())))]
        );
        assert_eq!(
            told(&["type=oci,dest=x.tar,compression=zstd"], &["a"], false),
            [(
                json(r#"{"type":"oci","attributes":{"compression":"zstd","name":"a"}}"#),
                Some(Destination::File("x.tar".into()))
            )]
        );
        assert_eq!(
            told(&["type=registry,name=r/x"], &["a"], false),
            [(json(r#"{"type":"image","attributes":{"name":"r/x","push":"true"}}"#), None)]
        );
    }

    #[test]
    fn what_is_refused() {
        let refused = |flag: &str| one(flag).expect_err(flag).message;
        assert_eq!(refused("type=local"), "ERROR: dest is required for local exporter");
        assert_eq!(refused("type=x,dest=y"), "ERROR: exporter \"x\" could not be found");
        assert_eq!(refused("dest=y,foo"), "ERROR: invalid value foo");
    }
}
