use std::sync::{Arc, Mutex};

use bus::Error;
use proto::{ExecRef, ExecSpec, ExecStart, ExecStartReply, ExecStatus};
use runtime::bundle;
use runtime::shim::{Handle, Spawn, Streams};

use crate::node::{Node, lock};
use crate::start::runtime_error;

pub struct Exec {
    pub spec: ExecSpec,
    status: Mutex<ExecStatus>,
    pub shim: Mutex<Option<Arc<Handle>>>,
}

impl Node {
    pub fn exec_create(&self, spec: ExecSpec) -> Result<proto::Empty, Error> {
        let container = self.container(&spec.container_id)?;
        if !container.is_running() {
            return Err(Error::conflict(format!("container {} is not running", spec.container_id)));
        }
        let valid = spec.exec_id.len() == 64 && spec.exec_id.bytes().all(|b| b.is_ascii_hexdigit());
        if !valid {
            return Err(Error::invalid("exec id is malformed"));
        }
        let status = ExecStatus {
            container_id: spec.container_id.clone(),
            exec_id: spec.exec_id.clone(),
            ..ExecStatus::default()
        };
        let id = spec.exec_id.clone();
        let exec = Exec { spec, status: Mutex::new(status), shim: Mutex::default() };
        lock(&self.execs).insert(id, Arc::new(exec));
        Ok(proto::Empty {})
    }

    pub fn exec(&self, id: &str) -> Result<Arc<Exec>, Error> {
        lock(&self.execs).get(id).cloned().ok_or_else(|| Error::not_found(format!("No such exec instance: {id}")))
    }

    pub fn exec_inspect(&self, request: &ExecRef) -> Result<ExecStatus, Error> {
        Ok(lock(&self.exec(&request.exec_id)?.status).clone())
    }

    pub async fn exec_start(self: &Arc<Self>, request: ExecStart) -> Result<ExecStartReply, Error> {
        let exec = self.exec(&request.exec_id)?;
        let container = self.container(&exec.spec.container_id)?;
        let pid = container.status().pid;
        if pid == 0 {
            return Err(Error::conflict(format!("container {} is not running", exec.spec.container_id)));
        }
        let spec = bundle::ExecSpec {
            args: exec.spec.args.clone(),
            env: exec.spec.env.clone(),
            cwd: exec.spec.working_dir.clone(),
            user: exec.spec.user.clone(),
            tty: exec.spec.tty,
            privileged: exec.spec.privileged,
        };
        let root = format!("/proc/{pid}/root");
        let process =
            bundle::exec_process(&container.dir.join("bundle"), root.as_ref(), &spec).map_err(runtime_error)?;
        let mut config = self.shim_config(&container);
        config.tty = exec.spec.tty;
        config.open_stdin = exec.spec.attach_stdin;
        config.stdin_once = true;
        config.log = None;
        config.exec = Some(process);
        config.tty_size = (request.height as u16, request.width as u16);
        let dir = container.dir.join("execs").join(&request.exec_id);
        let spawn = Spawn { shim_binary: self.shim_binary.clone(), dir: dir.clone(), config };
        let shim = Arc::new(spawn.spawn().await.map_err(runtime_error)?);
        *lock(&exec.shim) = Some(shim.clone());
        if request.ticket.is_some() {
            let (stdin, stdout, stderr) = (exec.spec.attach_stdin, exec.spec.attach_stdout, exec.spec.attach_stderr);
            let joined = shim.attach(Streams { stdin, stdout, stderr }).await.map_err(runtime_error)?;
            let duplex = crate::attach::dial(request.ticket).await?;
            tokio::spawn(crate::attach::pump(duplex, joined));
        }
        match shim.start().await {
            Ok(started) => {
                let mut status = lock(&exec.status);
                status.running = true;
                status.pid = started.pid;
            }
            Err(error) => {
                let mut status = lock(&exec.status);
                status.finished = true;
                status.exit_code = error.exit_code();
                return Err(runtime_error(error));
            }
        }
        let node = self.clone();
        let ended = exec.clone();
        tokio::spawn(async move {
            let code = shim.wait_exit().await.map_or(137, |end| end.code);
            {
                let mut status = lock(&ended.status);
                (status.running, status.finished, status.exit_code, status.pid) = (false, true, code, 0);
            }
            let attributes = [("execID", ended.spec.exec_id.clone()), ("exitCode", code.to_string())];
            node.tell(&container, "exec_die", &attributes);
            shim.wait_gone().await;
            let _ = std::fs::remove_dir_all(dir);
        });
        Ok(ExecStartReply { status: Some(lock(&exec.status).clone()), events: Vec::new() })
    }
}
