//! `-v`, `--mount` and `--tmpfs`.

use serde_json::{Map, Value, json};

use crate::failure::{Failure, Outcome};
use crate::units;

pub struct Volumes {
    /// `-v /path`: a new volume at that path.
    pub anonymous: Value,
    pub binds: Vec<String>,
}

pub fn volumes(texts: &[String]) -> Outcome<Volumes> {
    let mut anonymous = Map::new();
    let mut binds = Vec::new();
    for text in texts {
        match text.split_once(':') {
            None => drop(anonymous.insert(text.clone(), json!({}))),
            Some((source, rest)) if source.starts_with('.') => {
                binds.push(format!("{}:{rest}", absolute(source)?));
            }
            Some(_) => binds.push(text.clone()),
        }
    }
    Ok(Volumes { anonymous: Value::Object(anonymous), binds })
}

fn absolute(path: &str) -> Outcome<String> {
    let joined = std::env::current_dir()?.join(path);
    let mut clean = std::path::PathBuf::new();
    for part in joined.components() {
        match part {
            std::path::Component::ParentDir => drop(clean.pop()),
            std::path::Component::CurDir => {}
            other => clean.push(other),
        }
    }
    Ok(clean.to_string_lossy().into_owned())
}

/// `/path[:options]`.
pub fn tmpfs(texts: &[String]) -> Value {
    let split = |text: &String| {
        let (path, options) = text.split_once(':').unwrap_or((text, ""));
        (path.to_owned(), Value::from(options))
    };
    Value::Object(texts.iter().map(split).collect())
}

pub fn mounts(texts: &[String]) -> Outcome<Value> {
    texts.iter().map(|text| mount(text)).collect()
}

fn mount(text: &str) -> Outcome<Value> {
    let invalid = |why: String| Failure::new(format!("invalid argument {text:?} for \"--mount\" flag: {why}"));
    let mut mount = Map::new();
    let mut options: [(&str, Map<String, Value>); 3] =
        [("BindOptions", Map::new()), ("VolumeOptions", Map::new()), ("TmpfsOptions", Map::new())];
    mount.insert("Type".into(), "volume".into());
    for field in text.split(',') {
        let (name, value) = field.split_once('=').map_or((field, None), |(n, v)| (n, Some(v)));
        let name = name.to_ascii_lowercase();
        let on = || match value {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(invalid(format!("invalid value for {name}: {other}"))),
        };
        let needed = || value.ok_or_else(|| invalid(format!("invalid field '{field}' must be a key=value pair")));
        match name.as_str() {
            "type" => drop(mount.insert("Type".into(), needed()?.to_ascii_lowercase().into())),
            "source" | "src" => {
                let source = needed()?;
                let source = if source.starts_with('.') { absolute(source)? } else { source.to_owned() };
                mount.insert("Source".into(), source.into());
            }
            "target" | "dst" | "destination" => drop(mount.insert("Target".into(), needed()?.into())),
            "readonly" | "ro" => drop(mount.insert("ReadOnly".into(), on()?.into())),
            "consistency" => drop(mount.insert("Consistency".into(), needed()?.into())),
            "bind-propagation" => drop(options[0].1.insert("Propagation".into(), needed()?.into())),
            "bind-nonrecursive" => drop(options[0].1.insert("NonRecursive".into(), on()?.into())),
            "volume-nocopy" => drop(options[1].1.insert("NoCopy".into(), on()?.into())),
            "volume-subpath" => drop(options[1].1.insert("Subpath".into(), needed()?.into())),
            "volume-label" => insert_pair(&mut options[1].1, "Labels", needed()?),
            "volume-driver" => {
                let driver = options[1].1.entry("DriverConfig").or_insert_with(|| json!({}));
                driver["Name"] = needed()?.into();
            }
            "volume-opt" => {
                let (key, value) = needed()?.split_once('=').unwrap_or((needed()?, ""));
                let driver = options[1].1.entry("DriverConfig").or_insert_with(|| json!({}));
                driver["Options"][key] = value.into();
            }
            "tmpfs-size" => {
                let size = units::parse_bytes(needed()?).map_err(&invalid)?;
                options[2].1.insert("SizeBytes".into(), size.into());
            }
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(needed()?, 8).map_err(|e| invalid(e.to_string()))?;
                options[2].1.insert("Mode".into(), mode.into());
            }
            _ => return Err(invalid(format!("unexpected key '{name}' in '{field}'"))),
        }
    }
    if !mount.contains_key("Target") {
        return Err(invalid("target is required".into()));
    }
    for (name, map) in options {
        if !map.is_empty() {
            mount.insert(name.into(), Value::Object(map));
        }
    }
    Ok(Value::Object(mount))
}

fn insert_pair(map: &mut Map<String, Value>, name: &str, pair: &str) {
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    let inner = map.entry(name).or_insert_with(|| json!({}));
    inner[key] = value.into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_fields() {
        let mounts = mounts(&["type=bind,src=/a,dst=/b,ro".into(), "target=/v,volume-opt=x=y".into()]).expect("parses");
        assert_eq!(
            mounts,
            json!([{"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true},
                {"Type": "volume", "Target": "/v", "VolumeOptions": {"DriverConfig": {"Options": {"x": "y"}}}}])
        );
        assert!(mount("type=bind").is_err());
        assert!(mount("dst=/a,what=1").is_err());
    }

    #[test]
    fn binds_and_anonymous_volumes() {
        let volumes = volumes(&["/data".into(), "/a:/b:ro".into()]).expect("parses");
        assert_eq!(volumes.anonymous, json!({"/data": {}}));
        assert_eq!(volumes.binds, ["/a:/b:ro"]);
    }
}
