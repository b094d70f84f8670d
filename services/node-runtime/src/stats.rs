//! One reading of a container's counters, in the Engine API's shape.

use bus::Error;
use proto::{StatsReply, StatsRequest};
use runtime::cgroup::Cgroup;
use serde_json::{Map, Value, json};

use crate::commit::blocking;
use crate::node::Node;

/// Clock ticks of /proc/stat in a second.
const TICKS: u64 = 100;

impl Node {
    pub async fn stats(&self, request: StatsRequest) -> Result<StatsReply, Error> {
        let container = self.container(&request.id)?;
        let (group, status, name) = (Cgroup::new(&self.cgroup(&request.id)), container.status(), container.spec().name);
        blocking(move || {
            let mut all = json!({
                "read": jiff::Timestamp::now().to_string(),
                "num_procs": 0,
                "name": format!("/{name}"),
                "id": status.id,
                "pids_stats": {}, "cpu_stats": no_cpu(), "memory_stats": {}, "storage_stats": {},
                "blkio_stats": blkio(None),
            });
            if container.is_running() {
                all["cpu_stats"] = cpu(&group);
                all["memory_stats"] = memory(&group);
                all["blkio_stats"] = blkio(Some(&group));
                all["pids_stats"] = json!({
                    "current": number(&group, "pids", "pids.current"),
                    "limit": group.read("pids", "pids.max").and_then(|t| t.trim().parse().ok()).unwrap_or(u64::MAX),
                });
                all["networks"] = networks(status.pid);
            }
            Ok(StatsReply { json: all.to_string().into_bytes() })
        })
        .await
    }
}

fn number(group: &Cgroup, controller: &str, file: &str) -> u64 {
    group.read(controller, file).and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn pairs(text: &str) -> Map<String, Value> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse::<u64>().ok()?.into())))
        .collect()
}

fn field(map: &Map<String, Value>, key: &str) -> u64 {
    map.get(key).and_then(Value::as_u64).unwrap_or(0)
}

/// Of a container that doesn't run.
fn no_cpu() -> Value {
    json!({
        "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
    })
}

/// Bytes and operations by device; the lists that only the CFQ scheduler of old kernels filled are empty, all are null
/// where nothing runs.
fn blkio(group: Option<&Cgroup>) -> Value {
    const OF_CFQ: [&str; 6] = [
        "io_queue_recursive",
        "io_service_time_recursive",
        "io_wait_time_recursive",
        "io_merged_recursive",
        "io_time_recursive",
        "sectors_recursive",
    ];
    let mut all = Map::new();
    for (name, file, keys) in [
        ("io_service_bytes_recursive", "blkio.throttle.io_service_bytes_recursive", ["rbytes", "wbytes"]),
        ("io_serviced_recursive", "blkio.throttle.io_serviced_recursive", ["rios", "wios"]),
    ] {
        let entries = group.map(|group| match group.is_v2() {
            true => by_key(&group.read("io", "io.stat").unwrap_or_default(), keys),
            false => by_operation(&group.read("blkio", file).unwrap_or_default()),
        });
        all.insert(name.to_owned(), entries.map_or(Value::Null, Value::Array));
    }
    for name in OF_CFQ {
        all.insert(name.to_owned(), group.map_or(Value::Null, |_| json!([])));
    }
    Value::Object(all)
}

/// A line of cgroup v1: `8:0 Read 4096`; the sum over all devices has no device.
fn by_operation(text: &str) -> Vec<Value> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (device, operation, value) = (words.next()?, words.next()?, words.next()?);
        counted(device, &operation.to_ascii_lowercase(), value)
    };
    text.lines().filter_map(line).collect()
}

/// A line of cgroup v2: `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 …`.
fn by_key(text: &str, [read, write]: [&str; 2]) -> Vec<Value> {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let found = lines.flat_map(|(device, words)| {
        let pairs = words.split_whitespace().filter_map(|word| word.split_once('='));
        pairs.filter_map(move |(key, value)| match key {
            _ if key == read => counted(device, "read", value),
            _ if key == write => counted(device, "write", value),
            _ => None,
        })
    });
    found.collect()
}

fn counted(device: &str, operation: &str, value: &str) -> Option<Value> {
    let (major, minor) = device.split_once(':')?;
    let number = |text: &str| text.parse::<u64>().ok();
    Some(json!({"major": number(major)?, "minor": number(minor)?, "op": operation, "value": number(value)?}))
}

fn cpu(group: &Cgroup) -> Value {
    let stat = pairs(&group.read("cpu", "cpu.stat").unwrap_or_default());
    let (total, user, kernel, throttled) = if group.is_v2() {
        let us = |key| field(&stat, key) * 1000;
        (us("usage_usec"), us("user_usec"), us("system_usec"), us("throttled_usec"))
    } else {
        let of = |file| number(group, "cpuacct", file);
        (of("cpuacct.usage"), of("cpuacct.usage_user"), of("cpuacct.usage_sys"), field(&stat, "throttled_time"))
    };
    let machine = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    // user nice system idle iowait irq softirq steal; the guests' are part of user's.
    let ticks: u64 = machine.split_whitespace().skip(1).take(8).filter_map(|word| word.parse::<u64>().ok()).sum();
    let mut usage = json!({"total_usage": total, "usage_in_kernelmode": kernel, "usage_in_usermode": user});
    if let Some(each) = group.read("cpuacct", "cpuacct.usage_percpu").filter(|_| !group.is_v2()) {
        usage["percpu_usage"] = each.split_whitespace().filter_map(|word| word.parse::<u64>().ok()).collect();
    }
    json!({
        "cpu_usage": usage,
        "system_cpu_usage": ticks * (1_000_000_000 / TICKS),
        "online_cpus": std::thread::available_parallelism().map_or(1, usize::from),
        "throttling_data": {
            "periods": field(&stat, "nr_periods"),
            "throttled_periods": field(&stat, "nr_throttled"),
            "throttled_time": throttled,
        },
    })
}

