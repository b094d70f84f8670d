//! The request that the options become.

use serde_json::{Map, Value, json};

use super::{ContainerOptions, Streams};
use crate::create::{mounts, ports, values};
use crate::failure::{Failure, Outcome};
use crate::units;

impl ContainerOptions {
    /// The body of POST /containers/create.
    pub fn body(&self, streams: Streams) -> Outcome<Value> {
        let (exposed, bindings) = ports::published(&self.publish, &self.expose)?;
        let volumes = mounts::volumes(&self.volume)?;
        let mut config = json!({
            "Hostname": text(&self.hostname),
            "Domainname": text(&self.domainname),
            "User": text(&self.user),
            "AttachStdin": streams.stdin,
            "AttachStdout": streams.stdout,
            "AttachStderr": streams.stderr,
            "ExposedPorts": exposed,
            "Tty": self.tty,
            "OpenStdin": self.interactive,
            "StdinOnce": streams.stdin && self.interactive,
            "Env": values::environment(&self.env_file, &self.env)?,
            "Cmd": some_list(&self.image_and_command[1..]),
            "Image": self.image(),
            "Volumes": volumes.anonymous,
            "WorkingDir": text(&self.workdir),
            "Labels": values::labels(&self.label_file, &self.label)?,
            "HostConfig": self.host_config(volumes.binds, bindings)?,
            "NetworkingConfig": {"EndpointsConfig": self.endpoints()},
        });
        let map = config.as_object_mut().expect("an object was built just above");
        match self.entrypoint.as_deref() {
            None => {}
            Some("") => drop(map.insert("Entrypoint".into(), json!([""]))),
            Some(entrypoint) => drop(map.insert("Entrypoint".into(), json!([entrypoint]))),
        }
        map.insert("StopSignal".into(), self.stop_signal.clone().into());
        map.insert("StopTimeout".into(), self.stop_timeout.into());
        map.insert("Healthcheck".into(), self.healthcheck()?);
        map.insert("MacAddress".into(), self.mac_address.clone().into());
        map.retain(|_, value| !value.is_null());
        Ok(config)
    }

    fn host_config(&self, binds: Vec<String>, bindings: Value) -> Outcome<Value> {
        let bytes = |value: &Option<String>| -> Outcome<i64> {
            value
                .as_deref()
                .map_or(Ok(0), |v| if v == "-1" { Ok(-1) } else { units::parse_bytes(v) })
                .map_err(Failure::new)
        };
        let mut config = json!({
            "Binds": some_list(&binds),
            "NetworkMode": self.network.as_deref().unwrap_or("default"),
            "PortBindings": bindings,
            "RestartPolicy": values::restart_policy(&self.restart)?,
            "AutoRemove": self.rm,
            "VolumeDriver": text(&self.volume_driver),
            "VolumesFrom": some_list(&self.volumes_from),
            "ConsoleSize": crate::terminal::size().map_or_else(|| json!([0, 0]), |(h, w)| json!([h, w])),
            "CapAdd": some_list(&self.cap_add),
            "CapDrop": some_list(&self.cap_drop),
            "CgroupnsMode": text(&self.cgroupns),
            "Dns": self.dns,
            "DnsOptions": self.dns_option,
            "DnsSearch": self.dns_search,
            "ExtraHosts": some_list(&values::extra_hosts(&self.add_host)?),
            "GroupAdd": some_list(&self.group_add),
            "IpcMode": text(&self.ipc),
            "Links": some_list(&self.link),
            "OomScoreAdj": self.oom_score_adj.unwrap_or(0),
            "PidMode": text(&self.pid),
            "Privileged": self.privileged,
            "PublishAllPorts": self.publish_all,
            "ReadonlyRootfs": self.read_only,
            "SecurityOpt": some_list(&values::security_options(&self.security_opt)?),
            "UTSMode": text(&self.uts),
            "UsernsMode": text(&self.userns),
            "ShmSize": bytes(&self.shm_size)?,
            "CpuShares": self.cpu_shares.unwrap_or(0),
            "Memory": bytes(&self.memory)?,
            "NanoCpus": self.cpus.as_deref().map_or(Ok(0), values::nano_cpus)?,
            "CgroupParent": text(&self.cgroup_parent),
            "BlkioWeight": self.blkio_weight.unwrap_or(0),
            "CpuPeriod": self.cpu_period.unwrap_or(0),
            "CpuQuota": self.cpu_quota.unwrap_or(0),
            "CpusetCpus": text(&self.cpuset_cpus),
            "CpusetMems": text(&self.cpuset_mems),
            "Devices": values::devices(&self.device)?,
            "MemoryReservation": bytes(&self.memory_reservation)?,
            "MemorySwap": bytes(&self.memory_swap)?,
            "MemorySwappiness": self.memory_swappiness.unwrap_or(-1),
            "OomKillDisable": self.oom_kill_disable,
            "PidsLimit": self.pids_limit.unwrap_or(0),
            "Ulimits": values::ulimits(&self.ulimit)?,
        });
        let map = config.as_object_mut().expect("an object was built just above");
        let log_type = self.log_driver.clone().unwrap_or_default();
        map.insert("LogConfig".into(), json!({"Type": log_type, "Config": values::pairs(&self.log_opt)}));
        let optional = [
            ("Mounts", mounts::mounts(&self.mount)?),
            ("Tmpfs", mounts::tmpfs(&self.tmpfs)),
            ("Sysctls", values::pairs(&self.sysctl)),
            ("StorageOpt", values::pairs(&self.storage_opt)),
            ("Annotations", values::pairs(&self.annotation)),
            ("Runtime", self.runtime.clone().map_or(Value::Null, Value::from)),
            ("Init", if self.init { true.into() } else { Value::Null }),
        ];
        for (name, value) in optional {
            let empty = value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty);
            if !value.is_null() && !empty {
                map.insert(name.into(), value);
            }
        }
        Ok(config)
    }

    fn endpoints(&self) -> Value {
        let asked = self.ip.is_some() || self.ip6.is_some() || !self.network_alias.is_empty();
        let Some(network) = self.network.as_ref().filter(|_| asked) else { return json!({}) };
        let mut endpoint = Map::new();
        if !self.network_alias.is_empty() {
            endpoint.insert("Aliases".into(), json!(self.network_alias));
        }
        endpoint.insert("IPAMConfig".into(), json!({"IPv4Address": text(&self.ip), "IPv6Address": text(&self.ip6)}));
        json!({network.as_str(): endpoint})
    }

    fn healthcheck(&self) -> Outcome<Value> {
        if self.no_healthcheck {
            return Ok(json!({"Test": ["NONE"]}));
        }
        let ns = |value: &Option<String>| -> Outcome<i64> {
            value.as_deref().map_or(Ok(0), units::parse_duration_ns).map_err(Failure::new)
        };
        let (interval, timeout, start) =
            (ns(&self.health_interval)?, ns(&self.health_timeout)?, ns(&self.health_start_period)?);
        let retries = self.health_retries.unwrap_or(0);
        if self.health_cmd.is_none() && interval + timeout + start + retries == 0 {
            return Ok(Value::Null);
        }
        let test = self.health_cmd.as_ref().map(|c| json!(["CMD-SHELL", c]));
        Ok(json!({"Test": test, "Interval": interval, "Timeout": timeout, "StartPeriod": start, "Retries": retries}))
    }
}

fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

fn some_list(items: &[String]) -> Value {
    if items.is_empty() { Value::Null } else { json!(items) }
}
