use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};
use serde_json::{Value, json};

use super::{BundleSpec, Device};
use crate::Error;

/// Nodes to make in the container and the cgroup's rules, in this order.
pub(super) struct Devices {
    pub nodes: Vec<Value>,
    pub rules: Vec<Value>,
}

pub(super) fn devices(spec: &BundleSpec) -> Result<Devices, Error> {
    if spec.privileged {
        let mut nodes = Vec::new();
        host_nodes(Path::new("/dev"), &mut nodes);
        return Ok(Devices { nodes, rules: vec![json!({"allow": true, "access": "rwm"})] });
    }
    let mut devices = Devices { nodes: Vec::new(), rules: vec![json!({"allow": false, "access": "rwm"})] };
    for kind in ["c", "b"] {
        devices.rules.push(json!({"allow": true, "type": kind, "access": "m"}));
    }
    // null, zero, full, random, urandom, tty, console, ptmx; every pts.
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        devices.rules.push(json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"}));
    }
    devices.rules.push(json!({"allow": true, "type": "c", "major": 136, "access": "rwm"}));
    for device in &spec.devices {
        add(device, &mut devices)?;
    }
    for rule in &spec.resources.device_cgroup_rules {
        devices.rules.push(parse_rule(rule)?);
    }
    Ok(devices)
}

fn add(device: &Device, devices: &mut Devices) -> Result<(), Error> {
    let cannot = |reason: &str| {
        let path = device.host_path.display();
        Error::Invalid(format!("error gathering device information while adding custom device \"{path}\": {reason}"))
    };
    let meta = std::fs::metadata(&device.host_path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => cannot("no such file or directory"),
        _ => cannot(&e.to_string()),
    })?;
    let access = if device.permissions.is_empty() { "rwm" } else { &device.permissions };
    if meta.is_dir() {
        let mut nodes = Vec::new();
        host_nodes(&device.host_path, &mut nodes);
        for node in &mut nodes {
            let host = PathBuf::from(node["path"].as_str().unwrap_or_default());
            let inside = host.strip_prefix(&device.host_path).unwrap_or(&host).to_owned();
            node["path"] = json!(Path::new(&device.container_path).join(inside));
            devices.rules.push(rule_of(node, access));
        }
        devices.nodes.extend(nodes);
        return Ok(());
    }
    let node = node(Path::new(&device.container_path), &meta).ok_or_else(|| cannot("not a device node"))?;
    devices.rules.push(rule_of(&node, access));
    devices.nodes.push(node);
    Ok(())
}

fn rule_of(node: &Value, access: &str) -> Value {
    json!({"allow": true, "type": node["type"], "major": node["major"], "minor": node["minor"], "access": access})
}

fn node(path: &Path, meta: &Metadata) -> Option<Value> {
    let kind = match meta.file_type() {
        kind if kind.is_char_device() => "c",
        kind if kind.is_block_device() => "b",
        _ => return None,
    };
    Some(json!({
        "path": path, "type": kind, "major": major(meta.rdev()), "minor": minor(meta.rdev()),
        "fileMode": meta.mode() & 0o7777, "uid": meta.uid(), "gid": meta.gid(),
    }))
}

/// Every device node below `dir`, but for what a container has of its own.
fn host_nodes(dir: &Path, nodes: &mut Vec<Value>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let own = ["/dev/pts", "/dev/shm", "/dev/fd", "/dev/mqueue", "/dev/console", "/dev/ptmx", "/dev/tty"];
        if own.iter().any(|own| path == Path::new(own)) {
            continue;
        }
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() {
            host_nodes(&path, nodes);
        } else if let Some(node) = node(&path, &meta) {
            nodes.push(node);
        }
    }
}

/// `c 42:* rwm`.
fn parse_rule(text: &str) -> Result<Value, Error> {
    let invalid = || Error::Invalid(format!("invalid device cgroup rule format: '{text}'"));
    let mut words = text.split_whitespace();
    let (Some(kind), Some(numbers), Some(access), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(invalid());
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    if !matches!(kind, "a" | "b" | "c") || access.is_empty() || !access.bytes().all(|b| b"rwm".contains(&b)) {
        return Err(invalid());
    }
    let mut rule = json!({"allow": true, "type": kind, "access": access});
    for (key, number) in [("major", major), ("minor", minor)] {
        if number != "*" {
            rule[key] = json!(number.parse::<u32>().map_err(|_| invalid())?);
        }
    }
    Ok(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        assert_eq!(
            parse_rule("c 42:* rw").expect("a rule"),
            json!({"allow": true, "type": "c", "access": "rw", "major": 42})
        );
        for wrong in ["", "c 42 rwm", "x 1:1 r", "c 1:1 q", "c a:1 r", "c 1:1 r r"] {
            assert!(parse_rule(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_device_is_refused() {
        let spec = |path: &str| BundleSpec {
            devices: vec![Device {
                host_path: path.into(),
                container_path: "/dev/x".into(),
                permissions: String::new(),
            }],
            ..BundleSpec::default()
        };
        assert_eq!(devices(&spec("/dev/null")).expect("a device").nodes[0]["minor"], 3);
        assert!(devices(&spec("/etc/passwd")).is_err());
        assert!(devices(&spec("/dev/none")).is_err());
    }
}
