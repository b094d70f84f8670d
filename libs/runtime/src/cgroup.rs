//! A running container's cgroup, by its files: freezing, limits, processes, counters. v1 (hybrid too) and v2.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Error;
use crate::bundle::Resources;

const ROOT: &str = "/sys/fs/cgroup";
/// A process in the middle of a slow system call freezes late.
const FREEZE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);

/// The cgroup that a container was given as `cgroup_path`.
#[derive(Clone, Debug)]
pub struct Cgroup {
    root: PathBuf,
    path: String,
    v2: bool,
}

/// Removes the groups of an instance, at the end of its machine. What has a process in it stays. Blocks for a second at
/// most: a group that its last process has just left may be refused for a moment.
pub fn remove_all(instance: &str) {
    let name = format!("boxyard-{instance}");
    let until = Instant::now() + PATIENCE;
    loop {
        remove(&name);
        if trees().all(|tree| !tree.join(&name).exists()) || Instant::now() > until {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Where groups begin: in v2 the one tree, in v1 one for each controller.
fn trees() -> impl Iterator<Item = PathBuf> {
    let root = Path::new(ROOT);
    let controllers = std::fs::read_dir(root).into_iter().flatten().flatten().map(|controller| controller.path());
    std::iter::once(root.to_owned()).chain(controllers)
}

/// Removes a group that holds other groups, with those of them that no process is in any more.
pub fn remove(cgroup_path: &str) {
    let path = cgroup_path.trim_matches('/');
    for group in trees().map(|tree| tree.join(path)) {
        for inner in std::fs::read_dir(&group).into_iter().flatten().flatten() {
            // Files cannot be removed, and what is still used stays.
            let _ = std::fs::remove_dir(inner.path());
        }
        let _ = std::fs::remove_dir(group);
    }
}

/// Paths of the groups of an instance whose names begin so.
pub fn groups_of(instance: &str, prefix: &str) -> Vec<String> {
    let parent = format!("boxyard-{instance}");
    let folders = trees().map(|tree| tree.join(&parent));
    let entries = folders.flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<String> =
        names.filter(|name| name.starts_with(prefix)).map(|name| format!("/{parent}/{name}")).collect();
    found.sort();
    found.dedup();
    found
}

impl Cgroup {
    pub fn new(cgroup_path: &str) -> Self {
        Self::below(Path::new(ROOT), cgroup_path)
    }

    /// In a tree that is mounted, or recorded, somewhere else. A hybrid one, whose v2 mount lies in `unified` and has no
    /// controllers, is a v1 one.
    pub fn below(root: &Path, cgroup_path: &str) -> Self {
        let v2 = root.join("cgroup.controllers").exists();
        Self { root: root.to_owned(), path: cgroup_path.trim_matches('/').to_owned(), v2 }
    }

    pub fn is_v2(&self) -> bool {
        self.v2
    }

    /// The folder of a v1 controller, or the one folder of v2.
    pub fn folder(&self, controller: &str) -> PathBuf {
        if self.v2 { self.root.join(&self.path) } else { self.root.join(controller).join(&self.path) }
    }

    /// A file's text; `None` when there is none.
    pub fn read(&self, controller: &str, file: &str) -> Option<String> {
        std::fs::read_to_string(self.folder(controller).join(file)).ok()
    }

    /// Pids of all processes, on this machine.
    pub fn processes(&self) -> Vec<i32> {
        let text = self.read("pids", "cgroup.procs").unwrap_or_default();
        text.lines().filter_map(|line| line.trim().parse().ok()).collect()
    }

    /// The kernel killed a process of it for want of memory.
    pub fn oom_happened(&self) -> bool {
        let file = if self.v2 { "memory.events" } else { "memory.oom_control" };
        self.read("memory", file).unwrap_or_default().lines().any(|line| {
            line.strip_prefix("oom_kill ").and_then(|count| count.trim().parse::<u64>().ok()).is_some_and(|n| n > 0)
        })
    }

    /// Stops every process, and returns when they stand. Blocks for at most 10 s.
    pub fn freeze(&self) -> Result<(), Error> {
        let (file, wanted, state, frozen) = match self.v2 {
            true => ("cgroup.freeze", "1", "cgroup.events", "frozen 1"),
            false => ("freezer.state", "FROZEN", "freezer.state", "FROZEN"),
        };
        let deadline = Instant::now() + FREEZE;
        loop {
            self.write("freezer", file, wanted)?;
            let now = self.read("freezer", state).unwrap_or_default();
            if now.lines().any(|line| line.trim() == frozen) {
                return Ok(());
            }
            if Instant::now() > deadline {
                self.thaw()?;
                return Err(Error::Invalid("the container's processes did not stop within 10 s".into()));
            }
            // The kernel tells of it in no other way on v1.
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn thaw(&self) -> Result<(), Error> {
        if self.v2 {
            self.write("freezer", "cgroup.freeze", "0")
        } else {
            self.write("freezer", "freezer.state", "THAWED")
        }
    }

    /// Makes a group that is to hold others, with limits for all of them together. May be repeated.
    pub fn create(&self, limits: &Resources) -> Result<(), Error> {
        let doing = |folder: &Path| format!("cannot make the control group {}", folder.display());
        if self.v2 {
            let mut folder = self.root.clone();
            for part in Path::new(&self.path) {
                pass_on_controllers(&folder);
                folder.push(part);
                std::fs::create_dir_all(&folder).map_err(Error::io(doing(&folder)))?;
            }
        } else {
            for controller in ["memory", "cpu"] {
                let folder = self.folder(controller);
                std::fs::create_dir_all(&folder).map_err(Error::io(doing(&folder)))?;
            }
            // Kernels from 5.11 on know no other way, and some have no such file.
            let _ = self.write("memory", "memory.use_hierarchy", "1");
        }
        self.update(limits)
    }

    /// Sets the limits that `new` names and leaves the others.
    pub fn update(&self, new: &Resources) -> Result<(), Error> {
        let limits = if self.v2 { limits_v2(new) } else { limits_v1(new) };
        for (controller, file, value) in limits {
            match self.write(controller, file, &value) {
                // A kernel without swap accounting.
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound && file.contains("swap") => {}
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound && file.contains("memsw") => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn write(&self, controller: &str, file: &str, value: &str) -> Result<(), Error> {
        let path = self.folder(controller).join(file);
        std::fs::write(&path, value).map_err(Error::io(format!("cannot write {value:?} to {}", path.display())))
    }
}

/// Lets the groups in a v2 group have limits. Where the machine has none of a controller, setting a limit says so.
fn pass_on_controllers(folder: &Path) {
    for controller in ["+memory", "+cpu"] {
        let _ = std::fs::write(folder.join("cgroup.subtree_control"), controller);
    }
}

type Limit = (&'static str, &'static str, String);

fn limits_v1(new: &Resources) -> Vec<Limit> {
    let mut all: Vec<Limit> = Vec::new();
    let (period, quota) = quota(new);
    for (controller, file, value) in [
        ("memory", "memory.limit_in_bytes", new.memory_bytes),
        ("memory", "memory.memsw.limit_in_bytes", new.memory_swap_bytes),
        ("memory", "memory.soft_limit_in_bytes", new.memory_reservation_bytes),
        ("cpu", "cpu.shares", new.cpu_shares),
        ("cpu", "cpu.cfs_period_us", period),
        ("cpu", "cpu.cfs_quota_us", quota),
    ] {
        if value != 0 {
            all.push((controller, file, value.to_string()));
        }
    }
    rest(new, &mut all);
    all
}

fn limits_v2(new: &Resources) -> Vec<Limit> {
    let mut all: Vec<Limit> = Vec::new();
    let or_max = |value: i64| if value < 0 { "max".to_owned() } else { value.to_string() };
    if new.memory_bytes != 0 {
        all.push(("memory", "memory.max", or_max(new.memory_bytes)));
    }
    if new.memory_reservation_bytes != 0 {
        all.push(("memory", "memory.low", or_max(new.memory_reservation_bytes)));
    }
    if new.memory_swap_bytes != 0 {
        // Docker counts memory and swap together, v2 swap alone.
        let swap = if new.memory_swap_bytes < 0 { -1 } else { new.memory_swap_bytes - new.memory_bytes.max(0) };
        all.push(("memory", "memory.swap.max", or_max(swap)));
    }
    if new.cpu_shares != 0 {
        // 2..262144 shares onto 1..10000 (as the OCI runtimes do).
        let weight = 1 + (new.cpu_shares.clamp(2, 262_144) - 2) * 9999 / 262_142;
        all.push(("cpu", "cpu.weight", weight.to_string()));
    }
    let (period, quota) = quota(new);
    if period != 0 || quota != 0 {
        let quota = if quota <= 0 { "max".to_owned() } else { quota.to_string() };
        let period = if period == 0 { 100_000 } else { period };
        all.push(("cpu", "cpu.max", format!("{quota} {period}")));
    }
    rest(new, &mut all);
    all
}

/// What both versions call the same.
fn rest(new: &Resources, all: &mut Vec<Limit>) {
    if !new.cpuset_cpus.is_empty() {
        all.push(("cpuset", "cpuset.cpus", new.cpuset_cpus.clone()));
    }
    if !new.cpuset_mems.is_empty() {
        all.push(("cpuset", "cpuset.mems", new.cpuset_mems.clone()));
    }
    if new.pids_limit != 0 {
        all.push(("pids", "pids.max", if new.pids_limit < 0 { "max".into() } else { new.pids_limit.to_string() }));
    }
}

fn quota(new: &Resources) -> (i64, i64) {
    match new.nano_cpus {
        0 => (new.cpu_period_us, new.cpu_quota_us),
        cpus => (100_000, cpus / 10_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions() {
        let new = Resources {
            memory_bytes: 100,
            memory_swap_bytes: 150,
            nano_cpus: 500_000_000,
            pids_limit: -1,
            ..Resources::default()
        };
        let text = |limits: Vec<Limit>| {
            limits.into_iter().map(|(_, file, value)| format!("{file}={value}")).collect::<Vec<_>>()
        };
        assert_eq!(
            text(limits_v1(&new)),
            [
                "memory.limit_in_bytes=100",
                "memory.memsw.limit_in_bytes=150",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "pids.max=max"
            ]
        );
        assert_eq!(
            text(limits_v2(&new)),
            ["memory.max=100", "memory.swap.max=50", "cpu.max=50000 100000", "pids.max=max"]
        );
    }

    /// A machine's tree as far as a container's limits and counters go.
    fn recorded(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().expect("has a parent")).expect("a folder");
            std::fs::write(path, text).expect("written");
        }
        root
    }

    const V1: [(&str, &str); 8] = [
        ("memory/boxyard/c/memory.limit_in_bytes", "9223372036854771712\n"),
        ("memory/boxyard/c/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
        ("cpu/boxyard/c/cpu.cfs_period_us", "100000\n"),
        ("cpu/boxyard/c/cpu.cfs_quota_us", "-1\n"),
        ("pids/boxyard/c/cgroup.procs", "12\n7\n"),
        ("pids/boxyard/c/pids.max", "max\n"),
        ("freezer/boxyard/c/freezer.state", "THAWED\n"),
        ("cpuset/boxyard/c/cpuset.cpus", "0-1\n"),
    ];
    const V2: [(&str, &str); 7] = [
        ("cgroup.controllers", "cpuset cpu io memory pids\n"),
        ("boxyard/c/memory.max", "max\n"),
        ("boxyard/c/memory.swap.max", "max\n"),
        ("boxyard/c/memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n"),
        ("boxyard/c/cpu.max", "max 100000\n"),
        ("boxyard/c/pids.max", "max\n"),
        ("boxyard/c/cgroup.procs", "12\n7\n"),
    ];

    #[test]
    fn limits_land_in_the_trees_own_files() {
        let new = Resources {
            memory_bytes: 1 << 20,
            memory_swap_bytes: 3 << 20,
            nano_cpus: 250_000_000,
            pids_limit: 9,
            ..Resources::default()
        };
        // memsw is not there: a kernel that counts no swap.
        let v1 = recorded(&V1);
        // Hybrid: the same, and a v2 mount without controllers beside.
        let hybrid = recorded(&[&V1[..], &[("unified/cgroup.controllers", "\n")]].concat());
        for root in [&v1, &hybrid] {
            let group = Cgroup::below(root.path(), "/boxyard/c/");
            assert!(!group.is_v2());
            group.update(&new).expect("written");
            let read = |controller: &str, file: &str| group.read(controller, file).unwrap_or_default();
            assert_eq!(read("memory", "memory.limit_in_bytes"), "1048576");
            assert_eq!(read("cpu", "cpu.cfs_quota_us"), "25000");
            assert_eq!(read("pids", "pids.max"), "9");
            assert_eq!(group.processes(), [12, 7]);
            assert!(group.oom_happened());
        }
        let v2 = recorded(&V2);
        let group = Cgroup::below(v2.path(), "boxyard/c");
        assert!(group.is_v2());
        group.update(&new).expect("written");
        let read = |file: &str| group.read("any", file).unwrap_or_default();
        assert_eq!(read("memory.max"), "1048576");
        assert_eq!(read("memory.swap.max"), "2097152");
        assert_eq!(read("cpu.max"), "25000 100000");
        assert_eq!(read("pids.max"), "9");
        assert_eq!(group.processes(), [12, 7]);
        assert!(group.oom_happened());
    }

    #[test]
    fn no_kill_is_no_oom() {
        let v1 = recorded(&[("memory/c/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n")]);
        assert!(!Cgroup::below(v1.path(), "c").oom_happened());
        let v2 = recorded(&[("cgroup.controllers", "memory\n"), ("c/memory.events", "oom 1\noom_kill 0\n")]);
        assert!(!Cgroup::below(v2.path(), "c").oom_happened());
        assert!(!Cgroup::below(v2.path(), "gone").oom_happened());
    }

    #[test]
    fn freezing_waits_for_what_the_kernel_says() {
        let v1 = recorded(&V1);
        let group = Cgroup::below(v1.path(), "boxyard/c");
        group.freeze().expect("the recorded file says FROZEN at once");
        assert_eq!(group.read("freezer", "freezer.state").as_deref(), Some("FROZEN"));
        group.thaw().expect("written");
        assert_eq!(group.read("freezer", "freezer.state").as_deref(), Some("THAWED"));
    }
}
