//! Execs. Each has a folder in its container's, with what was asked for and its shim's files, so that a node that was
//! restarted knows it again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bus::Error;
use bytes::Bytes;
use prost::Message as _;
use proto::{ExecRef, ExecSpec, ExecStart, ExecStartReply, ExecStatus};
use runtime::bundle;
use runtime::shim::{self, Handle, Spawn, Streams};
use runtime::wire::frame_header;

use crate::containers::{Container, write};
use crate::node::{Node, lock};
use crate::start::runtime_error;

const SPEC_FILE: &str = "exec.pb";
/// Says that it is a look of the node's own at the container's health.
const LOOK_FILE: &str = "look";
/// How long one that has ended can be asked for.
const KEPT: Duration = Duration::from_secs(300);

pub struct Exec {
    pub spec: ExecSpec,
    dir: PathBuf,
    status: Mutex<ExecStatus>,
    ended_at: Mutex<Option<Instant>>,
    pub shim: Mutex<Option<Arc<Handle>>>,
}

impl Exec {
    fn new(spec: ExecSpec, dir: PathBuf) -> Self {
        let status = ExecStatus {
            container_id: spec.container_id.clone(),
            exec_id: spec.exec_id.clone(),
            ..ExecStatus::default()
        };
        Self { spec, dir, status: Mutex::new(status), ended_at: Mutex::default(), shim: Mutex::default() }
    }

    /// For a node that comes after this one: before the start.
    pub fn mark_as_look(&self) -> Result<(), Error> {
        write(&self.dir.join(LOOK_FILE), b"")
    }

    fn running(&self, pid: i32) {
        let mut status = lock(&self.status);
        (status.running, status.pid) = (true, pid);
    }