fn memory(group: &Cgroup) -> Value {
    let (usage, max, limit) = match group.is_v2() {
        true => ("memory.current", None, "memory.max"),
        false => ("memory.usage_in_bytes", Some("memory.max_usage_in_bytes"), "memory.limit_in_bytes"),
    };
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let machine = meminfo.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024;
    let limit = group.read("memory", limit).and_then(|text| text.trim().parse().ok()).unwrap_or(machine);
    let mut all = json!({
        "usage": number(group, "memory", usage),
        "stats": pairs(&group.read("memory", "memory.stat").unwrap_or_default()),
        "limit": limit.min(machine),
    });
    if let Some(file) = max {
        all["max_usage"] = number(group, "memory", file).into();
    }
    all
}

/// Counters of the interfaces in the process' network namespace.
fn networks(pid: i32) -> Value {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let interfaces = text.lines().skip(2).filter_map(|line| {
        let (name, counters) = line.split_once(':')?;
        let n: Vec<u64> = counters.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        if name.trim() == "lo" || n.len() < 12 {
            return None;
        }
        let counted = json!({
            "rx_bytes": n[0], "rx_packets": n[1], "rx_errors": n[2], "rx_dropped": n[3],
            "tx_bytes": n[8], "tx_packets": n[9], "tx_errors": n[10], "tx_dropped": n[11],
        });
        Some((name.trim().to_owned(), counted))
    });
    Value::Object(interfaces.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(files: &[(&str, &str)]) -> (tempfile::TempDir, Cgroup) {
        let root = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().expect("has a parent")).expect("a folder");
            std::fs::write(path, text).expect("written");
        }
        let group = Cgroup::below(root.path(), "/b/c");
        (root, group)
    }

    #[test]
    fn counters_of_a_v1_tree_and_of_a_v2_tree() {
        let v1 = recorded(&[
            ("cpuacct/b/c/cpuacct.usage", "9000\n"),
            ("cpuacct/b/c/cpuacct.usage_user", "5000\n"),
            ("cpuacct/b/c/cpuacct.usage_sys", "4000\n"),
            ("cpu/b/c/cpu.stat", "nr_periods 3\nnr_throttled 2\nthrottled_time 7000\n"),
            ("memory/b/c/memory.usage_in_bytes", "4096\n"),
            ("memory/b/c/memory.max_usage_in_bytes", "8192\n"),
            ("memory/b/c/memory.limit_in_bytes", "1048576\n"),
            ("memory/b/c/memory.stat", "cache 1\ntotal_inactive_file 2\n"),
        ]);
        let v2 = recorded(&[
            ("cgroup.controllers", "cpu memory\n"),
            (
                "b/c/cpu.stat",
                "usage_usec 9\nuser_usec 5\nsystem_usec 4\nnr_periods 3\nnr_throttled 2\nthrottled_usec 7\n",
            ),
            ("b/c/memory.current", "4096\n"),
            ("b/c/memory.max", "1048576\n"),
            ("b/c/memory.stat", "inactive_file 2\n"),
        ]);
        for (_root, group) in [&v1, &v2] {
            let cpu = cpu(group);
            let used = json!({"total_usage": 9000, "usage_in_kernelmode": 4000, "usage_in_usermode": 5000});
            assert_eq!(cpu["cpu_usage"], used);
            assert_eq!(cpu["throttling_data"], json!({"periods": 3, "throttled_periods": 2, "throttled_time": 7000}));
            let memory = memory(group);
            assert_eq!((&memory["usage"], &memory["limit"]), (&json!(4096), &json!(1_048_576)));
        }
        assert_eq!(memory(&v1.1)["max_usage"], 8192);
        assert_eq!(memory(&v2.1)["stats"]["inactive_file"], 2);
    }

    #[test]
    fn bytes_of_devices() {
        let bytes = |files: &[(&str, &str)]| blkio(Some(&recorded(files).1))["io_service_bytes_recursive"].clone();
        let wanted = json!([
            {"major": 8, "minor": 0, "op": "read", "value": 4096}, {"major": 8, "minor": 0, "op": "write", "value": 512},
        ]);
        let v1 =
            [("blkio/b/c/blkio.throttle.io_service_bytes_recursive", "8:0 Read 4096\n8:0 Write 512\nTotal 4608\n")];
        let v2 = [("cgroup.controllers", "io\n"), ("b/c/io.stat", "8:0 rbytes=4096 wbytes=512 rios=1 wios=2\n")];
        assert_eq!(bytes(&v1), wanted);
        assert_eq!(bytes(&v2), wanted);
        assert_eq!(blkio(None)["io_time_recursive"], Value::Null);
    }

    #[test]
    fn no_limit_is_the_machines_memory() {
        let (_root, group) = recorded(&[("cgroup.controllers", "memory\n"), ("b/c/memory.max", "max\n")]);
        let limit = memory(&group)["limit"].as_u64().expect("a number");
        assert!(limit > 1 << 20 && limit < 1 << 50, "{limit}");
    }
}
