//! Merges an image's config and a client's request into what a node needs.

use engine_api::{CreateRequest, DeviceRate, HealthConfig, HostConfig, config_defaults, fill, host_config_defaults};
use serde_json::{Value, json};

use super::containers::FromJson as _;
use super::images::{Image, config_of, layer_message};
use super::{Failure, Outcome, checks};

const DEFAULT_SHM_BYTES: u64 = 64 << 20;

/// The spec, and Config and HostConfig as inspect shows them.
pub struct Merged {
    pub spec: proto::ContainerSpec,
    pub request: Value,
}

pub fn merge(id: &str, name: &str, image: &Image, request: CreateRequest, raw: &Value) -> Outcome<Merged> {
    let host = request.host_config.unwrap_or_default();
    checks::request(&request.env, request.mac_address.as_deref().or(endpoint_mac(raw).as_deref()))?;
    checks::host(&host, raw)?;
    let config = config_of(image);
    let of_image = |key: &str| config.pointer(&format!("/config/{key}")).cloned().unwrap_or_default();
    let words = |key: &str| -> Vec<String> {
        let list = of_image(key);
        list.as_array()
            .map(|list| list.iter().filter_map(|w| w.as_str().map(str::to_owned)).collect())
            .unwrap_or_default()
    };
    let text = |given: Option<String>, key: &str| {
        given.filter(|text| !text.is_empty()).unwrap_or_else(|| of_image(key).as_str().unwrap_or_default().to_owned())
    };
    // An own entrypoint makes the image's command void; an own command keeps the image's entrypoint.
    let (entrypoint, cmd) = match (request.entrypoint, request.cmd.filter(|cmd| !cmd.is_empty())) {
        (Some(entrypoint), cmd) if !entrypoint.is_empty() => {
            let entrypoint = if entrypoint == [""] { Vec::new() } else { entrypoint };
            (entrypoint, cmd.unwrap_or_default())
        }
        (_, Some(cmd)) => (words("Entrypoint"), cmd),
        (_, None) => (words("Entrypoint"), words("Cmd")),
    };
    let args: Vec<String> = entrypoint.iter().chain(&cmd).cloned().collect();
    if args.is_empty() || args[0].is_empty() {
        return Err(Failure::invalid("no command specified"));
    }
    let env = merge_env(words("Env"), request.env.unwrap_or_default());
    let mut labels: std::collections::BTreeMap<String, String> = of_image("Labels")
        .as_object()
        .map(|labels| labels.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect())
        .unwrap_or_default();
    labels.extend(request.labels.unwrap_or_default());
    let mut volumes: Vec<String> =
        of_image("Volumes").as_object().map(|v| v.keys().cloned().collect()).unwrap_or_default();
    volumes.extend(request.volumes.unwrap_or_default().into_keys());
    let network_mode = match host.network_mode.as_deref().unwrap_or("default") {
        "default" | "" => "bridge".to_owned(),
        mode @ ("bridge" | "host" | "none") => mode.to_owned(),
        mode if mode.starts_with("container:") => mode.to_owned(),
        other => return Err(Failure::not_found(format!("network {other} not found"))),
    };
    let hostname = match request.hostname.filter(|hostname| !hostname.is_empty()) {
        Some(hostname) => hostname,
        None if network_mode == "host" => String::new(),
        None => id[..12].to_owned(),
    };
    let image_name = request.image.unwrap_or_default();
    if let Some(folder) = request.working_dir.as_deref().filter(|folder| !folder.is_empty() && !folder.starts_with('/'))
    {
        return Err(Failure::invalid(format!(
            "the working directory '{folder}' is invalid, it needs to be an absolute path"
        )));
    }
    let working_dir = text(request.working_dir, "WorkingDir");
    let user = text(request.user, "User");
    let stop_signal = text(request.stop_signal, "StopSignal");
    if !stop_signal.is_empty() && super::signals::number(&stop_signal).is_none() {
        return Err(Failure::invalid(format!("invalid signal: {stop_signal}")));
    }
    let log = host.log_config.clone().unwrap_or_default();
    let log_driver = log.driver.filter(|driver| !driver.is_empty()).unwrap_or_else(|| "json-file".to_owned());
    let log_options = log.config.unwrap_or_default();
    let mounts = super::mounts::mounts(&host, &volumes)?;
    let healthcheck = merge_healthcheck(of_image("Healthcheck"), raw.get("Healthcheck").unwrap_or(&Value::Null));
    let shell = Some(words("Shell")).filter(|shell| !shell.is_empty());
    let health = health_of(&healthcheck, shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]))?;
    let shown = json!({
        "Hostname": hostname, "User": user, "Env": env, "Cmd": if cmd.is_empty() { Value::Null } else { json!(cmd) },
        "Entrypoint": if entrypoint.is_empty() { Value::Null } else { json!(entrypoint) },
        "WorkingDir": working_dir, "Labels": labels,
        "Volumes": if volumes.is_empty() { Value::Null } else { volumes.iter().map(|v| (v.clone(), json!({}))).collect::<serde_json::Map<_, _>>().into() },
        "ExposedPorts": exposed(&of_image("ExposedPorts"), raw), "StopSignal": if stop_signal.is_empty() { Value::Null } else { json!(stop_signal) },
        "Healthcheck": healthcheck
    });
    let mut given = raw.clone();
    let host_raw = raw.get("HostConfig").filter(|host| host.is_object()).cloned().unwrap_or_else(|| json!({}));
    if let Some(given) = given.as_object_mut() {
        given.remove("HostConfig");
        given.remove("NetworkingConfig");
    }
    let mut config_json = fill(fill(config_defaults(), &given), &shown);
    if config_json["Volumes"] == json!({}) {
        config_json["Volumes"] = Value::Null;
    }
    let mut host_json = fill(host_config_defaults(), &host_raw);
    host_json["NetworkMode"] = network_mode.clone().into();
    host_json["LogConfig"] = json!({"Type": log_driver, "Config": log_options});
    // The docker command sends these where nothing is meant.
    for (key, unset) in [("MemorySwappiness", -1), ("PidsLimit", 0)] {
        if host_json[key].as_i64() == Some(unset) {
            host_json[key] = Value::Null;
        }
    }
    for (key, default) in [("IpcMode", "private"), ("CgroupnsMode", "host")] {
        if host_json[key].as_str().is_none_or(str::is_empty) {
            host_json[key] = default.into();
        }
    }
    if host_json["ShmSize"].as_i64().unwrap_or(0) == 0 {
        host_json["ShmSize"] = DEFAULT_SHM_BYTES.into();
    }
    let size = |key: &str| log_options.get(key).map_or("", String::as_str);
    let spec = proto::ContainerSpec {
        id: id.to_owned(),
        name: name.to_owned(),
        image_id: image.id.clone(),
        image_name,
        layers: image.layers.iter().cloned().map(layer_message).collect(),
        args,
        env,
        working_dir,
        user,
        hostname,
        domainname: request.domainname.unwrap_or_default(),
        tty: request.tty.unwrap_or_default(),
        open_stdin: request.open_stdin.unwrap_or_default(),
        stdin_once: request.stdin_once.unwrap_or_default(),
        mounts,
        privileged: host.privileged.unwrap_or_default(),
        cap_add: host.cap_add.clone().unwrap_or_default(),
        cap_drop: host.cap_drop.clone().unwrap_or_default(),
        readonly_rootfs: host.readonly_rootfs.unwrap_or_default(),
        init: host.init.unwrap_or_default(),
        network_mode,
        resources: Some(resources(&host)),
        sysctls: host.sysctls.clone().unwrap_or_default().into_iter().collect(),
        security_opt: host.security_opt.clone().unwrap_or_default(),
        log: Some(proto::LogConfig {
            driver: log_driver,
            max_bytes: bytes_of(size("max-size"))?,
            max_files: size("max-file").parse().unwrap_or(0),
        }),
        restart: Some(restart_of(&host)),
        stop_signal,
        stop_timeout_seconds: request.stop_timeout.and_then(|s| u32::try_from(s).ok()).unwrap_or(10),
        extra_hosts: host.extra_hosts.clone().unwrap_or_default(),
        dns: host.dns.clone().unwrap_or_default(),
        dns_search: host.dns_search.clone().unwrap_or_default(),
        dns_options: host.dns_options.clone().unwrap_or_default(),
        labels: labels.into_iter().collect(),
        ipc_mode: host.ipc_mode.clone().unwrap_or_default(),
        pid_mode: host.pid_mode.clone().unwrap_or_default(),
        uts_mode: host.uts_mode.clone().unwrap_or_default(),
        cgroupns_mode: host.cgroupns_mode.clone().unwrap_or_default(),
        shm_bytes: host.shm_size.and_then(|b| u64::try_from(b).ok()).filter(|&b| b > 0).unwrap_or(DEFAULT_SHM_BYTES),
        devices: host
            .devices
            .clone()
            .unwrap_or_default()
            .into_iter()
            .map(|device| proto::Device {
                host_path: device.path_on_host,
                container_path: device.path_in_container,
                permissions: device.cgroup_permissions,
            })
            .collect(),
        group_add: host.group_add.clone().unwrap_or_default(),
        oom_score_adj: host.oom_score_adj.filter(|&score| score != 0),
        masked_paths_set: host.masked_paths.is_some(),
        masked_paths: host.masked_paths.clone().unwrap_or_default(),
        readonly_paths_set: host.readonly_paths.is_some(),
        readonly_paths: host.readonly_paths.clone().unwrap_or_default(),
        mac_address: request
            .mac_address
            .filter(|mac| !mac.is_empty())
            .or_else(|| endpoint_mac(raw))
            .unwrap_or_default(),
        storage_owner: "node".to_owned(),
        network_disabled: request.network_disabled.unwrap_or_default(),
        health,
    };
    Ok(Merged { spec, request: json!({"Config": config_json, "HostConfig": host_json}) })
}

