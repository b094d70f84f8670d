//! Leaving the service's own cgroup.

use std::path::Path;

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
