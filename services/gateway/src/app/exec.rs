use bus::calls;
use engine_api::ExecCreateRequest;
use model::ErrorKind;
use prost::Message as _;
use proto::ContainerState;
use serde_json::{Value, json};

use super::{App, Failure, Outcome, random_id, view};

/// An exec's record, decoded.
pub struct Exec {
    pub container_id: String,
    pub node_id: String,
    pub spec: proto::ExecSpec,
    started: bool,
    status: proto::ExecStatus,
}

impl Exec {
    fn is_running(&self) -> bool {
        self.started && !self.status.finished
    }
}

impl App {
    pub async fn create_exec(&self, wanted: &str, request: ExecCreateRequest) -> Outcome<String> {
        let container = self.find_container(wanted).await?;
        let args = request.cmd.unwrap_or_default();
        if args.is_empty() {
            return Err(Failure::invalid("No exec command specified"));
        }
        check_running(&container, wanted)?;
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
        self.db
            .insert_exec(&metadata::Exec {
                id: spec.exec_id.clone(),
                container_id: container.id.clone(),
                node_id: container.node_id.clone(),
                spec: spec.encode_to_vec(),
                started: false,
                status: Vec::new(),
            })
            .await?;
        let action = format!("exec_create: {}", spec.args.join(" "));
        self.tell_container(&container, &action, &[("execID", &spec.exec_id)]);
        Ok(spec.exec_id)
    }

    pub async fn find_exec(&self, id: &str) -> Outcome<Exec> {
        let row = self.db.exec(id).await?.ok_or_else(|| Failure::not_found(format!("No such exec instance: {id}")))?;
        let spec = proto::ExecSpec::decode(row.spec.as_slice()).unwrap_or_default();
        let status = proto::ExecStatus::decode(row.status.as_slice()).unwrap_or_default();
        Ok(Exec { container_id: row.container_id, node_id: row.node_id, spec, started: row.started, status })
    }

    /// Marks it started, since a second start is refused.
    pub async fn claim_exec(&self, id: &str) -> Outcome<Exec> {
        let exec = self.find_exec(id).await?;
        let container = self.find_container(&exec.container_id).await?;
        if exec.status.finished {
            return Err(Failure::conflict(format!("exec command {id} has already run")));
        }
        if !self.db.claim_exec(id).await? {
            return Err(Failure::conflict(format!("exec command {id} is already running")));
        }
        check_running(&container, &container.id)?;
        let action = format!("exec_start: {}", exec.spec.args.join(" "));
        self.tell_container(&container, &action, &[("execID", id)]);
        Ok(exec)
    }

    pub async fn start_exec(&self, exec: &Exec, ticket: Option<proto::Ticket>, size: (u32, u32)) -> Outcome<()> {
        let id = &exec.spec.exec_id;
        let request = proto::ExecStart {
            container_id: exec.container_id.clone(),
            exec_id: id.clone(),
            ticket,
            height: size.0,
            width: size.1,
        };
        match self.node_call::<calls::ExecStart>(&exec.node_id, &request).await {
            Ok(reply) => {
                // One that could not be started has told its client why on the stream.
                if let Some(status) = reply.status.filter(|status| status.finished) {
                    self.db.set_exec_status(id, &status.encode_to_vec()).await?;
                }
                self.apply(&reply.events, None).await
            }
            Err(failure) => {
                self.exec_ended(id, exit_code_of(&failure)).await?;
                Err(failure)
            }
        }
    }

    pub async fn exec_ended(&self, id: &str, exit_code: i32) -> Outcome<()> {
        let status = proto::ExecStatus { exec_id: id.to_owned(), finished: true, exit_code, ..Default::default() };
        Ok(self.db.set_exec_status(id, &status.encode_to_vec()).await?)
    }

    /// What the node says while it runs; the record afterwards.
    async fn exec_status(&self, id: &str, exec: &Exec) -> Outcome<proto::ExecStatus> {
        if !exec.is_running() {
            return Ok(exec.status.clone());
        }
        let request = proto::ExecRef { container_id: exec.container_id.clone(), exec_id: id.to_owned() };
        let status = match self.node_call::<calls::ExecInspect>(&exec.node_id, &request).await {
            Ok(status) => status,
            // The node was started again: how it ended is not known.
            Err(failure) if failure.kind == ErrorKind::NotFound => proto::ExecStatus::default(),
            Err(failure) => return Err(failure),
        };
        if status.finished {
            self.db.set_exec_status(id, &status.encode_to_vec()).await?;
        }
        Ok(status)
    }

    pub async fn running_execs(&self, container_id: &str) -> Outcome<Vec<String>> {
        let mut running = Vec::new();
        for row in self.db.execs_of(container_id).await? {
            let status = proto::ExecStatus::decode(row.status.as_slice()).unwrap_or_default();
            if row.started && !status.finished {
                running.push(row.id);
            }
        }
        Ok(running)
    }

    pub async fn inspect_exec(&self, id: &str) -> Outcome<Value> {
        let exec = self.find_exec(id).await?;
        let status = self.exec_status(id, &exec).await?;
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

fn check_running(container: &metadata::Container, shown: &str) -> Outcome<()> {
    match view::status_of(container).state() {
        ContainerState::Running => Ok(()),
        ContainerState::Paused => {
            Err(Failure::conflict(format!("Container {shown} is paused, unpause the container before exec")))
        }
        ContainerState::Restarting => Err(Failure::conflict(format!(
            "Container {} is restarting, wait until the container is running",
            container.id
        ))),
        _ => Err(Failure::conflict(format!("container {} is not running", container.id))),
    }
}

/// The exit code that Docker gives to a command that could not be started.
pub fn exit_code_of(failure: &Failure) -> i32 {
    let text = failure.message.to_lowercase();
    let missing = ["executable file not found", "no such file or directory"];
    if missing.iter().any(|words| text.contains(words)) { 127 } else { 126 }
}