/// Clients of API 1.44 and newer give the address to the network, not to the container.
fn endpoint_mac(raw: &Value) -> Option<String> {
    let endpoints = raw.pointer("/NetworkingConfig/EndpointsConfig")?.as_object()?;
    let macs = endpoints.values().filter_map(|endpoint| endpoint["MacAddress"].as_str());
    macs.filter(|mac| !mac.is_empty()).map(str::to_owned).next()
}

/// The image's check with what the request says otherwise; zero and empty say nothing.
fn merge_healthcheck(image: Value, given: &Value) -> Value {
    let mut merged = image.as_object().cloned().unwrap_or_default();
    for (key, value) in given.as_object().into_iter().flatten() {
        let says_nothing =
            value.is_null() || value.as_i64() == Some(0) || value.as_array().is_some_and(|words| words.is_empty());
        if !says_nothing {
            merged.insert(key.clone(), value.clone());
        }
    }
    if merged.is_empty() { Value::Null } else { Value::Object(merged) }
}

/// What a node looks after, with Docker's values where nothing is said; None where nobody shall look.
fn health_of(healthcheck: &Value, shell: Vec<String>) -> Outcome<Option<proto::HealthCheck>> {
    const SECOND: u64 = 1_000_000_000;
    if healthcheck.is_null() {
        return Ok(None);
    }
    let check = HealthConfig::deserialize_from(healthcheck)?;
    checks::health(&check)?;
    let test = check.test.unwrap_or_default();
    let args = match test.split_first() {
        Some((kind, command)) if kind == "CMD" && !command.is_empty() => command.to_vec(),
        Some((kind, [line, ..])) if kind == "CMD-SHELL" => shell.into_iter().chain([line.clone()]).collect(),
        _ => return Ok(None),
    };
    let time = |given: Option<i64>, default: u64| {
        given.and_then(|time| u64::try_from(time).ok()).filter(|&time| time > 0).unwrap_or(default)
    };
    Ok(Some(proto::HealthCheck {
        args,
        interval_ns: time(check.interval, 30 * SECOND),
        timeout_ns: time(check.timeout, 30 * SECOND),
        start_period_ns: time(check.start_period, 0),
        start_interval_ns: time(check.start_interval, 5 * SECOND),
        retries: check.retries.and_then(|retries| u32::try_from(retries).ok()).filter(|&n| n > 0).unwrap_or(3),
    }))
}

