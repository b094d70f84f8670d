//! What the shim has to do with cgroups: OOM kills of the container's, and leaving the service's own.

use std::path::{Path, PathBuf};

/// The kernel killed a process of this cgroup for want of memory.
pub fn happened(cgroup_path: &str) -> bool {
    let path = cgroup_path.trim_start_matches('/');
    let files: [PathBuf; 2] = [
        Path::new("/sys/fs/cgroup/memory").join(path).join("memory.oom_control"),
        Path::new("/sys/fs/cgroup").join(path).join("memory.events"),
    ];
    files.iter().filter_map(|file| std::fs::read_to_string(file).ok()).any(|text| {
        text.lines().any(|line| {
            line.strip_prefix("oom_kill ").and_then(|count| count.trim().parse::<u64>().ok()).is_some_and(|n| n > 0)
        })
    })
}

/// Moves this process out of the cgroup that a service manager would kill as a whole. Without rights to do so, or
/// where the service is in the root already, it stays.
pub fn leave_service_cgroup() {
    let Ok(own) = std::fs::read_to_string("/proc/self/cgroup") else { return };
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let root = match controllers {
            "" => ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"],
            "name=systemd" => ["/sys/fs/cgroup/systemd"; 2],
            _ => continue,
        };
        if path == "/" || path.starts_with("/boxyard-shims") {
            continue;
        }
        let Some(root) = root.into_iter().find(|root| Path::new(root).join("cgroup.procs").exists()) else { continue };
        let target = Path::new(root).join("boxyard-shims");
        let _ = std::fs::create_dir(&target);
        let _ = std::fs::write(target.join("cgroup.procs"), "0");
    }
}
