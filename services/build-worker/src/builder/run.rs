//! RUN: a container on the stage's layers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dockerfile::{Command, Heredoc, Run};
use runtime::bundle::{self, BundleSpec, Mount, ProcessSpec, Resources, Rlimit, Seccomp};
use runtime::shim::{ExitStatus, ShimConfig, Spawn, Streams};

use super::files::needs_buildkit;
use super::metadata::resolve;
use super::share::Begun;
use super::stage::Stage;
use super::stays::Ended;
use super::steps::{Outcome, container_id};
use super::tree::Tree;
use super::{Builder, Progress, output};
use crate::artefacts::Artefacts;
use crate::claims::Claim;
use crate::copy::transfer::Transfer;
use crate::failure::{Doing as _, Failure};
use crate::flight;
use crate::handover::Changes;
use crate::image;
use crate::layers::blocking;
use crate::network::StepNetwork;
use crate::rooted::{Root, clean, is_dir};
use crate::space;

/// How long a cancelled step's processes may take to die.
const KILL_TIME: Duration = Duration::from_secs(2);
/// Docker's exit code of a container whose command could not be started.
const NOT_STARTED: i32 = 127;

/// A command to run in a container of a stage.
struct Task<'a> {
    id: &'a str,
    args: Vec<String>,
    env: Vec<String>,
    network: StepNetwork,
    script: Option<Script>,
}

/// A command that ran to its end.
struct Ran {
    artefacts: Artefacts,
    started_at_ns: i64,
    exit: ExitStatus,
}

/// A heredoc that names its own interpreter (`#!`): a file in the container, run as it is.
struct Script {
    name: String,
    content: String,
}

impl Script {
    /// Where BuildKit puts it as well.
    fn target(&self) -> String {
        format!("/dev/pipes/{}", self.name)
    }

    fn mount(&self, folder: &Path) -> std::io::Result<Mount> {
        use std::os::unix::fs::PermissionsExt as _;
        let source = folder.join("script");
        std::fs::write(&source, &self.content)?;
        std::fs::set_permissions(&source, std::fs::Permissions::from_mode(0o755))?;
        Ok(Mount { read_only: true, ..bind(source, self.target()) })
    }
}

impl Builder {
    pub(super) async fn run_step(&self, progress: &Progress, stage: &mut Stage, run: Run) -> Result<(), Failure> {
        if let Some(flag) = run.buildkit_flag() {
            return Err(needs_buildkit(flag));
        }
        let arguments = &progress.arguments;
        let script = script(&run.command, &run.heredocs);
        let shown = resolve(with_heredocs(run.command, &run.heredocs), image::shell(&stage.config));
        let pairs = arguments.environment(|name| image::variable(&stage.config, name).is_some());
        let counted: Vec<String> = pairs
            .iter()
            .filter(|(name, _)| arguments.counts(name))
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mut command = Vec::new();
        if !counted.is_empty() {
            command.push(format!("|{}", counted.len()));
            command.extend(counted);
        }
        command.extend(shown.iter().cloned());
        let Begun::Mine(claim) = self.begin_step(progress, stage, &command).await? else { return Ok(()) };
        let mode = run.network.unwrap_or_else(|| self.options.network_mode.clone());
        let id = container_id();
        self.print_running(&id).await?;
        let given: Vec<String> = pairs.iter().map(|(n, v)| format!("{n}={v}")).collect();
        let env = stage.config.env.iter().chain(&given).cloned().collect();
        let build = self.machine.build_folder(&self.build_id);
        let (tree, network) = tokio::join!(Tree::mount(self, stage), self.machine.networks.join(&mode, &id, &build));
        let (tree, network) = (tree?, network?);
        let args = match &script {
            Some(script) => vec![script.target()],
            None => shown,
        };
        let task = Task { id: &id, args, env, network, script };
        let ran = self.run_task(stage, &tree, &task, claim.as_ref()).await;
        let mut ended = Ended { env: given, ..Ended::never_ran(&id, &task.args) };
        let failure = match ran {
            Ok(Ran { artefacts, started_at_ns, exit }) => {
                (ended.started_at_ns, ended.finished_at_ns) = (started_at_ns, exit.finished_at_ns);
                ended.exit_code = exit.code;
                tree.unmount()?;
                let upper = tree.upper();
                blocking(move || artefacts.remove(&upper).doing(|| "tidying a step's layer".to_owned())).await?;
                if exit.code == 0 {
                    let made = tree.into_layer(self, stage).await?;
                    return self.record_container(stage, &command, ended, Outcome { made, claim }).await;
                }
                let (command, code) = (task.args.join(" "), exit.code);
                // What ran out of this build's memory may have enough in another.
                if let Some(claim) = claim.filter(|_| !exit.oom) {
                    claim.end(flight::Ended::Command { command: command.clone(), code });
                }
                Failure::Command { command, code }
            }
            Err(error @ Failure::User(_)) => {
                ended.exit_code = NOT_STARTED;
                error
            }
            Err(error) => return Err(error),
        };
        if self.options.force_remove {
            self.print_removed(&id).await?;
        } else {
            let changes = (ended.started_at_ns != 0).then(|| Changes::Upper(tree.upper()));
            self.keep(stage, ended, changes).await?;
        }
        Err(failure)
    }