pub fn restart_of(host: &HostConfig) -> proto::RestartPolicy {
    let restart = host.restart_policy.clone().unwrap_or_default();
    proto::RestartPolicy {
        name: restart.name.filter(|name| !name.is_empty()).unwrap_or_else(|| "no".to_owned()),
        maximum_retry_count: u32::try_from(restart.maximum_retry_count.unwrap_or(0)).unwrap_or(0),
    }
}

pub fn resources(host: &HostConfig) -> proto::Resources {
    let ulimits = host.ulimits.clone().unwrap_or_default().into_iter();
    proto::Resources {
        memory_bytes: host.memory.unwrap_or(0),
        memory_swap_bytes: host.memory_swap.unwrap_or(0),
        memory_reservation_bytes: host.memory_reservation.unwrap_or(0),
        memory_swappiness: host.memory_swappiness.filter(|&value| value >= 0),
        nano_cpus: host.nano_cpus.unwrap_or(0),
        cpu_shares: host.cpu_shares.unwrap_or(0),
        cpu_period_us: host.cpu_period.unwrap_or(0),
        cpu_quota_us: host.cpu_quota.unwrap_or(0),
        cpuset_cpus: host.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: host.cpuset_mems.clone().unwrap_or_default(),
        pids_limit: host.pids_limit.unwrap_or(0),
        blkio_weight: host.blkio_weight.unwrap_or(0),
        oom_kill_disable: host.oom_kill_disable.unwrap_or(false),
        ulimits: ulimits.map(|u| proto::Ulimit { name: u.name, soft: u.soft, hard: u.hard }).collect(),
        cgroup_parent: host.cgroup_parent.clone().unwrap_or_default(),
        device_cgroup_rules: host.device_cgroup_rules.clone().unwrap_or_default(),
        read_bps: rates(&host.blkio_device_read_bps),
        write_bps: rates(&host.blkio_device_write_bps),
        read_iops: rates(&host.blkio_device_read_iops),
        write_iops: rates(&host.blkio_device_write_iops),
    }
}

