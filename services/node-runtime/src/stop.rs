use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bus::Error;
use nix::sys::signal::Signal;
use proto::{ContainerState, ContainerStop, NodeEvent};
use runtime::wire::Identity;

use crate::containers::Container;
use crate::node::{Node, lock};
use crate::start::runtime_error;

fn signal_number(text: &str, default: Signal) -> Result<i32, Error> {
    if text.is_empty() {
        return Ok(default as i32);
    }
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    name.parse::<Signal>().map(|s| s as i32).map_err(|_| Error::invalid(format!("Invalid signal: {text}")))
}

impl Node {
    pub async fn kill(&self, id: &str, signal: &str) -> Result<Vec<NodeEvent>, Error> {
        let container = self.container(id)?;
        let signal = signal_number(signal, Signal::SIGKILL)?;
        if let Some(event) = self.give_up_restart(&container).await? {
            return Ok(vec![event]);
        }
        let shim = container.shim().filter(|_| container.is_running());
        let shim = shim.ok_or_else(|| Error::conflict(format!("container {id} is not running")))?;
        let stop_signal = signal_number(&container.spec().stop_signal, Signal::SIGTERM)?;
        let deadly = signal == Signal::SIGKILL as i32 || signal == stop_signal;
        if deadly {
            container.set_stopped(true);
        }
        shim.signal(signal).await.map_err(runtime_error)?;
        let mut events = vec![self.tell(&container, "kill", &[("signal", signal.to_string())])];
        if deadly {
            events.extend(self.let_die(&container));
        }
        Ok(events)
    }

    pub async fn stop(&self, request: &ContainerStop) -> Result<Vec<NodeEvent>, Error> {
        let container = self.container(&request.id)?;
        container.set_stopped(true);
        if let Some(event) = self.give_up_restart(&container).await? {
            return Ok(vec![event]);
        }
        let Some(shim) = container.shim().filter(|_| container.is_running()) else {
            return Err(Error::new(model::ErrorKind::NotModified, "container is already stopped"));
        };
        let spec = container.spec();
        let text = if request.signal.is_empty() { &spec.stop_signal } else { &request.signal };
        let signal = signal_number(text, Signal::SIGTERM)?;
        let default = if spec.stop_timeout_seconds == 0 { 10 } else { spec.stop_timeout_seconds as i32 };
        let seconds = request.timeout_seconds.unwrap_or(default);
        let _ = shim.signal(signal).await;
        let mut events = vec![self.tell(&container, "kill", &[("signal", signal.to_string())])];
        events.extend(self.let_die(&container));
        let limit = u64::try_from(seconds).ok().map(Duration::from_secs);
        if !container.stands(limit).await {
            let _ = shim.signal(Signal::SIGKILL as i32).await;
            events.push(self.tell(&container, "kill", &[("signal", "9".to_owned())]));
            container.stands(None).await;
        }
        events.push(self.tell(&container, "stop", &[]));
        Ok(events)
    }

    pub async fn restart(self: &Arc<Self>, request: &ContainerStop) -> Result<Vec<NodeEvent>, Error> {
        let mut events = match self.stop(request).await {
            Err(error) if error.kind() != model::ErrorKind::NotModified => return Err(error),
            stopped => stopped.unwrap_or_default(),
        };
        events.extend(self.start(&request.id).await?);
        events.push(self.tell(&*self.container(&request.id)?, "restart", &[]));
        Ok(events)
    }

    /// Of a container between an end and the restart by its policy.
    async fn give_up_restart(&self, container: &Container) -> Result<Option<NodeEvent>, Error> {
        if container.status().state() != ContainerState::Restarting {
            return Ok(None);
        }
        container.set_stopped(true);
        let _busy = container.busy.lock().await;
        if container.status().state() != ContainerState::Restarting {
            return Ok(None);
        }
        container.change(|status| status.set_state(ContainerState::Exited))?;
        Ok(Some(self.tell(container, "stop", &[])))
    }

    /// A frozen process gets its signal when it is thawed.
    fn let_die(&self, container: &Container) -> Option<NodeEvent> {
        if container.status().state() != ContainerState::Paused {
            return None;
        }
        let thawed = runtime::cgroup::Cgroup::new(&self.cgroup(&container.status().id)).thaw();
        if let Err(error) = thawed {
            tracing::warn!(%error, "a frozen container could not be thawed to end");
        }
        container.change(|status| status.set_state(ContainerState::Running)).ok()?;
        Some(self.tell(container, "unpause", &[]))
    }

    pub async fn pause(&self, id: &str, freeze: bool) -> Result<Vec<NodeEvent>, Error> {
        let container = self.container(id)?;
        let wanted = if freeze { ContainerState::Running } else { ContainerState::Paused };
        if container.status().state() != wanted {
            let is = if freeze { "not running" } else { "not paused" };
            return Err(Error::conflict(format!("Container {id} is {is}")));
        }
        let group = runtime::cgroup::Cgroup::new(&self.cgroup(id));
        if freeze { group.freeze() } else { group.thaw() }.map_err(runtime_error)?;
        let state = if freeze { ContainerState::Paused } else { ContainerState::Running };
        container.change(|status| status.set_state(state))?;
        Ok(vec![self.tell(&container, if freeze { "pause" } else { "unpause" }, &[])])
    }
}

/// Exists: the containers were stopped with the whole Boxyard, and not by a person.
pub const RESUME_FILE: &str = "resume";

pub async fn stop_all(node: &Arc<Node>) {
    if let Err(error) = std::fs::write(node.machine_dir.join(RESUME_FILE), "") {
        tracing::warn!(%error, "it could not be recorded that containers are to be resumed");
    }
    let ids: Vec<String> = lock(&node.containers).keys().cloned().collect();
    let stops = ids.into_iter().map(|id| {
        let node = node.clone();
        async move {
            let Ok(container) = node.container(&id) else { return };
            let by_person = container.stopped.load(Ordering::SeqCst);
            let _ = node.stop(&ContainerStop { id, signal: String::new(), timeout_seconds: Some(10) }).await;
            container.set_stopped(by_person);
        }
    });
    futures::future::join_all(stops).await;
    // What the containers used goes now.
    node.tasks.close();
    node.tasks.wait().await;
    runtime::cgroup::remove_all(&node.instance);
}

/// Kills what a shim has started, and waits until it has left.
pub async fn end(shim: &runtime::shim::Handle) {
    if shim.started().is_none() {
        return retire(shim).await;
    }
    let _ = shim.signal(Signal::SIGKILL as i32).await;
    let _ = shim.wait_exit().await;
    shim.wait_gone().await;
}

/// Ends a shim whose container never started; it is known by pid, start time and boot id.
pub async fn retire(shim: &runtime::shim::Handle) {
    let file = shim.dir().join(runtime::wire::IDENTITY_FILE);
    let identity = std::fs::read(file).ok().and_then(|text| serde_json::from_slice::<Identity>(&text).ok());
    if let Some(identity) = identity.filter(Identity::is_alive) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(identity.pid), Signal::SIGKILL);
        shim.wait_gone().await;
    }
}