    async fn run_task(
        &self,
        stage: &Stage,
        tree: &Tree,
        task: &Task<'_>,
        claim: Option<&Claim>,
    ) -> Result<Ran, Failure> {
        let bundle = tree.folder().join("b");
        let cgroup_path = format!("/boxyard-{}/{}", self.machine.instance, task.id);
        let (root, files) = (tree.root(), task.network.files(tree.folder(), &self.options.extra_hosts)?);
        let targets: Vec<String> = files.iter().map(|mount| mount.target.clone()).collect();
        let artefacts =
            blocking(move || Artefacts::prepare(&root, &targets).doing(|| "preparing a step's root".to_owned()))
                .await?;
        let mut mounts = files;
        mounts.extend(self.volumes(stage, tree).await?);
        if let Some(script) = &task.script {
            mounts.push(script.mount(tree.folder()).doing(|| "writing a step's script".to_owned())?);
        }
        let spec = self.bundle(stage, tree, task, mounts, &cgroup_path)?;
        let at = bundle.clone();
        blocking(move || bundle::write(&at, &spec).map_err(start_error)).await?;
        let spawn = Spawn {
            shim_binary: self.machine.shim_binary.clone(),
            dir: tree.folder().join("shim"),
            config: ShimConfig {
                runtime_binary: self.machine.runtime_binary.clone(),
                runtime_root: self.machine.runtime_root.clone(),
                id: task.id.to_owned(),
                bundle,
                tty: false,
                open_stdin: false,
                stdin_once: false,
                log: None,
                watch: true,
                exec: None,
                cgroup_path,
                tty_size: (0, 0),
            },
        };
        let handle = spawn.spawn().await.map_err(start_error)?;
        let streams = Streams { stdin: false, stdout: true, stderr: true };
        let stream = handle.attach(streams).await.map_err(start_error)?;
        let started_at_ns = match handle.start().await {
            Ok(started) => started.started_at_ns,
            Err(error) => {
                handle.wait_gone().await;
                return Err(start_error(error));
            }
        };
        let work = async {
            output::pump(stream, &self.log).await?;
            handle.wait_exit().await.map_err(start_error)
        };
        let ended = tokio::select! {
            ended = work => ended,
            () = self.unwanted(claim) => Err(Failure::Cancelled),
            () = space::exhausted(tree.folder()) => Err(nix::errno::Errno::ENOSPC.into()).doing(|| "running a step".to_owned()),
        };
        if ended.is_err() {
            let _ = handle.signal(nix::sys::signal::Signal::SIGKILL as i32).await;
            if tokio::time::timeout(KILL_TIME, handle.wait_gone()).await.is_err() {
                tracing::warn!(container_id = task.id, "a step's container does not end");
            }
        } else {
            handle.wait_gone().await;
        }
        ended.map(|exit| Ran { artefacts, started_at_ns, exit })
    }