    fn ended(&self, code: i32) {
        let mut status = lock(&self.status);
        (status.running, status.finished, status.exit_code, status.pid) = (false, true, code, 0);
        *lock(&self.ended_at) = Some(Instant::now());
    }
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
        let dir = container.dir.join("execs").join(&spec.exec_id);
        std::fs::create_dir_all(&dir).map_err(crate::commit::io)?;
        write(&dir.join(SPEC_FILE), &spec.encode_to_vec())?;
        let id = spec.exec_id.clone();
        let mut execs = lock(&self.execs);
        execs.retain(|_, exec| {
            let old = lock(&exec.ended_at).is_some_and(|ended| ended.elapsed() > KEPT);
            if old {
                let _ = std::fs::remove_dir_all(&exec.dir);
            }
            !old
        });
        execs.insert(id, Arc::new(Exec::new(spec, dir)));
        Ok(proto::Empty {})
    }

    pub fn exec(&self, id: &str) -> Result<Arc<Exec>, Error> {
        lock(&self.execs).get(id).cloned().ok_or_else(|| Error::not_found(format!("No such exec instance: {id}")))
    }

    pub fn exec_inspect(&self, request: &ExecRef) -> Result<ExecStatus, Error> {
        Ok(lock(&self.exec(&request.exec_id)?.status).clone())
    }

    /// One that nobody will ask for.
    pub fn forget_exec(&self, id: &str) {
        if let Some(exec) = lock(&self.execs).remove(id) {
            let _ = std::fs::remove_dir_all(&exec.dir);
        }
    }

    /// Those of a container that starts anew or goes.
    pub fn forget_execs(&self, container: &Container) {
        let id = container.status().id;
        lock(&self.execs).retain(|_, exec| {
            let own = exec.spec.container_id == id;
            if own {
                let _ = std::fs::remove_dir_all(&exec.dir);
            }
            !own
        });
    }

    /// Starts the process; what clients are to see of a failure goes to them, as Docker does it.
    pub async fn exec_start(self: &Arc<Self>, request: ExecStart) -> Result<ExecStartReply, Error> {
        let exec = self.exec(&request.exec_id)?;
        let container = self.container(&exec.spec.container_id)?;
        let shim = Arc::new(self.exec_shim(&exec, &container, &request).await?);
        *lock(&exec.shim) = Some(shim.clone());
        let mut client = None;
        if request.ticket.is_some() {
            let (stdin, stdout, stderr) = (exec.spec.attach_stdin, exec.spec.attach_stdout, exec.spec.attach_stderr);
            let joined = shim.attach(Streams { stdin, stdout, stderr }).await.map_err(runtime_error)?;
            client = Some((crate::attach::dial(request.ticket).await?, joined));
        }
        let started = shim.start().await;
        let reply = |exec: &Exec| ExecStartReply { status: Some(lock(&exec.status).clone()), events: Vec::new() };
        match (started, client) {
            (Ok(started), client) => {
                exec.running(started.pid);
                if let Some((duplex, joined)) = client {
                    // A client asks for the exit code as soon as the output has ended.
                    let (ended, dir) = (exec.clone(), exec.dir.clone());
                    let at_end = move || {
                        if let Some(end) = shim::exit_status(&dir) {
                            ended.ended(end.code);
                        }
                    };
                    tokio::spawn(crate::attach::pump(duplex, joined, at_end));
                }
                let answer = reply(&exec);
                self.watch_exec(exec, container, shim);
                Ok(answer)
            }
            (Err(error), client) => {
                exec.ended(error.exit_code());
                let error = runtime_error(error);
                let Some((mut duplex, _)) = client else { return Err(error) };
                let text = format!("{}\r\n", error.message());
                let mut bytes = Vec::with_capacity(text.len() + 8);
                if !exec.spec.tty {
                    bytes.extend_from_slice(&frame_header(1, text.len() as u32));
                }
                bytes.extend_from_slice(text.as_bytes());
                let _ = duplex.writer.send(Bytes::from(bytes)).await;
                let _ = duplex.writer.finish().await;
                Ok(reply(&exec))
            }
        }
    }

    pub async fn exec_shim(&self, exec: &Exec, container: &Container, request: &ExecStart) -> Result<Handle, Error> {
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
        let mut config = self.shim_config(container);
        config.tty = exec.spec.tty;
        config.open_stdin = exec.spec.attach_stdin;
        config.stdin_once = true;
        config.log = None;
        config.exec = Some(process);
        config.tty_size = (request.height as u16, request.width as u16);
        let spawn = Spawn { shim_binary: self.shim_binary.clone(), dir: exec.dir.clone(), config };
        spawn.spawn().await.map_err(runtime_error)
    }

    fn watch_exec(self: &Arc<Self>, exec: Arc<Exec>, container: Arc<Container>, shim: Arc<Handle>) {
        let node = self.clone();
        tokio::spawn(async move {
            let code = shim.wait_exit().await.map_or(137, |end| end.code);
            exec.ended(code);
            *lock(&exec.shim) = None;
            let attributes = [("execID", exec.spec.exec_id.clone()), ("exitCode", code.to_string())];
            node.tell(&container, "exec_die", &attributes);
        });
    }

    /// Finds a container's execs again; ends that were missed are told. Of a look at its health nobody waits for the
    /// end any more: it is ended.
    pub fn rescan_execs(self: &Arc<Self>, container: &Arc<Container>) {
        for folder in std::fs::read_dir(container.dir.join("execs")).into_iter().flatten().flatten() {
            let dir = folder.path();
            let Some(spec) = read(&dir) else {
                let _ = std::fs::remove_dir_all(dir);
                continue;
            };
            if dir.join(LOOK_FILE).exists() {
                tokio::spawn(end_look(container.clone(), dir));
                continue;
            }
            let exec = Arc::new(Exec::new(spec, dir.clone()));
            lock(&self.execs).insert(exec.spec.exec_id.clone(), exec.clone());
            let Some(started) = shim::started(&dir) else {
                // Asked for and not started yet, or it could not start.
                if let Some(end) = shim::exit_status(&dir) {
                    exec.ended(end.code);
                }
                continue;
            };
            // Without a shim it ends at once, by its recorded status or as killed.
            let handle = Arc::new(shim::adopt(&dir).unwrap_or_else(|| Handle::gone(&dir)));
            exec.running(started.pid);
            *lock(&exec.shim) = Some(handle.clone());
            self.watch_exec(exec, container.clone(), handle);
        }
    }
}

/// Kills what a look that an earlier node began has started, and removes its folder.
async fn end_look(container: Arc<Container>, dir: PathBuf) {
    // A removal would move the folder away.
    let _busy = container.busy.lock().await;
    if let Some(shim) = shim::adopt(&dir) {
        crate::stop::end(&shim).await;
    }
    let _ = std::fs::remove_dir_all(dir);
}

fn read(dir: &Path) -> Option<ExecSpec> {
    ExecSpec::decode(std::fs::read(dir.join(SPEC_FILE)).ok()?.as_slice()).ok()
}
