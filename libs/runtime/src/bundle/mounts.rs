use std::path::Path;

use serde_json::{Value, json};

use super::{BundleSpec, Mount, Namespace};
use crate::Error;

const SHM_BYTES: u64 = 64 * 1024 * 1024;
const INIT_TARGET: &str = "/sbin/docker-init";

/// Default mounts, then the container's own, parents before children.
pub(super) fn mounts(spec: &BundleSpec) -> Vec<Value> {
    let mut own: Vec<&Mount> = spec.mounts.iter().collect();
    own.sort_by_key(|mount| mount.target.split('/').filter(|part| !part.is_empty()).count());
    let replaced = |target: &str| own.iter().any(|mount| mount.target.trim_end_matches('/') == target);
    let mut all: Vec<Value> =
        defaults(spec).into_iter().filter(|mount| !mount["destination"].as_str().is_some_and(&replaced)).collect();
    all.extend(own.into_iter().map(one));
    all
}

fn defaults(spec: &BundleSpec) -> Vec<Value> {
    let mode = if spec.privileged { "rw" } else { "ro" };
    let shm_bytes = if spec.shm_bytes == 0 { SHM_BYTES } else { spec.shm_bytes };
    let mut list = vec![
        entry("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        entry("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        entry(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        entry("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", mode]),
        entry("/sys/fs/cgroup", "cgroup", "cgroup", &[mode, "nosuid", "noexec", "nodev", "relatime"]),
    ];
    if spec.ipc == Namespace::Host {
        list.push(entry("/dev/mqueue", "bind", "/dev/mqueue", &["rbind", "rprivate"]));
        list.push(entry("/dev/shm", "bind", "/dev/shm", &["rbind", "rprivate"]));
    } else {
        list.push(entry("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
        let size = format!("size={shm_bytes}");
        list.push(entry("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &size]));
    }
    list.retain(|mount| {
        let Some(source) = mount["source"].as_str() else { return true };
        mount["type"] != "bind" || Path::new(source).exists()
    });
    list
}

fn entry(target: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({"destination": target, "type": kind, "source": source, "options": options})
}

fn one(mount: &Mount) -> Value {
    let mut options: Vec<&str> = mount.options.iter().map(String::as_str).collect();
    let source = match mount.kind.as_str() {
        "bind" => {
            options.push("rbind");
            options.push(if mount.propagation.is_empty() { "rprivate" } else { &mount.propagation });
            mount.source.to_string_lossy().into_owned()
        }
        "tmpfs" => {
            options.extend(["nosuid", "nodev", "noexec"].into_iter().filter(|safe| {
                // Docker's defaults for --tmpfs, each taken back by its opposite.
                let opposite = &safe[2..];
                !mount.options.iter().any(|option| option == opposite)
            }));
            "tmpfs".to_owned()
        }
        _ => mount.source.to_string_lossy().into_owned(),
    };
    options.push(if mount.read_only { "ro" } else { "rw" });
    options.dedup();
    json!({"destination": mount.target, "type": mount.kind, "source": source, "options": options})
}

/// What the root's propagation must be for the binds' to work.
pub(super) fn root_propagation(spec: &BundleSpec) -> &'static str {
    let any = |word: &str| spec.mounts.iter().any(|mount| mount.propagation.contains(word));
    match (any("shared"), any("slave")) {
        (true, _) => "rshared",
        (false, true) => "rslave",
        (false, false) => "rprivate",
    }
}

/// The init's mount and the words to put before the container's.
pub(super) fn init() -> Result<(Mount, [String; 2]), Error> {
    let found = ["/usr/bin/docker-init", "/usr/libexec/docker/docker-init", "/usr/bin/tini-static", "/usr/bin/tini"]
        .into_iter()
        .find(|path| Path::new(path).is_file())
        .ok_or_else(|| Error::Start {
            message: "exec: \"docker-init\": executable file not found in $PATH".into(),
            code: 127,
        })?;
    let mount = Mount {
        kind: "bind".into(),
        source: found.into(),
        target: INIT_TARGET.into(),
        read_only: true,
        propagation: String::new(),
        options: Vec::new(),
    };
    Ok((mount, [INIT_TARGET.into(), "--".into()]))
}
