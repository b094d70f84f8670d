//! A step's container: its bundle, its shim, what it prints and how it ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use runtime::bundle::{self, BundleSpec, Mount, ProcessSpec, Resources, Rlimit, Seccomp};
use runtime::shim::{ExitStatus, Handle, ShimConfig, Spawn, Streams};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::artefacts::Artefacts;
use crate::failure::{Doing as _, Failure};
use crate::layers::blocking;
use crate::lifeline::Lifeline;
use crate::machine::Machine;
use crate::network::StepNetwork;
use crate::output::{self, Output};
use crate::space;
use crate::tree::Tree;

/// How long a cancelled step's processes may take to die.
const KILL_TIME: Duration = Duration::from_secs(2);

/// A command to run.
#[derive(Default)]
pub struct Task {
    pub id: String,
    /// Whose limits of processor and memory hold for all its steps on this worker together.
    pub build_id: String,
    /// Without one it runs as long as this worker lives, stopped or cut off as it may be.
    pub lifeline: Option<Lifeline>,
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    pub user: String,
    pub mounts: Vec<Mount>,
    /// Of these mounts, whose mount points go again where the image lacks them.
    pub passing: Vec<String>,
    pub resources: proto::Resources,
    pub extra_hosts: Vec<String>,
    pub shm_bytes: u64,
    pub seccomp: Seccomp,
    /// All rights of the machine's root.
    pub privileged: bool,
    /// The root has Docker's mark of a container, and its variables the machine's name.
    pub mark: bool,
    /// Cancelled when nothing of it runs any more, however long that takes.
    pub gone: CancellationToken,
}

/// A command that ran to its end.
pub struct Ran {
    pub artefacts: Artefacts,
    pub started_at_ns: i64,
    pub exit: ExitStatus,
}

/// A command's processes. When this is dropped they are killed, and told to be gone when they are.
struct Process {
    handle: Arc<Handle>,
    gone: Option<DropGuard>,
}

impl Process {
    /// Kills what there is of them; ends when they are gone.
    fn kill(&mut self) -> Option<JoinHandle<()>> {
        let (handle, gone) = (self.handle.clone(), self.gone.take()?);
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        Some(runtime.spawn(async move {
            let _ = handle.signal(nix::sys::signal::Signal::SIGKILL as i32).await;
            handle.wait_gone().await;
            drop(gone);
        }))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where a command runs.
pub struct Container<'a> {
    pub machine: &'a Machine,
    pub tree: &'a Tree,
    pub network: &'a StepNetwork,
}

impl Container<'_> {
    /// Runs to the end, or until nobody wants it or the disk is full; nothing of it runs on then.
    ///
    /// # Errors
    /// `User` for a command that cannot be started, `Cancelled` where `unwanted` came first, `CutOff` where its lifeline
    /// did not hold.
    pub async fn run(
        &self,
        task: &Task,
        output: &mut impl Output,
        unwanted: impl Future<Output = ()>,
    ) -> Result<Ran, Failure> {
        let gone = task.gone.clone().drop_guard();
        let bundle = self.tree.folder().join("b");
        let group = self.machine.groups.of(&task.build_id, &limits(&task.resources))?;
        let cgroup_path = group.of_step(&task.id);
        let mut mounts = self.network.files(self.tree.folder(), &task.extra_hosts).await?;
        let (root, mark) = (self.tree.root(), task.mark);
        let targets: Vec<String> =
            mounts.iter().map(|mount| mount.target.clone()).chain(task.passing.iter().cloned()).collect();
        let artefacts = blocking(move || {
            let prepared = Artefacts::prepare(&root, &targets).and_then(|mut artefacts| {
                if mark {
                    artefacts.mark(&root)?;
                }
                Ok(artefacts)
            });
            prepared.doing(|| "preparing a step's root".to_owned())
        })
        .await?;
        mounts.extend(task.mounts.iter().cloned());
        let (spec, at) = (self.spec(task, mounts, &cgroup_path), bundle.clone());
        blocking(move || bundle::write(&at, &spec).map_err(start_error)).await?;
        let handle = Arc::new(self.spawn(task, bundle, cgroup_path).await?);
        let mut process = Process { handle: handle.clone(), gone: Some(gone) };
        let streams = Streams { stdin: false, stdout: true, stderr: true };
        let stream = handle.attach(streams).await.map_err(start_error)?;
        let started_at_ns = match handle.start().await {
            Ok(started) => started.started_at_ns,
            Err(error) => {
                handle.wait_gone().await;
                return Err(start_error(error));
            }
        };
        let cut_off = async {
            match task.lifeline.clone() {
                Some(mut lifeline) => lifeline.hold(&handle).await,
                None => std::future::pending().await,
            }
        };
        let work = async {
            output::pump(stream, output).await?;
            handle.wait_exit().await.map_err(start_error)
        };
        let ended = tokio::select! {
            ended = work => ended,
            () = unwanted => Err(Failure::Cancelled),
            () = cut_off => Err(Failure::CutOff),
            () = space::exhausted(self.tree.folder()) => {
                Err(nix::errno::Errno::ENOSPC.into()).doing(|| "running a step".to_owned())
            }
        };
        if ended.is_ok() {
            handle.wait_gone().await;
            process.gone = None;
        } else if let Some(killing) = process.kill()
            && tokio::time::timeout(KILL_TIME, killing).await.is_err()
        {
            tracing::warn!(container_id = task.id, "a step's container does not end");
        }
        match ended? {
            exit if exit.expired => Err(Failure::CutOff),
            exit => Ok(Ran { artefacts, started_at_ns, exit }),
        }
    }

