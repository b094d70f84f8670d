use bus::calls;
use engine_api::CreateRequest;
use model::{ErrorKind, Platform};
use prost::Message as _;
use proto::ContainerState;
use serde_json::Value;

use super::images::{Image, config_of};
use super::platform;
use super::{App, Failure, Outcome, names, nodes, random_id, spec, view};

pub use metadata::Container;

pub struct Created {
    pub id: String,
    pub warnings: Vec<String>,
}

impl App {
    /// A container by id, name, or the beginning of an id.
    pub async fn find_container(&self, wanted: &str) -> Outcome<Container> {
        if wanted.is_empty() {
            return Err(Failure::invalid("invalid name or ID supplied: \"\""));
        }
        let wanted = wanted.strip_prefix('/').unwrap_or(wanted);
        if wanted.is_empty() {
            return Err(Failure::not_found("No such container: "));
        }
        let mut found = self.db.find_containers(wanted).await?;
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => Err(Failure::not_found(format!("No such container: {wanted}"))),
            _ => Err(Failure::invalid(format!("multiple IDs found with provided prefix: {wanted}"))),
        }
    }

    /// # Errors
    /// `NotFound` also for an image that is there for another platform only.
    pub async fn create_container(
        &self,
        name: Option<String>,
        platform: Option<Platform>,
        raw: &Value,
    ) -> Outcome<Created> {
        let raw = &self.with_ids(raw).await?;
        let request = CreateRequest::deserialize_from(raw)?;
        let name =
            name.map(|name| name.strip_prefix('/').map(str::to_owned).unwrap_or(name)).filter(|name| !name.is_empty());
        let wanted = request.image.clone().unwrap_or_default();
        if raw.as_object().is_none_or(serde_json::Map::is_empty) {
            return Err(Failure::invalid("config cannot be empty in order to create a container"));
        }
        if wanted.is_empty() {
            return Err(Failure::invalid("no command specified"));
        }
        let image = self.find_image_for(&wanted, platform.as_ref()).await?;
        let warning = check_platform(platform, &wanted, &image)?;
        if let Some(name) = name.as_deref().filter(|name| !names::is_name(name)) {
            return Err(Failure::invalid(format!(
                "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            )));
        }
        let mut created = self.create_on(&image, name, request, raw).await?;
        created.warnings.splice(0..0, warning);
        Ok(created)
    }

    /// A container on an image, or on layers without one (an image without an id), whose blobs the caller keeps meanwhile.
    pub(super) async fn create_on(
        &self,
        image: &Image,
        name: Option<String>,
        request: CreateRequest,
        raw: &Value,
    ) -> Outcome<Created> {
        let id = random_id();
        let wanted = request.image.clone().unwrap_or_default();
        let shown_name = name.clone().unwrap_or_else(|| names::random_name(0));
        let merged = spec::merge(&id, &shown_name, image, request, raw)?;
        let (mut spec, request) = (merged.spec, merged.request);
        let givers = self.inherit_volumes(&request, &mut spec).await?;
        let mut container = Container {
            id: id.clone(),
            name: shown_name,
            node_id: self.place_container(&spec, &givers).await?,
            image_id: image.id.clone(),
            spec: spec.encode_to_vec(),
            request: request.to_string(),
            status: proto::ContainerStatus { id: id.clone(), ..Default::default() }.encode_to_vec(),
            created_ms: metadata::now_ms(),
            epoch: 0,
            seq: 0,
        };
        let mut attempt = 0;
        while let Err(error) = self.db.insert_container(&container).await {
            if matches!(error, metadata::Error::NoImage(_)) {
                return Err(super::images::no_such_image(&wanted));
            }
            if error.kind() != ErrorKind::Conflict {
                return Err(error.into());
            }
            if let Some(name) = &name {
                return Err(self.name_taken(name).await);
            }
            attempt += 1;
            spec.name = names::random_name(attempt);
            container.name.clone_from(&spec.name);
            container.spec = spec.encode_to_vec();
        }
        match self.node_call::<calls::ContainerCreate>(&container.node_id, &spec).await {
            Ok(reply) => {
                self.tell_volumes(reply.events.iter().find_map(|event| event.container.as_ref()));
                self.apply(&reply.events, None).await?;
                if !reply.events.iter().any(|event| event.action == "create") {
                    self.tell_container(&container, "create", &[]);
                }
                Ok(Created { id, warnings: reply.warnings })
            }
            Err(failure) => {
                self.db.forget_container(&id).await?;
                Err(failure)
            }
        }
    }

    /// A name in `container:NAME` may be given to another container later, so the id takes its place.
    async fn with_ids(&self, raw: &Value) -> Outcome<Value> {
        let mut raw = raw.clone();
        for key in ["NetworkMode", "PidMode", "IpcMode"] {
            let Some(mode) = raw.pointer_mut(&format!("/HostConfig/{key}")) else { continue };
            if let Some(other) = mode.as_str().and_then(|mode| mode.strip_prefix("container:")) {
                *mode = format!("container:{}", self.find_container(other).await?.id).into();
            }
        }
        Ok(raw)
    }

    /// Adds what VolumesFrom names: the volumes and binds of other containers, where this one has nothing of its own.
    /// Answers those containers.
    async fn inherit_volumes(&self, request: &Value, spec: &mut proto::ContainerSpec) -> Outcome<Vec<Container>> {
        let mut givers = Vec::new();
        for entry in request["HostConfig"]["VolumesFrom"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let (name, mode) = entry.split_once(':').unwrap_or((entry, ""));
            let mode = if mode.is_empty() { "rw" } else { mode };
            if name.is_empty() {
                return Err(Failure::invalid(format!("malformed volumes-from specification: {entry}")));
            }
            let Some(is_read_only) = super::mounts::is_inherited_read_only(mode) else {
                return Err(Failure::invalid(format!("invalid mode: {mode}")));
            };
            // As Docker answers it: the fault is the request's.
            let giver = self.find_container(name).await.map_err(|failure| Failure::invalid(failure.message))?;
            let place = |target: &str| target.trim_end_matches('/').to_owned();
            for point in view::status_of(&giver).mounts {
                let kind = match point.r#type.as_str() {
                    "bind" => proto::mount::Type::Bind,
                    "volume" => proto::mount::Type::Volume,
                    _ => continue,
                };
                let (is_own, is_anonymous) =
                    match spec.mounts.iter().find(|own| place(&own.target) == place(&point.target)) {
                        Some(own) => (true, own.r#type() == proto::mount::Type::Volume && own.source.is_empty()),
                        None => (false, false),
                    };
                if is_own && !is_anonymous {
                    continue;
                }
                spec.mounts.retain(|own| place(&own.target) != place(&point.target));
                spec.mounts.push(proto::Mount {
                    r#type: kind.into(),
                    source: if kind == proto::mount::Type::Bind { point.source } else { point.name },
                    target: point.target,
                    read_only: is_read_only || !point.rw,
                    propagation: if kind == proto::mount::Type::Bind { point.propagation } else { String::new() },
                    ..Default::default()
                });
            }
            givers.push(giver);
        }
        Ok(givers)
    }

    async fn name_taken(&self, name: &str) -> Failure {
        let holder = self.db.find_containers(name).await.ok().and_then(|found| found.into_iter().next());
        let id = holder.map(|holder| holder.id).unwrap_or_default();
        Failure::conflict(format!(
            "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
        ))
    }

    pub async fn start_container(&self, wanted: &str) -> Outcome<()> {
        let container = self.find_container(wanted).await?;
        match view::status_of(&container).state() {
            ContainerState::Running | ContainerState::Restarting => return Err(not_modified()),
            ContainerState::Paused => {
                return Err(Failure::conflict("cannot start a paused container, try unpause instead"));
            }
            _ => {}
        }
        let request = proto::ContainerStart { id: container.id.clone() };
        let started = self.change::<calls::ContainerStart>(&container.node_id, &request).await;
        if started.is_err() && is_auto_remove(&container) {
            // The client waits for the removal; the start's own failure is what it is told.
            if let Err(failure) = self.remove_container(&container.id, true, true).await {
                tracing::warn!(error = %failure, container_id = container.id, "a container that did not start stays");
            }
        }
        started.map(drop)
    }

    /// Takes a container with AutoRemove away once it has exited.
    pub fn remove_when_done(&self, id: &str) {
        let (Some(app), id) = (self.me.upgrade(), id.to_owned()) else { return };
        tokio::spawn(async move {
            let Ok(Some(container)) = app.db.container(&id).await else { return };
            if !is_auto_remove(&container) {
                return;
            }
            match app.remove_container(&id, true, true).await {
                Err(failure) if failure.kind != ErrorKind::NotFound => {
                    tracing::warn!(error = %failure, container_id = id, "an exited container could not be removed");
                }
                _ => {}
            }
        });
    }

    /// Containers with AutoRemove that exited while no gateway ran.
    pub async fn remove_all_done(&self) -> Outcome<()> {
        for container in self.db.containers().await? {
            let state = view::status_of(&container).state();
            if is_auto_remove(&container) && matches!(state, ContainerState::Exited | ContainerState::Dead) {
                self.remove_when_done(&container.id);
            }
        }
        Ok(())
    }

    pub async fn stop_container(&self, wanted: &str, signal: String, timeout_seconds: Option<i32>) -> Outcome<()> {
        let container = self.find_container(wanted).await?;
        let state = view::status_of(&container).state();
        if !is_up(state) && state != ContainerState::Restarting {
            return Err(not_modified());
        }
        let request = proto::ContainerStop { id: container.id, signal, timeout_seconds };
        self.change::<calls::ContainerStop>(&container.node_id, &request).await.map(drop)
    }

    pub async fn restart_container(&self, wanted: &str, signal: String, timeout_seconds: Option<i32>) -> Outcome<()> {
        let container = self.find_container(wanted).await?;
        let request = proto::ContainerStop { id: container.id, signal, timeout_seconds };
        self.change::<calls::ContainerRestart>(&container.node_id, &request).await.map(drop)
    }

    pub async fn kill_container(&self, wanted: &str, signal: String) -> Outcome<()> {
        let container = self.find_container(wanted).await.map_err(|failure| {
            Failure::new(failure.kind, format!("cannot kill container: {wanted}: {}", failure.message))
        })?;
        let number = super::signals::number(&signal)
            .ok_or_else(|| Failure::invalid(format!("cannot kill container: {wanted}: invalid signal: {signal}")))?;
        if !is_up(view::status_of(&container).state()) {
            return Err(Failure::conflict(format!(
                "cannot kill container: {wanted}: container {} is not running",
                container.id
            )));
        }
        let request = proto::ContainerKill { id: container.id.clone(), signal: signal.clone() };
        let reply = self.change::<calls::ContainerKill>(&container.node_id, &request).await?;
        if !reply.events.iter().any(|event| event.action == "kill") {
            self.tell_container(&container, "kill", &[("signal", &number.to_string())]);
        }
        Ok(())
    }

    pub async fn pause_container(&self, wanted: &str) -> Outcome<()> {
        let container = self.find_container(wanted).await?;
        match view::status_of(&container).state() {
            ContainerState::Running => {}
            ContainerState::Paused => return Err(Failure::conflict(format!("Container {wanted} is already paused"))),
            _ => return Err(Failure::conflict(format!("container {} is not running", container.id))),
        }
        let request = proto::ContainerRef { id: container.id };
        self.change::<calls::ContainerPause>(&container.node_id, &request).await.map(drop)
    }

    pub async fn unpause_container(&self, wanted: &str) -> Outcome<()> {
        let container = self.find_container(wanted).await?;
        if view::status_of(&container).state() != ContainerState::Paused {
            return Err(Failure::conflict(format!("Container {} is not paused", container.id)));
        }
        let request = proto::ContainerRef { id: container.id };
        self.change::<calls::ContainerUnpause>(&container.node_id, &request).await.map(drop)
    }

    pub async fn rename_container(&self, wanted: &str, name: &str) -> Outcome<()> {
        let container = self.find_container(wanted).await?;
        let name = name.strip_prefix('/').unwrap_or(name);
        if name.is_empty() {
            return Err(Failure::invalid("Neither old nor new names may be empty"));
        }
        if !names::is_name(name) {
            return Err(Failure::invalid(format!(
                "Error when allocating new name: Invalid container name (/{name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            )));
        }
        if container.name == name {
            return Err(Failure::invalid("Renaming a container with the same name as its current name".to_string()));
        }
        let before = view::spec_of(&container);
        let after = proto::ContainerSpec { name: name.to_owned(), ..before.clone() };
        match self.db.rename_container(&container.id, name, &after.encode_to_vec()).await {
            Err(metadata::Error::Taken(_)) => {
                let taken = self.name_taken(name).await;
                return Err(Failure::new(taken.kind, format!("Error when allocating new name: {}", taken.message)));
            }
            other => other?,
        }
        let request = proto::ContainerRename { id: container.id.clone(), name: name.to_owned() };
        if let Err(failure) = self.change::<calls::ContainerRename>(&container.node_id, &request).await {
            self.db.rename_container(&container.id, &container.name, &before.encode_to_vec()).await?;
            return Err(failure);
        }
        self.containers.rename(&container.id, name);
        let old_name = format!("/{}", container.name);
        self.tell_container(&container, "rename", &[("oldName", &old_name), ("name", name)]);
        Ok(())
    }

    pub async fn remove_container(&self, wanted: &str, force: bool, remove_volumes: bool) -> Outcome<()> {
        let container = self.find_container(wanted).await?;
        let state = view::status_of(&container).state();
        if !force && (is_up(state) || state == ContainerState::Restarting) {
            let (word, advice) = match state {
                ContainerState::Paused => ("paused and must be unpaused first", ""),
                _ => (view::state_word(state), ": stop the container before removing or force remove"),
            };
            return Err(Failure::conflict(format!(
                "cannot remove container \"{wanted}\": container is {word}{advice}"
            )));
        }
        let request = proto::ContainerRemove { id: container.id.clone(), force, remove_volumes };
        let told = match self.change::<calls::ContainerRemove>(&container.node_id, &request).await {
            Ok(reply) => reply.events.iter().any(|event| event.action == "destroy"),
            // The node does not know it: only the record is left.
            Err(failure) if failure.kind == ErrorKind::NotFound => false,
            Err(failure) => return Err(failure),
        };
        let forgotten = self.db.forget_container(&container.id).await?;
        self.changed_to_gone(&container.id);
        if remove_volumes {
            self.tell_volumes_gone(&container);
        }
        // Else the node has told it, or who came first.
        if !told && forgotten {
            self.tell_container(&container, "destroy", &[]);
        }
        Ok(())
    }

    /// Bytes of the writable layer and of the whole root file system; of containers on a lost node nothing is known.
    pub async fn sizes(&self, containers: &[Container]) -> Outcome<std::collections::HashMap<String, (i64, i64)>> {
        let mut sizes = std::collections::HashMap::new();
        let nodes: std::collections::BTreeSet<&str> = containers.iter().map(|c| c.node_id.as_str()).collect();
        let living = self.known_nodes().await;
        for node_id in nodes.into_iter().filter(|node_id| nodes::lost(&living, node_id).is_none()) {
            let ids = containers.iter().filter(|c| c.node_id == node_id).map(|c| c.id.clone()).collect();
            let request = proto::SizeRequest { ids };
            let reply = self.node_call_if_there::<calls::ContainerSizes>(node_id, &request).await?.unwrap_or_default();
            for size in reply.sizes {
                let Some(container) = containers.iter().find(|c| c.id == size.id) else { continue };
                let image: u64 = view::spec_of(container).layers.iter().map(|layer| layer.content_bytes).sum();
                sizes.insert(size.id, (size.rw_bytes, size.rw_bytes + image.cast_signed()));
            }
        }
        Ok(sizes)
    }

    pub async fn inspect_container(&self, wanted: &str, size: bool) -> Outcome<Value> {
        let container = self.find_container(wanted).await?;
        let sizes = if size { self.sizes(std::slice::from_ref(&container)).await? } else { Default::default() };
        let ids = self.running_execs(&container.id).await?;
        let nodes = self.known_nodes().await;
        // Empty while the node is not known.
        let machine_dir = nodes.iter().find(|node| node.id == container.node_id).map_or("", |node| &node.data_dir);
        let mut shown = view::inspect(&container, machine_dir, ids, sizes.get(&container.id).copied());
        if is_up(view::status_of(&container).state())
            && let Some(lost) = nodes::lost(&nodes, &container.node_id)
        {
            shown["State"]["Error"] = lost.into();
        }
        Ok(shown)
    }
}

/// What to warn of: an image of another platform that nobody asked for.
fn check_platform(wanted: Option<Platform>, name: &str, image: &Image) -> Outcome<Option<String>> {
    if let Some(wanted) = wanted {
        return match platform::mismatch(&wanted, name, image) {
            Some(mismatch) => Err(Failure::not_found(mismatch)),
            None => Ok(None),
        };
    }
    let (host, actual) = (Platform::host(), platform::of_image(&config_of(image)));
    Ok((!host.takes(&actual)).then(|| {
        format!(
            "The requested image's platform ({actual}) does not match the detected host platform ({host}) and no specific platform was requested"
        )
    }))
}

fn is_auto_remove(container: &Container) -> bool {
    let request: Value = serde_json::from_str(&container.request).unwrap_or_default();
    request["HostConfig"]["AutoRemove"].as_bool().unwrap_or(false)
}

pub fn is_up(state: ContainerState) -> bool {
    matches!(state, ContainerState::Running | ContainerState::Paused)
}

pub fn not_modified() -> Failure {
    Failure::new(ErrorKind::NotModified, "")
}

pub trait FromJson: Sized {
    fn deserialize_from(raw: &Value) -> Outcome<Self>;
}

impl<T: serde::de::DeserializeOwned> FromJson for T {
    fn deserialize_from(raw: &Value) -> Outcome<Self> {
        serde_json::from_value(raw.clone()).map_err(|e| Failure::invalid(format!("invalid JSON: {e}")))
    }
}
