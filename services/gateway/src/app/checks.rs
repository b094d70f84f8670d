//! What a request may not hold: refused before anything is written, in Docker's words.

use engine_api::{HealthConfig, HostConfig};
use serde_json::Value;

use super::{Failure, Outcome};

const MIN_MEMORY_BYTES: i64 = 6 << 20;

/// Variables and address of a CreateRequest.
pub fn request(env: &Option<Vec<String>>, mac_address: Option<&str>) -> Outcome<()> {
    if let Some(wrong) = env.iter().flatten().find(|entry| entry.is_empty() || entry.starts_with('=')) {
        return Err(Failure::invalid(format!("invalid environment variable: {wrong}")));
    }
    let is_mac = |text: &str| {
        let parts: Vec<&str> = text.split([':', '-']).collect();
        parts.len() == 6 && parts.iter().all(|part| part.len() == 2 && u8::from_str_radix(part, 16).is_ok())
    };
    match mac_address.filter(|address| !address.is_empty() && !is_mac(address)) {
        Some(wrong) => Err(Failure::invalid(format!("invalid config for network bridge: invalid MAC address {wrong}"))),
        None => Ok(()),
    }
}

/// Refuses what Docker refuses, in its words.
pub fn host(host: &HostConfig, raw: &Value) -> Outcome<()> {
    super::capabilities::check("CapAdd", host.cap_add.as_deref().unwrap_or_default())?;
    super::capabilities::check("CapDrop", host.cap_drop.as_deref().unwrap_or_default())?;
    let memory = host.memory.unwrap_or(0);
    if memory != 0 && memory < MIN_MEMORY_BYTES {
        return Err(Failure::invalid("Minimum memory limit allowed is 6MB"));
    }
    let swap = host.memory_swap.unwrap_or(0);
    if swap > 0 && memory == 0 {
        return Err(Failure::invalid("You should always set the Memory limit when using Memoryswap limit, see usage"));
    }
    if swap > 0 && swap < memory {
        return Err(Failure::invalid("Minimum memoryswap limit should be larger than memory limit, see usage"));
    }
    let restart = host.restart_policy.as_ref().and_then(|policy| policy.name.as_deref()).unwrap_or("");
    if !matches!(restart, "" | "no" | "always" | "unless-stopped" | "on-failure") {
        return Err(Failure::invalid(format!(
            "invalid restart policy: unknown policy '{restart}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )));
    }
    let retries = host.restart_policy.as_ref().and_then(|policy| policy.maximum_retry_count).unwrap_or(0);
    if retries < 0 {
        return Err(Failure::invalid("invalid restart policy: maximum retry count cannot be negative"));
    }
    if retries > 0 && restart != "on-failure" {
        return Err(Failure::invalid("invalid restart policy: maximum retry count can only be used with 'on-failure'"));
    }
    if host.auto_remove.unwrap_or(false) && !matches!(restart, "" | "no") {
        return Err(Failure::invalid("can't create 'AutoRemove' container with restart policy"));
    }
    if host.port_bindings.as_ref().is_some_and(|ports| !ports.is_empty()) {
        return Err(Failure::not_built("published ports are not built yet"));
    }
    if host.nano_cpus.unwrap_or(0) > 0 && host.cpu_quota.unwrap_or(0) > 0 {
        return Err(Failure::invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set"));
    }
    modes(host)?;
    numbers(host)?;
    logs(host)?;
    security(host)?;
    not_built(raw)
}

/// Words that name a namespace or a driver.
fn modes(host: &HostConfig) -> Outcome<()> {
    let of = |mode: &Option<String>| mode.clone().unwrap_or_default();
    let other = |mode: &str| mode.strip_prefix("container:").is_some_and(|id| !id.is_empty());
    let (ipc, pid, uts, cgroup) = (of(&host.ipc_mode), of(&host.pid_mode), of(&host.uts_mode), of(&host.cgroupns_mode));
    if !matches!(ipc.as_str(), "" | "none" | "private" | "shareable" | "host") && !other(&ipc) {
        return Err(Failure::invalid(format!("invalid IPC mode: {ipc}")));
    }
    if !matches!(pid.as_str(), "" | "host") && !other(&pid) {
        return Err(Failure::invalid(format!("invalid PID mode: {pid}")));
    }
    if !matches!(uts.as_str(), "" | "host") {
        return Err(Failure::invalid(format!("invalid UTS mode: {uts}")));
    }
    if !matches!(cgroup.as_str(), "" | "private" | "host") {
        return Err(Failure::invalid(format!("invalid cgroup namespace mode: {cgroup}")));
    }
    let driver = host.log_config.as_ref().and_then(|log| log.driver.clone()).unwrap_or_default();
    if !matches!(driver.as_str(), "" | "json-file" | "local" | "none") {
        return Err(Failure::invalid(format!(
            "error looking up logging plugin {driver}: plugin \"{driver}\" not found"
        )));
    }
    for entry in host.extra_hosts.iter().flatten() {
        let (name, address) = entry.split_once([':', '=']).unwrap_or((entry, ""));
        let address = address.trim_matches(['[', ']']);
        if name.is_empty() || address.is_empty() {
            return Err(Failure::invalid(format!("bad format for add-host: \"{entry}\"")));
        }
        if address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err() {
            return Err(Failure::invalid(format!("invalid IP address in add-host: \"{address}\"")));
        }
    }
    if let Some(wrong) = host.dns.iter().flatten().find(|server| server.parse::<std::net::IpAddr>().is_err()) {
        return Err(Failure::invalid(format!("invalid DNS server: {wrong}")));
    }
    Ok(())
}

/// Refuses options of the log that nobody would act on: those of Docker's drivers as not built, others as unknown.
fn logs(host: &HostConfig) -> Outcome<()> {
    let Some(log) = &host.log_config else { return Ok(()) };
    let driver = log.driver.as_deref().filter(|driver| !driver.is_empty()).unwrap_or("json-file");
    if driver == "none" {
        return Ok(());
    }
    for (key, value) in log.config.iter().flatten() {
        match key.as_str() {
            "max-size" | "max-file" => {}
            "compress" if value == "false" => {}
            "compress" => return Err(Failure::not_built("compressed logs are not built yet: log opt 'compress'")),
            "labels" | "labels-regex" | "env" | "env-regex" | "tag" if driver == "json-file" => {
                return Err(Failure::not_built(format!("attributes of log lines are not built yet: log opt '{key}'")));
            }
            _ => return Err(Failure::invalid(format!("unknown log opt '{key}' for {driver} log driver"))),
        }
    }
    Ok(())
}

/// `name`, `name=value` and the old `name:value`.
fn security(host: &HostConfig) -> Outcome<()> {
    for option in host.security_opt.iter().flatten() {
        if matches!(option.as_str(), "no-new-privileges" | "disable" | "writable-cgroups") {
            continue;
        }
        let Some((name, value)) = option.split_once('=').or_else(|| option.split_once(':')) else {
            return Err(Failure::invalid(format!("invalid --security-opt 1: {option:?}")));
        };
        let is_flag = matches!(name, "no-new-privileges" | "writable-cgroups");
        if is_flag && !matches!(value, "true" | "false" | "1" | "0" | "t" | "f") {
            return Err(Failure::invalid(format!("invalid --security-opt value: {option:?}")));
        }
        if !is_flag && !matches!(name, "label" | "apparmor" | "seccomp" | "systempaths") {
            return Err(Failure::invalid(format!("invalid --security-opt 2: {option:?}")));
        }
    }
    Ok(())
}

/// A health check's times: nothing, or a millisecond and more.
pub fn health(check: &HealthConfig) -> Outcome<()> {
    const MILLISECOND: i64 = 1_000_000;
    let times = [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ];
    for (name, time) in times {
        if time.is_some_and(|time| time != 0 && time < MILLISECOND) {
            return Err(Failure::invalid(format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    if check.retries.is_some_and(|retries| retries < 0) {
        return Err(Failure::invalid("Retries in Healthcheck cannot be negative"));
    }
    Ok(())
}

fn numbers(host: &HostConfig) -> Outcome<()> {
    let shares = host.cpu_shares.unwrap_or(0);
    if shares < 0 {
        return Err(Failure::invalid(format!("invalid CPU shares ({shares}): value must be a positive integer")));
    }
    if host.cpu_period.is_some_and(|period| period != 0 && !(1000..=1_000_000).contains(&period)) {
        return Err(Failure::invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ));
    }
    if host.cpu_quota.is_some_and(|quota| quota > 0 && quota < 1000) {
        return Err(Failure::invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)"));
    }
    if let Some(swappiness) = host.memory_swappiness.filter(|value| !(-1..=100).contains(value)) {
        return Err(Failure::invalid(format!("Invalid value: {swappiness}, valid memory swappiness range is 0-100")));
    }
    let (memory, reserved) = (host.memory.unwrap_or(0), host.memory_reservation.unwrap_or(0));
    if reserved > 0 && reserved < MIN_MEMORY_BYTES {
        return Err(Failure::invalid("Minimum memory reservation allowed is 6MB"));
    }
    if memory > 0 && memory < reserved {
        return Err(Failure::invalid("Minimum memory limit can not be less than memory reservation limit, see usage"));
    }
    if host.shm_size.is_some_and(|bytes| bytes < 0) {
        return Err(Failure::invalid("SHM size can not be less than 0"));
    }
    let score = host.oom_score_adj.unwrap_or(0);
    if !(-1000..=1000).contains(&score) {
        return Err(Failure::invalid(format!("Invalid value {score}, range for oom score adj is [-1000, 1000]")));
    }
    let cpus = i64::try_from(std::thread::available_parallelism().map_or(1, usize::from)).unwrap_or(1);
    let nano = host.nano_cpus.unwrap_or(0);
    if nano < 0 || nano > cpus.saturating_mul(1_000_000_000) {
        return Err(Failure::invalid(format!(
            "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )));
    }
    for (name, list) in [("cpus", &host.cpuset_cpus), ("mems", &host.cpuset_mems)] {
        let list = list.as_deref().unwrap_or_default();
        if !list.is_empty() && !is_cpu_list(list) {
            return Err(Failure::invalid(format!("Invalid value {list} for cpuset {name}: invalid format: {list}")));
        }
    }
    Ok(())
}

/// `0-3,7`.
fn is_cpu_list(text: &str) -> bool {
    text.split(',').all(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        matches!((from.parse::<u32>(), to.parse::<u32>()), (Ok(from), Ok(to)) if from <= to)
    })
}

/// Fields that would be passed over in silence.
fn not_built(raw: &Value) -> Outcome<()> {
    let host = &raw["HostConfig"];
    let lists =
        [("Links", "links"), ("DeviceRequests", "device requests"), ("BlkioWeightDevice", "weights of one device")];
    for (field, what) in lists {
        if host[field].as_array().is_some_and(|list| !list.is_empty()) {
            return Err(Failure::not_built(format!("{what} are not built yet")));
        }
    }
    let isolation = host["Isolation"].as_str().unwrap_or_default();
    if !matches!(isolation, "" | "default") {
        return Err(Failure::invalid(format!("invalid isolation ({isolation}): linux only supports 'default'")));
    }
    if host["StorageOpt"].as_object().is_some_and(|options| !options.is_empty()) {
        return Err(Failure::invalid(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
        ));
    }
    if !matches!(host["VolumeDriver"].as_str().unwrap_or_default(), "" | "local") {
        let driver = host["VolumeDriver"].as_str().unwrap_or_default();
        let words = format!("error looking up volume plugin {driver}: plugin \"{driver}\" not found");
        return Err(Failure::not_found(words));
    }
    endpoints(raw)?;
    let runtime = host["Runtime"].as_str().unwrap_or_default();
    if !matches!(runtime, "" | "crun" | "runc" | "io.containerd.runc.v2") {
        return Err(Failure::invalid(format!("unknown or invalid runtime name: {runtime}")));
    }
    Ok(())
}

/// What only a user's own network could give: addresses and names.
fn endpoints(raw: &Value) -> Outcome<()> {
    let given = raw.pointer("/NetworkingConfig/EndpointsConfig").and_then(Value::as_object);
    for (network, endpoint) in given.into_iter().flatten() {
        let network = if network == "default" { "bridge" } else { network };
        let mut wrong = Vec::new();
        let address = ["IPv4Address", "IPv6Address"].into_iter().filter_map(|key| endpoint["IPAMConfig"][key].as_str());
        if address.into_iter().any(|address| !address.is_empty()) {
            wrong.push("user specified IP address is supported on user defined networks only");
        }
        if endpoint["Aliases"].as_array().is_some_and(|list| !list.is_empty()) {
            wrong.push("network-scoped alias is supported only for containers in user defined networks");
        }
        if !wrong.is_empty() {
            return Err(Failure::invalid(format!(
                "invalid config for network {network}: invalid endpoint settings:\n{}",
                wrong.join("\n")
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn wrong_hosts_are_refused() {
        for (raw, words) in [
            (json!({}), None),
            (json!({"IpcMode": "x"}), Some("invalid IPC mode: x")),
            (json!({"PidMode": "container:"}), Some("invalid PID mode")),
            (json!({"CgroupnsMode": "x"}), Some("cgroup namespace mode")),
            (json!({"LogConfig": {"Type": "x"}}), Some("plugin \"x\" not found")),
            (json!({"LogConfig": {"Config": {"max-size": "1m", "max-file": "2", "compress": "false"}}}), None),
            (
                json!({"LogConfig": {"Type": "local", "Config": {"compress": "true"}}}),
                Some("compressed logs are not built"),
            ),
            (json!({"LogConfig": {"Config": {"labels": "a"}}}), Some("not built yet: log opt 'labels'")),
            (json!({"LogConfig": {"Type": "json-file", "Config": {"tag": "a"}}}), Some("not built yet: log opt 'tag'")),
            (json!({"LogConfig": {"Type": "local", "Config": {"tag": "a"}}}), Some("unknown log opt 'tag' for local")),
            (
                json!({"LogConfig": {"Type": "json-file", "Config": {"x": "a"}}}),
                Some("unknown log opt 'x' for json-file"),
            ),
            (json!({"LogConfig": {"Type": "none", "Config": {"tag": "a"}}}), None),
            (json!({"ExtraHosts": ["a:1.2.3.4", "b:host-gateway", "c:[::1]"]}), None),
            (json!({"ExtraHosts": ["a"]}), Some("bad format for add-host")),
            (json!({"ExtraHosts": ["a:b"]}), Some("invalid IP address in add-host")),
            (json!({"ShmSize": -1}), Some("SHM size")),
            (json!({"OomScoreAdj": 1001}), Some("oom score adj")),
            (json!({"NanoCpus": -5}), Some("range of CPUs")),
            (json!({"CpusetCpus": "0-x"}), Some("for cpuset cpus")),
            (json!({"CpusetCpus": "0,1-1"}), None),
            (json!({"Runtime": "x"}), Some("runtime name: x")),
            (json!({"Links": ["a:b"]}), Some("links are not built")),
            (json!({"CapAdd": ["x"]}), Some("unknown capability: \"CAP_X\"")),
        ] {
            let raw = json!({"HostConfig": raw});
            let host_config: HostConfig = serde_json::from_value(raw["HostConfig"].clone()).expect("reads");
            let said = host(&host_config, &raw).err().map(|failure| failure.message);
            match (&said, words) {
                (Some(said), Some(words)) => assert!(said.contains(words), "{raw}: {said}"),
                (None, None) => {}
                _ => panic!("{raw}: {said:?}"),
            }
        }
    }

    #[test]
    fn variables_have_names_and_addresses_six_bytes() {
        for (env, mac, good) in [
            (vec!["A=1", "B"], "02:42:ac:11:00:02", true),
            (vec![""], "", false),
            (vec!["=x"], "", false),
            (vec![], "02:42", false),
            (vec![], "", true),
        ] {
            let env = Some(env.into_iter().map(str::to_owned).collect());
            assert_eq!(request(&env, Some(mac)).is_ok(), good, "{env:?} {mac}");
        }
    }
}