fn rates(devices: &Option<Vec<DeviceRate>>) -> Vec<proto::DeviceRate> {
    let devices = devices.iter().flatten();
    devices.map(|DeviceRate { path, rate }| proto::DeviceRate { path: path.clone(), rate: *rate }).collect()
}

/// The image's variables in their order with the request's laid over; a name without a value removes it.
fn merge_env(image: Vec<String>, given: Vec<String>) -> Vec<String> {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let (set, unset): (Vec<String>, Vec<String>) = given.into_iter().partition(|entry| entry.contains('='));
    let kept = image.into_iter().filter(|old| set.iter().chain(&unset).all(|new| name(new) != name(old)));
    let mut env: Vec<String> = set.iter().cloned().chain(kept).collect();
    if !env.iter().any(|entry| name(entry) == "PATH") {
        env.push("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    }
    env
}

fn exposed(image: &Value, raw: &Value) -> Value {
    let mut ports = image.as_object().cloned().unwrap_or_default();
    ports.extend(raw.get("ExposedPorts").and_then(Value::as_object).cloned().unwrap_or_default());
    if ports.is_empty() { Value::Null } else { Value::Object(ports) }
}

/// `10m`, `1g`, `512k`, plain bytes; empty is 0.
fn bytes_of(text: &str) -> Outcome<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    if text.is_empty() {
        return Ok(0);
    }
    let factor = match &lower[digits.len()..] {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        _ => return Err(Failure::invalid(format!("invalid size: '{text}'"))),
    };
    let number: u64 = digits.parse().map_err(|_| Failure::invalid(format!("invalid size: '{text}'")))?;
    Ok(number.saturating_mul(factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_the_request_win() {
        let list = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        assert_eq!(merge_env(list(&["PATH=/a", "X=1"]), list(&["X=2", "Y=3"])), list(&["X=2", "Y=3", "PATH=/a"]));
        assert_eq!(merge_env(list(&["PATH=/a", "X=1"]), list(&["X"])), list(&["PATH=/a"]));
    }

    #[test]
    fn health_checks_of_image_and_request() {
        let of_image = json!({"Test": ["CMD-SHELL", "a b"], "Interval": 5_000_000_000_i64});
        let args = |given: Value| {
            let merged = merge_healthcheck(of_image.clone(), &given);
            let check = health_of(&merged, vec!["/bin/bash".to_owned(), "-c".to_owned()]).expect("reads")?;
            Some((check.args.join(" "), check.interval_ns / 1_000_000_000, check.retries))
        };
        for (given, wanted) in [
            (Value::Null, Some(("/bin/bash -c a b", 5, 3))),
            (json!({"Test": ["CMD", "x", "y"], "Retries": 9}), Some(("x y", 5, 9))),
            (json!({"Test": [], "Interval": 0}), Some(("/bin/bash -c a b", 5, 3))),
            (json!({"Test": ["NONE"]}), None),
            (json!({"Test": ["CMD"]}), None),
        ] {
            let wanted = wanted.map(|(args, interval, retries)| (args.to_owned(), interval, retries));
            assert_eq!(args(given.clone()), wanted, "{given}");
        }
        assert!(health_of(&json!({"Test": ["CMD", "x"], "Interval": 1}), Vec::new()).is_err());
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(bytes_of("10m").ok(), Some(10 << 20));
        assert_eq!(bytes_of("").ok(), Some(0));
        assert!(bytes_of("x").is_err());
    }
}
