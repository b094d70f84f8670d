//! RUN: a container on the stage's layers.

use std::path::Path;

use dockerfile::Run;
use runtime::bundle::{Mount, Seccomp};

use super::files::needs_buildkit;
use super::share::Begun;
use super::stage::Stage;
use super::stays::Ended;
use super::steps::{Outcome, container_id};
use super::{Builder, Progress};
use crate::claims::Claim;
use crate::container::{Container, Ran, Task, bind};
use crate::copy::transfer::Transfer;
use crate::failure::{Doing as _, Failure};
use crate::flight;
use crate::halt;
use crate::handover::Changes;
use crate::heredocs::{Script, script, with_heredocs, write_script};
use crate::image::{self, resolve};
use crate::layers::{Unchanged, blocking};
use crate::output::Coloured;
use crate::rooted::{Root, clean, is_dir};
use crate::tree::Tree;

/// Docker's exit code of a container whose command could not be started.
const NOT_STARTED: i32 = 127;

/// A command that is to be run, as the step's line in the history and as its process see it.
struct Command {
    line: Vec<String>,
    args: Vec<String>,
    script: Option<Script>,
    /// What it has besides its image's environment.
    env: Vec<String>,
    network_mode: String,
}

/// The script's file, as a mount.
fn script_mount(script: &Script, folder: &Path) -> std::io::Result<Mount> {
    let source = folder.join("script");
    write_script(&source, script.content.as_bytes())?;
    Ok(Mount { read_only: true, ..bind(source, script.target()) })
}

impl Builder {
    pub(super) async fn run_step(&self, progress: &Progress, stage: &mut Stage, run: Run) -> Result<(), Failure> {
        loop {
            match self.try_run_step(progress, stage, run.clone()).await {
                // The bus is there again, or another has the claim now.
                Err(error @ Failure::CutOff) if !self.cancel.is_cancelled() => {
                    self.log.stream(&format!("{error}, and begins anew\n")).await?;
                }
                other => return other,
            }
        }
    }

    async fn try_run_step(&self, progress: &Progress, stage: &mut Stage, run: Run) -> Result<(), Failure> {
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
        let command = Command {
            line: command,
            args: script.as_ref().map_or(shown, |script| vec![script.target()]),
            script,
            env: pairs.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            network_mode: run.network.unwrap_or_else(|| self.options.network_mode.clone()),
        };
        let unwanted = self.unwanted(claim.as_ref());
        halt::until(unwanted, self.run_command(stage, command, claim)).await
    }

    async fn run_command(&self, stage: &mut Stage, command: Command, claim: Option<Claim>) -> Result<(), Failure> {
        let Command { line, args, script, env: given, network_mode } = command;
        let id = container_id();
        self.print_running(&id).await?;
        let env = stage.config.env.iter().chain(&given).cloned().collect();
        let build = self.machine.build_folder(&self.build_id);
        let (tree, network) = tokio::join!(self.mount(stage), self.machine.networks.join(&network_mode, &id, &build));
        let (tree, network) = (tree?, network?);
        let mut mounts = self.volumes(stage, &tree).await?;
        if let Some(script) = &script {
            mounts.push(script_mount(script, tree.folder()).doing(|| "writing a step's script".to_owned())?);
        }
        let task = Task {
            id: id.clone(),
            build_id: self.build_id.clone(),
            lifeline: Some(claim.as_ref().map_or_else(|| self.lease.lifeline(), |claim| claim.flight.claim.lifeline())),
            args,
            env,
            cwd: stage.config.working_dir.clone(),
            user: stage.config.user.clone(),
            mounts,
            resources: self.options.resources.clone().unwrap_or_default(),
            extra_hosts: self.options.extra_hosts.clone(),
            shm_bytes: self.options.shm_bytes,
            seccomp: seccomp(&self.options.security_opt)?,
            mark: true,
            ..Task::default()
        };
        let container = Container { machine: &self.machine, tree: &tree, network: &network };
        let ran = container.run(&task, &mut Coloured::new(&self.log), halt::cancelled()).await;
        let mut ended = Ended { env: given, ..Ended::never_ran(&id, &task.args) };
        let failure = match ran {
            Ok(Ran { artefacts, started_at_ns, exit }) => {
                (ended.started_at_ns, ended.finished_at_ns) = (started_at_ns, exit.finished_at_ns);
                ended.exit_code = exit.code;
                tree.unmount()?;
                let upper = tree.upper();
                blocking(move || artefacts.remove(&upper).doing(|| "tidying a step's layer".to_owned())).await?;
                if exit.code == 0 {
                    let made = tree.into_layer(&self.layers, Unchanged::NoLayer).await?;
                    return self.record_container(stage, &line, ended, Outcome { made, claim }).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_options() {
        let options = |text: &str| seccomp(&[text.to_owned()]);
        assert!(matches!(options("seccomp=unconfined"), Ok(Seccomp::Unconfined)));
        assert!(matches!(options("label=disable"), Ok(Seccomp::Docker)));
        assert!(options("whatever").is_err());
    }
}
