//! RUN: a command in a container on the step's layers.

use runtime::bundle::Seccomp;

use super::Executor;
use crate::container::{Container, Ran, Task, bind};
use crate::failure::{Doing as _, Failure};
use crate::halt;
use crate::heredocs::write_script;
use crate::layers::blocking;
use crate::lifeline::Lifeline;
use crate::output::Output;
use crate::tree::Tree;

/// A step's machine has this name, as with BuildKit.
const HOSTNAME: &str = "buildkitsandbox";
/// Where scripts of heredocs are, as with BuildKit.
const SCRIPTS: &str = "/dev/pipes";

impl Executor {
    /// Gives what the command failed with, where it has failed by itself; the tree is as it left it.
    pub(super) async fn run(
        &self,
        tree: &Tree,
        run: &proto::RunOperation,
        lifeline: Lifeline,
        output: &mut impl Output,
    ) -> Result<Option<Failure>, Failure> {
        let id = hex::encode(rand::random::<[u8; 32]>());
        let build = self.worker.machine.build_folder(&self.folder);
        let (network, mounted) =
            tokio::join!(self.worker.machine.networks.join(&run.network, &id, &build), self.mounts(tree, run));
        let (network, mut mounted) = (network?.named(HOSTNAME), mounted?);
        let mut resources = run.resources.clone().unwrap_or_default();
        resources.ulimits.extend(run.ulimits.iter().map(|text| ulimit(text)).collect::<Result<Vec<_>, _>>()?);
        let mut mounts = std::mem::take(&mut mounted.mounts);
        for script in &run.scripts {
            let file = tree.folder().join("script");
            write_script(&file, &script.content).doing(|| "writing a step's script".to_owned())?;
            let mount = bind(file, format!("{SCRIPTS}/{}", script.name));
            mounts.push(runtime::bundle::Mount { read_only: true, ..mount });
        }
        let insecure = run.security == "insecure";
        let task = Task {
            id,
            build_id: self.build_id.clone(),
            lifeline: Some(lifeline),
            args: run.args.clone(),
            env: [&run.env[..], &mounted.env[..]].concat(),
            cwd: run.cwd.clone(),
            user: run.user.clone(),
            passing: mounts.iter().map(|mount| mount.target.clone()).collect(),
            mounts,
            resources,
            extra_hosts: run.extra_hosts.clone(),
            shm_bytes: run.shm_bytes,
            seccomp: if insecure { Seccomp::Unconfined } else { Seccomp::Docker },
            privileged: insecure,
            mark: false,
            gone: mounted.begin(),
        };
        let container = Container { machine: &self.worker.machine, tree, network: &network };
        let command = run.args.join(" ");
        let ran = container.run(&task, output, halt::cancelled()).await;
        drop(mounted);
        let Ran { artefacts, exit, .. } = ran.map_err(|error| match error {
            Failure::User(why) => not_completed(&command, &why),
            other => other,
        })?;
        let failed = match (exit.code, exit.oom) {
            (0, _) => None,
            // It may have enough in another build.
            (_, true) => Some(not_completed(&command, "cannot allocate memory")),
            (code, false) => Some(Failure::Process { command, code }),
        };
        tree.unmount()?;
        let upper = tree.upper();
        blocking(move || artefacts.remove(&upper).doing(|| "tidying a step's layer".to_owned())).await?;
        Ok(failed)
    }
}

/// In BuildKit's words.
fn not_completed(command: &str, why: &str) -> Failure {
    Failure::user(format!("process {} did not complete successfully: {why}", dockerfile::quote(command)))
}

/// `nofile=1024:2048`, or one number for both.
fn ulimit(text: &str) -> Result<proto::Ulimit, Failure> {
    let wrong = || Failure::user(format!("invalid ulimit argument: {text}"));
    let (name, limits) = text.split_once('=').ok_or_else(wrong)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| text.parse::<i64>().map_err(|_| wrong());
    Ok(proto::Ulimit { name: name.to_owned(), soft: number(soft)?, hard: number(hard)? })
}
