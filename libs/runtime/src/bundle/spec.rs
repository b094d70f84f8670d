use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

/// What a container is to be. `Default` is Docker's default container without args.
#[derive(Clone, Debug, Default)]
pub struct BundleSpec {
    /// The mounted root, on this machine.
    pub rootfs: PathBuf,
    pub hostname: String,
    pub domainname: String,
    pub process: ProcessSpec,
    /// Besides the default ones; a mount on the same target replaces the default one. In any order.
    pub mounts: Vec<Mount>,
    pub privileged: bool,
    pub readonly_rootfs: bool,
    /// Run an init (docker-init or tini of this machine) as process 1.
    pub init: bool,
    pub resources: Resources,
    pub sysctls: BTreeMap<String, String>,
    pub network: Namespace,
    pub ipc: Namespace,
    pub pid: Namespace,
    pub uts: Namespace,
    /// `Private` is Docker's default on cgroup v2 only; on v1 and hybrid hosts the host's is used whatever this says.
    pub cgroup: Namespace,
    /// 0: 64 MiB.
    pub shm_bytes: u64,
    pub devices: Vec<Device>,
    /// `None`: Docker's list.
    pub masked_paths: Option<Vec<String>>,
    pub readonly_paths: Option<Vec<String>>,
    pub seccomp: Seccomp,
    /// Absolute below each controller's mount, such as `/boxyard/<id>`.
    pub cgroup_path: String,
}

#[derive(Clone, Debug, Default)]
pub struct ProcessSpec {
    pub args: Vec<String>,
    /// `K=V`. PATH, HOSTNAME, HOME and, with a tty, TERM are added when they are missing.
    pub env: Vec<String>,
    /// Empty: `/`. Made by the runtime when it is missing.
    pub cwd: String,
    /// `user`, `uid`, `user:group`, `uid:gid`; empty: root.
    pub user: String,
    pub group_add: Vec<String>,
    pub tty: bool,
    /// With or without `CAP_`, any case; `ALL`.
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub no_new_privileges: bool,
    pub rlimits: Vec<Rlimit>,
    pub oom_score_adj: Option<i32>,
    /// HOSTNAME is not added.
    pub hides_hostname: bool,
}

#[derive(Clone, Debug, Default)]
pub struct ExecSpec {
    pub args: Vec<String>,
    /// Added to the container's.
    pub env: Vec<String>,
    /// Empty: the container's.
    pub cwd: String,
    /// Empty: the container's.
    pub user: String,
    pub tty: bool,
    pub privileged: bool,
}

#[derive(Clone, Debug)]
pub struct Mount {
    /// `bind`, `tmpfs` or any file system's name.
    pub kind: String,
    /// Host path of a bind.
    pub source: PathBuf,
    /// Absolute, inside the container.
    pub target: String,
    pub read_only: bool,
    /// Empty: `rprivate`. Binds only.
    pub propagation: String,
    /// Further options, such as `size=64m`.
    pub options: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Namespace {
    #[default]
    Private,
    Host,
    /// Join this one, such as `/proc/<pid>/ns/net` or a bind of it.
    Path(PathBuf),
}

#[derive(Clone, Debug)]
pub struct Device {
    pub host_path: PathBuf,
    pub container_path: String,
    /// Of `rwm`; empty: all.
    pub permissions: String,
}

#[derive(Clone, Debug)]
pub struct Rlimit {
    /// `nofile`, without `RLIMIT_`.
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}

#[derive(Clone, Debug, Default)]
pub enum Seccomp {
    #[default]
    Docker,
    Unconfined,
    /// A profile as people write it for Docker, or the `seccomp` object of the OCI runtime-spec.
    Profile(Value),
}

/// 0 or empty: not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub memory_bytes: i64,
    pub memory_reservation_bytes: i64,
    /// Memory and swap together; -1: no limit.
    pub memory_swap_bytes: i64,
    pub memory_swappiness: Option<i64>,
    pub oom_kill_disable: bool,
    pub nano_cpus: i64,
    pub cpu_shares: i64,
    pub cpu_period_us: i64,
    pub cpu_quota_us: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    /// -1: no limit.
    pub pids_limit: i64,
    pub blkio_weight: u16,
    pub read_bps: Vec<ThrottleDevice>,
    pub write_bps: Vec<ThrottleDevice>,
    pub read_iops: Vec<ThrottleDevice>,
    pub write_iops: Vec<ThrottleDevice>,
    /// Further device rules, `c 42:* rwm`.
    pub device_cgroup_rules: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThrottleDevice {
    pub path: PathBuf,
    pub rate: u64,
}