    /// Returns when the step is to end before its time: its build is, and nobody follows it whom that concerns not.
    async fn unwanted(&self, claim: Option<&Claim>) {
        self.cancel.cancelled().await;
        if let Some(claim) = claim.filter(|_| self.gone.is_cancelled()) {
            tokio::select! {
                () = claim.flight.unfollowed() => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    fn bundle(
        &self,
        stage: &Stage,
        tree: &Tree,
        task: &Task<'_>,
        mounts: Vec<Mount>,
        cgroup_path: &str,
    ) -> Result<BundleSpec, Failure> {
        let resources = self.options.resources.clone().unwrap_or_default();
        Ok(BundleSpec {
            rootfs: tree.root(),
            hostname: task.network.hostname(),
            process: ProcessSpec {
                args: task.args.clone(),
                env: task.env.clone(),
                cwd: stage.config.working_dir.clone(),
                user: stage.config.user.clone(),
                rlimits: resources
                    .ulimits
                    .iter()
                    .map(|limit| Rlimit { name: limit.name.clone(), soft: limit.soft, hard: limit.hard })
                    .collect(),
                ..ProcessSpec::default()
            },
            mounts,
            resources: limits(&resources),
            network: task.network.namespace(),
            shm_bytes: self.options.shm_bytes,
            seccomp: seccomp(&self.options.security_opt)?,
            cgroup_path: cgroup_path.to_owned(),
            ..BundleSpec::default()
        })
    }

    /// A new volume for each one of the image, with what the image has there. It is gone after the step.
    async fn volumes(&self, stage: &Stage, tree: &Tree) -> Result<Vec<Mount>, Failure> {
        let targets: Vec<String> = stage.config.volumes.keys().cloned().collect();
        let (root, folder) = (tree.root(), tree.folder().join("v"));
        blocking(move || {
            let from = Root::open(&root).doing(|| "opening a step's root".to_owned())?;
            let mut mounts = Vec::new();
            for (number, target) in targets.into_iter().enumerate() {
                let source = folder.join(number.to_string());
                fill_volume(&from, &target, &source).doing(|| format!("preparing volume {target}"))?;
                mounts.push(bind(source, Path::new("/").join(clean(Path::new(&target))).display().to_string()));
            }
            Ok(mounts)
        })
        .await
    }
}

fn fill_volume(from: &Root, target: &str, source: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir_all(source)?;
    let path = clean(Path::new(target));
    let Ok(stat) = from.stat(&path) else {
        return Ok(());
    };
    if !is_dir(&stat) {
        return Ok(());
    }
    let to = Root::open(source)?;
    Transfer { from, to: &to, owner: None, disk: source, mode: None }.folder(&path, Path::new(""))?;
    std::os::unix::fs::chown(source, Some(stat.st_uid), Some(stat.st_gid))?;
    std::fs::set_permissions(source, std::fs::Permissions::from_mode(stat.st_mode & 0o7777))
}

pub(crate) fn bind(source: PathBuf, target: String) -> Mount {
    let (propagation, options) = (String::new(), Vec::new());
    Mount { kind: "bind".to_owned(), source, target, read_only: false, propagation, options }
}

/// Whether a RUN is nothing but one heredoc.
fn only_heredoc<'a>(command: &Command, heredocs: &'a [Heredoc]) -> Option<&'a Heredoc> {
    match (command, heredocs) {
        (Command::Shell(Some(line)), [only])
            if line.trim_start().starts_with("<<") && !line.trim().contains(char::is_whitespace) =>
        {
            Some(only)
        }
        _ => None,
    }
}

fn script(command: &Command, heredocs: &[Heredoc]) -> Option<Script> {
    let only = only_heredoc(command, heredocs).filter(|heredoc| heredoc.content.starts_with("#!"))?;
    Some(Script { name: only.name.clone(), content: only.content.clone() })
}

/// A RUN that is nothing but a heredoc runs its content; else the shell reads the heredocs itself.
fn with_heredocs(command: Command, heredocs: &[Heredoc]) -> Command {
    if let Some(only) = only_heredoc(&command, heredocs) {
        return Command::Shell(Some(only.content.clone()));
    }
    match command {
        Command::Shell(Some(mut line)) => {
            for heredoc in heredocs {
                line.push_str(&format!("\n{}{}", heredoc.content, heredoc.name));
            }
            Command::Shell(Some(line))
        }
        other => other,
    }
}

fn start_error(error: runtime::Error) -> Failure {
    Failure::user(error.to_string())
}

fn seccomp(options: &[String]) -> Result<Seccomp, Failure> {
    let mut seccomp = Seccomp::Docker;
    for option in options {
        match option.split_once(['=', ':']) {
            Some(("seccomp", "unconfined")) => seccomp = Seccomp::Unconfined,
            // There is no such module to be told.
            Some(("apparmor" | "label", _)) => {}
            _ => return Err(Failure::user(format!("invalid --security-opt: {option:?}"))),
        }
    }
    Ok(seccomp)
}

fn limits(resources: &proto::Resources) -> Resources {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn heredoc(content: &str) -> Heredoc {
        Heredoc { name: "EOF".into(), content: content.into(), expand: true, strip_tabs: false, descriptor: 0 }
    }

    #[test]
    fn heredocs_of_run() {
        let shell = |text: &str| Command::Shell(Some(text.to_owned()));
        for (line, heredocs, expected) in [
            ("<<EOF", vec![heredoc("a\nb\n")], "a\nb\n"),
            ("cat <<EOF > /x", vec![heredoc("a\n")], "cat <<EOF > /x\na\nEOF"),
            ("echo", vec![], "echo"),
        ] {
            assert!(script(&shell(line), &heredocs).is_none());
            assert_eq!(with_heredocs(shell(line), &heredocs), shell(expected));
        }
        let own = script(&shell("<<EOF"), &[heredoc("#!/bin/python\n")]).expect("a script");
        assert_eq!(own.target(), "/dev/pipes/EOF");
    }

    #[test]
    fn security_options() {
        let options = |text: &str| seccomp(&[text.to_owned()]);
        assert!(matches!(options("seccomp=unconfined"), Ok(Seccomp::Unconfined)));
        assert!(matches!(options("label=disable"), Ok(Seccomp::Docker)));
        assert!(options("whatever").is_err());
    }
}
