use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::stat::{major, minor};
use serde_json::{Map, Value, json};

use super::{Resources, ThrottleDevice};
use crate::Error;

const PERIOD_US: i64 = 100_000;

/// `linux.resources` without the devices.
pub(super) fn resources(limits: &Resources) -> Result<Map<String, Value>, Error> {
    let mut all = Map::new();
    for (key, part) in [("memory", memory(limits)), ("cpu", cpu(limits)), ("blockIO", block_io(limits)?)] {
        if !part.is_empty() {
            all.insert(key.into(), part.into());
        }
    }
    if limits.pids_limit != 0 {
        all.insert("pids".into(), json!({"limit": limits.pids_limit}));
    }
    Ok(all)
}

fn memory(limits: &Resources) -> Map<String, Value> {
    let mut map = Map::new();
    if limits.memory_bytes > 0 {
        map.insert("limit".into(), limits.memory_bytes.into());
    }
    if limits.memory_reservation_bytes > 0 {
        map.insert("reservation".into(), limits.memory_reservation_bytes.into());
    }
    // Docker's rule: as much swap as memory unless said otherwise.
    let swap = match limits.memory_swap_bytes {
        0 if limits.memory_bytes > 0 => limits.memory_bytes.saturating_mul(2),
        other => other,
    };
    if swap != 0 && swap_is_counted() {
        map.insert("swap".into(), swap.into());
    }
    if let Some(swappiness) = limits.memory_swappiness.filter(|s| (0..=100).contains(s)) {
        map.insert("swappiness".into(), swappiness.into());
    }
    if limits.oom_kill_disable {
        map.insert("disableOOMKiller".into(), true.into());
    }
    map
}

/// A v1 kernel without swap accounting has no such file, and a runtime fails on it.
fn swap_is_counted() -> bool {
    let v1 = Path::new("/sys/fs/cgroup/memory");
    !v1.exists() || v1.join("memory.memsw.limit_in_bytes").exists()
}

/// Kernels without the CFQ or BFQ scheduler have no weights on v1, and a runtime fails on them.
fn weights_are_there() -> bool {
    let v1 = Path::new("/sys/fs/cgroup/blkio");
    !v1.exists() || ["blkio.weight", "blkio.bfq.weight"].iter().any(|file| v1.join(file).exists())
}

fn cpu(limits: &Resources) -> Map<String, Value> {
    let mut map = Map::new();
    let (mut period, mut quota) = (limits.cpu_period_us, limits.cpu_quota_us);
    if limits.nano_cpus > 0 {
        period = PERIOD_US;
        quota = limits.nano_cpus.saturating_mul(PERIOD_US) / 1_000_000_000;
    }
    for (key, value) in [("shares", limits.cpu_shares), ("period", period), ("quota", quota)] {
        if value != 0 {
            map.insert(key.into(), value.into());
        }
    }
    for (key, value) in [("cpus", &limits.cpuset_cpus), ("mems", &limits.cpuset_mems)] {
        if !value.is_empty() {
            map.insert(key.into(), value.as_str().into());
        }
    }
    map
}

fn block_io(limits: &Resources) -> Result<Map<String, Value>, Error> {
    let mut map = Map::new();
    if limits.blkio_weight != 0 && weights_are_there() {
        map.insert("weight".into(), limits.blkio_weight.into());
    }
    for (key, list) in [
        ("throttleReadBpsDevice", &limits.read_bps),
        ("throttleWriteBpsDevice", &limits.write_bps),
        ("throttleReadIOPSDevice", &limits.read_iops),
        ("throttleWriteIOPSDevice", &limits.write_iops),
    ] {
        if !list.is_empty() {
            map.insert(key.into(), list.iter().map(throttle).collect::<Result<Vec<_>, _>>()?.into());
        }
    }
    Ok(map)
}

fn throttle(device: &ThrottleDevice) -> Result<Value, Error> {
    let meta = std::fs::metadata(&device.path)
        .map_err(|e| Error::Invalid(format!("cannot find the device {}: {e}", device.path.display())))?;
    Ok(json!({"major": major(meta.rdev()), "minor": minor(meta.rdev()), "rate": device.rate}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_wanted_is_nothing_set() {
        assert!(resources(&Resources::default()).expect("no device").is_empty());
    }

    #[test]
    fn cpus_become_a_quota() {
        let limits = Resources { nano_cpus: 1_500_000_000, pids_limit: -1, ..Resources::default() };
        let map = resources(&limits).expect("no device");
        assert_eq!(map["cpu"], json!({"period": 100_000, "quota": 150_000}));
        assert_eq!(map["pids"], json!({"limit": -1}));
    }
}