    async fn spawn(&self, task: &Task, bundle: PathBuf, cgroup_path: String) -> Result<Handle, Failure> {
        let config = ShimConfig {
            runtime_binary: self.machine.runtime_binary.clone(),
            runtime_root: self.machine.runtime_root.clone(),
            id: task.id.clone(),
            bundle,
            tty: false,
            open_stdin: false,
            stdin_once: false,
            log: None,
            watch: true,
            deadline_ms: task.lifeline.as_ref().map_or(0, |line| line.deadline().as_millis() as u64),
            exec: None,
            cgroup_path,
            tty_size: (0, 0),
        };
        let dir = self.tree.folder().join("shim");
        let spawn = Spawn { shim_binary: self.machine.shim_binary.clone(), dir, config };
        spawn.spawn().await.map_err(start_error)
    }

    fn spec(&self, task: &Task, mounts: Vec<Mount>, cgroup_path: &str) -> BundleSpec {
        let rlimit = |limit: &proto::Ulimit| Rlimit { name: limit.name.clone(), soft: limit.soft, hard: limit.hard };
        BundleSpec {
            rootfs: self.tree.root(),
            hostname: self.network.hostname(),
            process: ProcessSpec {
                args: task.args.clone(),
                env: task.env.clone(),
                cwd: task.cwd.clone(),
                user: task.user.clone(),
                rlimits: task.resources.ulimits.iter().map(rlimit).collect(),
                hides_hostname: !task.mark,
                ..ProcessSpec::default()
            },
            mounts,
            resources: limits(&task.resources),
            network: self.network.namespace(),
            shm_bytes: task.shm_bytes,
            seccomp: task.seccomp.clone(),
            privileged: task.privileged,
            cgroup_path: cgroup_path.to_owned(),
            ..BundleSpec::default()
        }
    }
}

/// A bind mount that may be written to.
pub fn bind(source: PathBuf, target: String) -> Mount {
    let (propagation, options) = (String::new(), Vec::new());
    Mount { kind: "bind".to_owned(), source, target, read_only: false, propagation, options }
}

fn start_error(error: runtime::Error) -> Failure {
    Failure::user(error.to_string())
}

/// The limits of a step's own control group.
pub fn limits(resources: &proto::Resources) -> Resources {
    Resources {
        memory_bytes: resources.memory_bytes,
        memory_reservation_bytes: resources.memory_reservation_bytes,
        memory_swap_bytes: resources.memory_swap_bytes,
        memory_swappiness: resources.memory_swappiness,
        oom_kill_disable: resources.oom_kill_disable,
        nano_cpus: resources.nano_cpus,
        cpu_shares: resources.cpu_shares,
        cpu_period_us: resources.cpu_period_us,
        cpu_quota_us: resources.cpu_quota_us,
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        pids_limit: resources.pids_limit,
        blkio_weight: u16::try_from(resources.blkio_weight).unwrap_or(0),
        ..Resources::default()
    }
}
