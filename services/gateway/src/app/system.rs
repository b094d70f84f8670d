use proto::ContainerState;
use serde_json::{Value, json};

use super::{App, Outcome, images::size_of, view};

impl App {
    pub async fn version(&self) -> Value {
        let node = self.nodes().into_iter().next().unwrap_or_default();
        let kernel = kernel();
        json!({
            "Platform": {"Name": "Boxyard"},
            "Components": [
                {"Name": "Engine", "Version": service::VERSION, "Details": {
                    "ApiVersion": engine_api::API_VERSION, "Arch": "amd64", "BuildTime": "", "Experimental": "false",
                    "GitCommit": "", "GoVersion": "", "KernelVersion": kernel,
                    "MinAPIVersion": engine_api::MIN_API_VERSION, "Os": "linux"}},
                {"Name": if node.runtime.is_empty() { "crun" } else { &node.runtime }, "Version": node.runtime_version, "Details": {"GitCommit": ""}}
            ],
            "Version": service::VERSION, "ApiVersion": engine_api::API_VERSION,
            "MinAPIVersion": engine_api::MIN_API_VERSION, "GitCommit": "", "GoVersion": "", "Os": "linux",
            "Arch": "amd64", "KernelVersion": kernel, "BuildTime": ""
        })
    }

    pub async fn info(&self) -> Outcome<Value> {
        let node = self.known_nodes().await.into_iter().next().unwrap_or_default();
        let containers = self.db.containers().await?;
        let count = |state: ContainerState| containers.iter().filter(|c| view::status_of(c).state() == state).count();
        let (running, paused) = (count(ContainerState::Running), count(ContainerState::Paused));
        let images = self.db.images().await?.len();
        let now = engine_api::time(super::now_ns());
        let limits = true;
        let mut info = json!({
            "ID": node.id, "Containers": containers.len(), "ContainersRunning": running, "ContainersPaused": paused,
            "ContainersStopped": containers.len() - running - paused, "Images": images, "Driver": "overlay2",
            "DriverStatus": [], "Plugins": {"Volume": ["local"], "Network": ["bridge", "host", "null"], "Authorization": null, "Log": ["json-file", "none"]},
            "MemoryLimit": limits, "SwapLimit": limits, "CpuCfsPeriod": limits, "CpuCfsQuota": limits,
            "CPUShares": limits, "CPUSet": limits, "PidsLimit": limits, "IPv4Forwarding": true,
            "OomKillDisable": false, "Debug": false, "NFd": 0, "NGoroutines": 0, "NEventsListener": 0,
            "SystemTime": now, "LoggingDriver": "json-file"
        });
        let more = json!({
            "CgroupDriver": "cgroupfs", "CgroupVersion": if node.cgroup_version.is_empty() { "1" } else { &node.cgroup_version },
            "KernelVersion": node.kernel_version, "OperatingSystem": node.operating_system, "OSVersion": node.os_version,
            "OSType": "linux", "Architecture": node.architecture, "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": {"InsecureRegistryCIDRs": ["127.0.0.0/8"], "IndexConfigs": {}, "Mirrors": null, "AllowNondistributableArtifactsCIDRs": null, "AllowNondistributableArtifactsHostnames": null},
            "NCPU": node.cpus, "MemTotal": node.memory_bytes, "GenericResources": null, "DockerRootDir": node.data_dir,
            "HttpProxy": "", "HttpsProxy": "", "NoProxy": "", "Name": node.name, "Labels": [],
            "ExperimentalBuild": false, "ServerVersion": service::VERSION, "Runtimes": {"crun": {"path": "crun"}},
            "DefaultRuntime": "crun", "Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "", "RemoteManagers": null},
            "LiveRestoreEnabled": true, "Isolation": "", "InitBinary": "", "ContainerdCommit": {"ID": "", "Expected": ""},
            "RuncCommit": {"ID": node.runtime_version, "Expected": node.runtime_version}, "InitCommit": {"ID": "", "Expected": ""},
            "SecurityOptions": node.security_options, "Warnings": null
        });
        if let (Some(info), Value::Object(more)) = (info.as_object_mut(), more) {
            info.extend(more);
        }
        Ok(info)
    }

    pub async fn disk_usage(&self) -> Outcome<Value> {
        let images = self.db.images().await?;
        let containers = self.db.containers().await?;
        let mut layers = std::collections::HashMap::new();
        for layer in images.iter().flat_map(|image| &image.layers) {
            layers.insert(layer.digest.clone(), layer.content_bytes);
        }
        let rows: Vec<Value> = images
            .iter()
            .map(|image| {
                let used = containers.iter().filter(|c| c.image_id == image.id).count();
                let mut row = view::image_summary(image, used as i64);
                row["SharedSize"] = 0.into();
                row["Size"] = size_of(image).into();
                row
            })
            .collect();
        let sizes = self.sizes(&containers).await.unwrap_or_default();
        let now = super::now_ns();
        let container_rows: Vec<Value> = containers
            .iter()
            .map(|c| {
                view::summary(c, &view::image_name_of(c, &images), sizes.get(&c.id).copied().or(Some((0, 0))), now)
            })
            .collect();
        Ok(json!({
            "LayersSize": layers.values().sum::<u64>(), "Images": rows, "Containers": container_rows, "Volumes": [],
            "BuildCache": [], "BuilderSize": 0
        }))
    }
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}
