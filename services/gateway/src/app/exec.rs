use bus::calls;
use engine_api::ExecCreateRequest;
use proto::ContainerState;
use serde_json::{Value, json};

use super::{App, Failure, Outcome, events::attributes_of, lock, random_id, view};

/// An exec that this gateway was asked for.
#[derive(Clone)]
pub struct Exec {
    pub container_id: String,
    pub node_id: String,
    pub spec: proto::ExecSpec,
    pub started: bool,
    pub last: Option<proto::ExecStatus>,
}

impl Exec {
    pub fn is_running(&self) -> bool {
        self.started && self.last.as_ref().is_none_or(|status| status.running)
    }
}

impl App {
    pub async fn create_exec(&self, wanted: &str, request: ExecCreateRequest) -> Outcome<String> {
        let container = self.find_container(wanted).await?;
        match view::status_of(&container).state() {
            ContainerState::Running => {}
            ContainerState::Paused => {
                return Err(Failure::conflict(format!(
                    "Container {wanted} is paused, unpause the container before exec"
                )));
            }
            _ => return Err(Failure::conflict(format!("container {} is not running", container.id))),
        }
        let args = request.cmd.unwrap_or_default();
        if args.is_empty() {
            return Err(Failure::invalid("No exec command specified"));
        }
        let spec = proto::ExecSpec {
            container_id: container.id.clone(),
            exec_id: random_id(),
            args,
            env: request.env.unwrap_or_default(),
            working_dir: request.working_dir.unwrap_or_default(),
            user: request.user.unwrap_or_default(),
            tty: request.tty.unwrap_or(false),
            privileged: request.privileged.unwrap_or(false),
            attach_stdin: request.attach_stdin.unwrap_or(false),
            attach_stdout: request.attach_stdout.unwrap_or(false),
            attach_stderr: request.attach_stderr.unwrap_or(false),
            detach_keys: request.detach_keys.unwrap_or_default(),
        };
        self.node_call::<calls::ExecCreate>(&container.node_id, &spec).await?;
        let id = spec.exec_id.clone();
        let action = format!("exec_create: {}", spec.args.join(" "));
        let mut attributes = attributes_of(&container);
        attributes.insert("execID".into(), id.clone().into());
        self.tell("container", &action, &container.id, attributes);
        let exec = Exec { container_id: container.id, node_id: container.node_id, spec, started: false, last: None };
        lock(&self.execs).insert(id.clone(), exec);
        Ok(id)
    }

    pub fn find_exec(&self, id: &str) -> Outcome<Exec> {
        lock(&self.execs).get(id).cloned().ok_or_else(|| Failure::not_found(format!("No such exec instance: {id}")))
    }

    /// Marks it started, since a second start is refused.
    pub fn claim_exec(&self, id: &str) -> Outcome<Exec> {
        let mut execs = lock(&self.execs);
        let exec = execs.get_mut(id).ok_or_else(|| Failure::not_found(format!("No such exec instance: {id}")))?;
        if exec.started {
            return Err(Failure::conflict(format!("exec command {id} is already running")));
        }
        exec.started = true;
        Ok(exec.clone())
    }

    pub async fn start_exec(&self, exec: &Exec, ticket: Option<proto::Ticket>, size: (u32, u32)) -> Outcome<()> {
        let request = proto::ExecStart {
            container_id: exec.container_id.clone(),
            exec_id: exec.spec.exec_id.clone(),
            ticket,
            height: size.0,
            width: size.1,
        };
        let reply = self.node_call::<calls::ExecStart>(&exec.node_id, &request).await?;
        self.apply(&reply.events, None).await?;
        self.remember(&exec.spec.exec_id, reply.status);
        Ok(())
    }

    fn remember(&self, id: &str, status: Option<proto::ExecStatus>) {
        if let Some(exec) = lock(&self.execs).get_mut(id) {
            exec.last = status.or(exec.last.take());
        }
    }

    pub async fn inspect_exec(&self, id: &str) -> Outcome<Value> {
        let exec = self.find_exec(id)?;
        let mut status = exec.last.clone().unwrap_or_default();
        if exec.started && !status.finished {
            let request = proto::ExecRef { container_id: exec.container_id.clone(), exec_id: id.to_owned() };
            status = self.node_call::<calls::ExecInspect>(&exec.node_id, &request).await?;
            self.remember(id, Some(status.clone()));
        }
        let spec = exec.spec;
        Ok(json!({
            "ID": id, "Running": exec.started && status.running,
            "ExitCode": if status.finished { json!(status.exit_code) } else { Value::Null },
            "ProcessConfig": {
                "tty": spec.tty, "entrypoint": spec.args.first().cloned().unwrap_or_default(),
                "arguments": spec.args.get(1..).unwrap_or_default(), "privileged": spec.privileged, "user": spec.user
            },
            "OpenStdin": spec.attach_stdin, "OpenStderr": spec.attach_stderr, "OpenStdout": spec.attach_stdout,
            "CanRemove": false, "ContainerID": exec.container_id, "DetachKeys": spec.detach_keys, "Pid": status.pid
        }))
    }
}
