//! Writes an OCI bundle with Docker's defaults.

mod bpf;
mod devices;
mod mounts;
mod process;
mod profile;
mod resources;
mod seccomp;
mod spec;
mod user;

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::Error;
pub use spec::{
    BundleSpec, Device, ExecSpec, Mount, Namespace, ProcessSpec, Resources, Rlimit, Seccomp, ThrottleDevice,
};

const CONFIG_FILE: &str = "config.json";

/// What tells of the machine instead of the container (Docker's list).
const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Writes `<dir>/config.json`. May be repeated. `InvalidArgument` when the user, a capability or a device isn't known.
pub fn write(dir: &Path, spec: &BundleSpec) -> Result<(), Error> {
    let config = config(spec)?;
    std::fs::create_dir_all(dir).map_err(Error::io(format!("cannot make {}", dir.display())))?;
    let path = dir.join(CONFIG_FILE);
    std::fs::write(&path, config.to_string()).map_err(Error::io(format!("cannot write {}", path.display())))
}

/// The process of an exec in the container of `bundle` (the folder that [`write`] filled), whose root is `rootfs`
/// (of a running container: `/proc/<pid>/root`).
pub fn exec_process(bundle: &Path, rootfs: &Path, spec: &ExecSpec) -> Result<Value, Error> {
    let path = bundle.join(CONFIG_FILE);
    let text = std::fs::read(&path).map_err(Error::io(format!("cannot read {}", path.display())))?;
    let config: Value =
        serde_json::from_slice(&text).map_err(|e| Error::io(format!("cannot parse {}", path.display()))(e.into()))?;
    process::exec(&config, rootfs, spec)
}

/// User and group id of `user` (see [`ProcessSpec::user`]) by the files of `rootfs`.
pub fn owner(rootfs: &Path, user: &str) -> Result<(u32, u32), Error> {
    user::resolve(rootfs, user, &[]).map(|user| (user.uid, user.gid))
}

fn config(spec: &BundleSpec) -> Result<Value, Error> {
    let mut spec = spec.clone();
    if spec.init && spec.pid == Namespace::Private {
        let (mount, words) = mounts::init()?;
        spec.mounts.push(mount);
        spec.process.args.splice(0..0, words);
    }
    let (process, annotations) = process::process(&spec)?;
    let capabilities = bounding(&process);
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": spec.rootfs, "readonly": spec.readonly_rootfs},
        "mounts": mounts::mounts(&spec),
        "annotations": annotations,
        "linux": linux(&spec, &capabilities)?,
    });
    if let Some(program) = config["linux"].get("seccomp").and_then(bpf::compiled) {
        config["annotations"][bpf::ANNOTATION] = json!(program);
    }
    if spec.uts != Namespace::Host && !spec.hostname.is_empty() {
        config["hostname"] = json!(spec.hostname);
    }
    Ok(config)
}

fn bounding(process: &Map<String, Value>) -> Vec<String> {
    serde_json::from_value(process["capabilities"]["bounding"].clone()).unwrap_or_default()
}

fn linux(spec: &BundleSpec, capabilities: &[String]) -> Result<Value, Error> {
    let devices::Devices { nodes, rules } = devices::devices(spec)?;
    let mut resources = resources::resources(&spec.resources)?;
    resources.insert("devices".into(), rules.into());
    let mut linux = json!({
        "namespaces": namespaces(spec),
        "cgroupsPath": spec.cgroup_path,
        "resources": resources,
        "devices": nodes,
        "rootfsPropagation": mounts::root_propagation(spec),
        "sysctl": sysctls(spec),
    });
    if !spec.privileged {
        let list = |own: &Option<Vec<String>>, default: &[&str]| match own {
            Some(own) => json!(own),
            None => json!(default),
        };
        linux["maskedPaths"] = list(&spec.masked_paths, &MASKED_PATHS);
        linux["readonlyPaths"] = list(&spec.readonly_paths, &READONLY_PATHS);
    }
    let profile = match &spec.seccomp {
        Seccomp::Docker if spec.privileged => None,
        Seccomp::Docker => Some(seccomp::docker(capabilities)),
        Seccomp::Unconfined => None,
        Seccomp::Profile(profile) => Some(profile::of_docker(profile, capabilities)?),
    };
    if let Some(profile) = profile {
        linux["seccomp"] = profile;
    }
    Ok(linux)
}

fn namespaces(spec: &BundleSpec) -> Vec<Value> {
    let mut list = vec![json!({"type": "mount"})];
    // Docker's default for the cgroup namespace: private on v2, the machine's on v1.
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let cgroup = if v2 { &spec.cgroup } else { &Namespace::Host };
    for (kind, namespace) in
        [("network", &spec.network), ("ipc", &spec.ipc), ("pid", &spec.pid), ("uts", &spec.uts), ("cgroup", cgroup)]
    {
        match namespace {
            Namespace::Private => list.push(json!({"type": kind})),
            Namespace::Path(path) => list.push(json!({"type": kind, "path": path})),
            Namespace::Host => {}
        }
    }
    list
}

fn sysctls(spec: &BundleSpec) -> Map<String, Value> {
    let mut all = Map::new();
    if spec.network != Namespace::Host {
        // As Docker: low ports and ping need no capability inside a network of one's own.
        all.insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
        all.insert("net.ipv4.ping_group_range".into(), "0 2147483647".into());
    }
    if !spec.domainname.is_empty() && spec.uts != Namespace::Host {
        all.insert("kernel.domainname".into(), spec.domainname.as_str().into());
    }
    all.extend(spec.sysctls.iter().map(|(key, value)| (key.clone(), value.as_str().into())));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> BundleSpec {
        BundleSpec { rootfs: "/".into(), cgroup_path: "/boxyard/x".into(), ..BundleSpec::default() }
    }

    #[test]
    fn privileged_opens_what_is_closed_by_default() {
        let closed = config(&spec()).expect("a config");
        assert_eq!(closed["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
        assert_eq!(closed["linux"]["maskedPaths"].as_array().map(Vec::len), Some(12));
        let open = config(&BundleSpec { privileged: true, ..spec() }).expect("a config");
        assert!(open["linux"]["seccomp"].is_null() && open["linux"]["maskedPaths"].is_null());
        let sys = open["mounts"].as_array().expect("mounts").iter().find(|m| m["destination"] == "/sys").expect("/sys");
        assert_eq!(sys["options"][3], "rw");
    }

    #[test]
    fn own_mount_replaces_the_default_and_parents_come_first() {
        let bind = |target: &str| Mount {
            kind: "bind".into(),
            source: "/tmp".into(),
            target: target.into(),
            read_only: true,
            propagation: String::new(),
            options: Vec::new(),
        };
        let spec = BundleSpec { mounts: vec![bind("/a/b/c"), bind("/a"), bind("/dev/shm")], ..spec() };
        let config = config(&spec).expect("a config");
        let targets: Vec<&str> =
            config["mounts"].as_array().expect("mounts").iter().filter_map(|m| m["destination"].as_str()).collect();
        assert_eq!(targets[targets.len() - 3..], ["/a", "/dev/shm", "/a/b/c"]);
        assert_eq!(targets.iter().filter(|target| **target == "/dev/shm").count(), 1);
    }
}
