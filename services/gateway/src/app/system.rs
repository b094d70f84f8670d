use std::collections::{HashMap, HashSet};

use proto::ContainerState;
use serde_json::{Value, json};

use super::build_cache::CacheRecord;
use super::remove_image::has_name;
use super::{App, Failure, Outcome, view};

/// Clients print a language here; Docker's is Go.
const LANGUAGE: &str = "none (Rust)";
/// What a packager says of the build; a build from a checkout says nothing of itself, so that it can be repeated.
const GIT_COMMIT: &str = match option_env!("BOXYARD_GIT_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
const BUILD_TIME: &str = match option_env!("BOXYARD_BUILD_TIME") {
    Some(time) => time,
    None => "",
};

impl App {
    pub async fn version(&self) -> Value {
        // The signs of life are waited for only a moment: `docker version` must answer without a bus too.
        let patience = std::time::Duration::from_millis(500);
        let nodes = tokio::time::timeout(patience, self.known_nodes()).await.unwrap_or_default();
        let node = nodes.into_iter().next().unwrap_or_default();
        let kernel = kernel();
        let runtime = if node.runtime.is_empty() { "crun" } else { &node.runtime };
        json!({
            "Platform": {"Name": "Boxyard"},
            "Components": [
                {"Name": "Engine", "Version": service::VERSION, "Details": {
                    "ApiVersion": engine_api::API_VERSION, "Arch": "amd64", "BuildTime": BUILD_TIME,
                    "Experimental": "false", "GitCommit": GIT_COMMIT, "GoVersion": LANGUAGE, "KernelVersion": kernel,
                    "MinAPIVersion": engine_api::MIN_API_VERSION, "Os": "linux"}},
                {"Name": runtime, "Version": node.runtime_version, "Details": {"GitCommit": ""}}
            ],
            "Version": service::VERSION, "ApiVersion": engine_api::API_VERSION,
            "MinAPIVersion": engine_api::MIN_API_VERSION, "GitCommit": GIT_COMMIT, "GoVersion": LANGUAGE,
            "Os": "linux", "Arch": "amd64", "KernelVersion": kernel, "BuildTime": BUILD_TIME
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
        let runtime = if node.runtime.is_empty() { "crun" } else { &node.runtime };
        let security = match node.security_options.is_empty() {
            true => vec!["name=seccomp,profile=builtin".to_owned()],
            false => node.security_options.clone(),
        };
        let mut info = json!({
            "ID": node.id, "Containers": containers.len(), "ContainersRunning": running, "ContainersPaused": paused,
            "ContainersStopped": containers.len() - running - paused, "Images": images, "Driver": "overlay2",
            "DriverStatus": [["Backing Filesystem", "extfs"], ["Supports d_type", "true"], ["Using metacopy", "false"], ["Native Overlay Diff", "true"], ["userxattr", "false"]], "Plugins": {"Volume": ["local"], "Network": ["bridge", "host", "null"], "Authorization": null, "Log": ["json-file", "none"]},
            "MemoryLimit": limits, "SwapLimit": limits, "CpuCfsPeriod": limits, "CpuCfsQuota": limits,
            "CPUShares": limits, "CPUSet": limits, "PidsLimit": limits, "IPv4Forwarding": true,
            "OomKillDisable": node.cgroup_version != "2", "Debug": false, "NFd": 0, "NGoroutines": 0, "NEventsListener": 0,
            "SystemTime": now, "LoggingDriver": "json-file"
        });
        let more = json!({
            "CgroupDriver": "cgroupfs", "CgroupVersion": if node.cgroup_version.is_empty() { "1" } else { &node.cgroup_version },
            "KernelVersion": node.kernel_version, "OperatingSystem": node.operating_system, "OSVersion": node.os_version,
            "OSType": "linux", "Architecture": node.architecture, "IndexServerAddress": model::INDEX_SERVER,
            "RegistryConfig": super::registries::config(&self.registries),
            "NCPU": node.cpus, "MemTotal": node.memory_bytes, "GenericResources": null, "DockerRootDir": node.data_dir,
            "HttpProxy": "", "HttpsProxy": "", "NoProxy": "", "Name": node.name, "Labels": [],
            "ExperimentalBuild": false, "ServerVersion": service::VERSION, "Runtimes": {runtime: {"path": runtime}},
            "DefaultRuntime": runtime, "Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "", "RemoteManagers": null},
            "LiveRestoreEnabled": true, "Isolation": "", "InitBinary": "", "ContainerdCommit": {"ID": ""},
            "RuncCommit": {"ID": node.runtime_version}, "InitCommit": {"ID": ""},
            "SecurityOptions": security, "CDISpecDirs": [], "Warnings": null
        });
        if let (Some(info), Value::Object(more)) = (info.as_object_mut(), more) {
            info.extend(more);
        }
        Ok(info)
    }

    /// GET /system/df; the lists of kinds that were not asked for are null. None named means all.
    pub async fn disk_usage(&self, kinds: &[Kind]) -> Outcome<Value> {
        let wanted = |kind: Kind| kinds.is_empty() || kinds.contains(&kind);
        let images = self.db.images().await?;
        let containers = self.db.containers().await?;
        let layers = SharedLayers::of(&images);
        let parents: HashSet<&str> = images.iter().map(|image| image.parent_id.as_str()).collect();
        let shown = images.iter().filter(|image| has_name(image) || !parents.contains(image.id.as_str()));
        let rows: Vec<Value> = shown
            .map(|image| {
                let used = containers.iter().filter(|c| c.image_id == image.id).count();
                let mut row = view::image_summary(image, used as i64);
                row["SharedSize"] = layers.bytes_of(image).into();
                row
            })
            .collect();
        let sizes = if wanted(Kind::Container) { self.sizes(&containers).await? } else { HashMap::new() };
        let volumes = if wanted(Kind::Volume) { self.volumes_with_usage().await? } else { Value::Null };
        let cache = if wanted(Kind::BuildCache) { Some(self.cache_usage().await?) } else { None };
        let now = super::now_ns();
        let container_row = |c: &metadata::Container| {
            let sizes = sizes.get(&c.id).copied().unwrap_or((0, 0));
            view::summary(c, &view::image_name_of(c, &images), Some(sizes), now)
        };
        let list = |kind: Kind, rows: Vec<Value>| if wanted(kind) { json!(rows) } else { Value::Null };
        let cache_rows = cache.iter().flat_map(|cache| cache.records.iter().map(cache_row)).collect();
        Ok(json!({
            "LayersSize": if wanted(Kind::Image) { layers.all_bytes() } else { 0 }, "Images": list(Kind::Image, rows),
            "Containers": list(Kind::Container, containers.iter().map(container_row).collect()),
            "Volumes": volumes, "BuildCache": list(Kind::BuildCache, cache_rows),
            "BuilderSize": cache.map_or(0, |cache| cache.bytes)
        }))
    }
}

/// What GET /system/df may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Image,
    Container,
    Volume,
    BuildCache,
}

impl std::str::FromStr for Kind {
    type Err = Failure;

    fn from_str(word: &str) -> Outcome<Self> {
        match word {
            "image" => Ok(Self::Image),
            "container" => Ok(Self::Container),
            "volume" => Ok(Self::Volume),
            "build-cache" => Ok(Self::BuildCache),
            _ => Err(Failure::invalid(format!("unknown object type: {word}"))),
        }
    }
}

/// All layers of all images: bytes of each, and how many images have it.
pub struct SharedLayers(HashMap<String, (u64, usize)>);

impl SharedLayers {
    pub fn of(images: &[metadata::Image]) -> Self {
        let mut layers: HashMap<String, (u64, usize)> = HashMap::new();
        for image in images {
            // An image may hold one layer twice.
            let own: HashMap<&str, u64> = image.layers.iter().map(|l| (l.digest.as_str(), l.content_bytes)).collect();
            for (digest, bytes) in own {
                layers.entry(digest.to_owned()).or_insert((bytes, 0)).1 += 1;
            }
        }
        Self(layers)
    }

    /// Bytes of an image's layers that other images have too.
    pub fn bytes_of(&self, image: &metadata::Image) -> u64 {
        let shared = |layer: &&metadata::Layer| self.0.get(&layer.digest).is_some_and(|l| l.1 > 1);
        image.layers.iter().filter(shared).map(|layer| layer.content_bytes).sum()
    }

    /// Bytes of all layers, each once.
    fn all_bytes(&self) -> u64 {
        self.0.values().map(|(bytes, _)| bytes).sum()
    }
}

fn cache_row(record: &CacheRecord) -> Value {
    json!({
        "ID": record.key, "Parent": "", "Type": record.kind, "Description": record.description,
        "InUse": record.is_in_use, "Shared": record.is_shared, "Size": record.bytes,
        "CreatedAt": engine_api::time(record.created_ms * 1_000_000),
        "LastUsedAt": engine_api::time(record.last_used_ms * 1_000_000)
    })
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}
