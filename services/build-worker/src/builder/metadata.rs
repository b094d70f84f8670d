//! Instructions that change the configuration only.

use std::path::{Path, PathBuf};

use dockerfile::Kind;

use super::share::Begun;
use super::stage::Stage;
use super::stays::Ended;
use super::steps::{Outcome, container_id};
use super::{Builder, Progress};
use crate::claims::Claim;
use crate::failure::Failure;
use crate::halt;
use crate::image::{self, check_signal, health, names, resolve};
use crate::layers::{Unchanged, blocking};
use crate::rooted::{Root, clean};
use crate::{ports, wording};

impl Builder {
    pub(super) async fn metadata_step(
        &self,
        progress: &mut Progress,
        stage: &mut Stage,
        kind: Kind,
    ) -> Result<(), Failure> {
        if let (Kind::Healthcheck(_), Some(previous)) = (&kind, previous_check(stage)) {
            self.log.stream(&format!("Note: overriding previous HEALTHCHECK: {previous}\n")).await?;
        }
        if let Kind::Arg(declarations) = &kind {
            declarations.iter().cloned().for_each(|declaration| progress.arguments.declare(declaration));
        }
        let comment = apply(stage, kind).map_err(Failure::User)?;
        self.comment_step(progress, stage, comment).await
    }

    /// WORKDIR: the folder is made when it is missing, so it may be a layer.
    pub(super) async fn workdir_step(&self, progress: &Progress, stage: &mut Stage, path: &str) -> Result<(), Failure> {
        if path.is_empty() {
            return Err(Failure::user("cannot normalize nothing"));
        }
        let folder = Path::new("/").join(clean(&Path::new(&stage.config.working_dir).join(path)));
        stage.config.working_dir = folder.display().to_string();
        let mut command = image::shell(&stage.config);
        command.push(format!("#(nop) WORKDIR {}", stage.config.working_dir));
        let Begun::Mine(claim) = self.begin_step(progress, stage, &command).await? else { return Ok(()) };
        let unwanted = self.unwanted(claim.as_ref());
        halt::until(unwanted, self.make_folder(stage, folder, (&command, claim))).await
    }

    async fn make_folder(
        &self,
        stage: &mut Stage,
        folder: PathBuf,
        (command, claim): (&[String], Option<Claim>),
    ) -> Result<(), Failure> {
        let tree = self.mount(stage).await?;
        let root = tree.root();
        blocking(move || {
            Root::open(&root).and_then(|root| root.make_dirs(&clean(&folder))).map_err(|error| {
                match error.raw_os_error() {
                    Some(code) if code == nix::errno::Errno::ENOTDIR as i32 => {
                        Failure::user(format!("Cannot mkdir: {} is not a directory", folder.display()))
                    }
                    _ => Failure::user(format!("Cannot mkdir: {}: {error}", folder.display())),
                }
            })
        })
        .await?;
        let container = container_id();
        self.print_running(&container).await?;
        let made = tree.into_layer(&self.layers, Unchanged::NoLayer).await?;
        let container = Ended::never_ran(&container, command);
        self.record_container(stage, command, container, Outcome { made, claim }).await
    }
}

fn previous_check(stage: &Stage) -> Option<String> {
    let test = &stage.config.healthcheck.as_ref()?.test;
    test.first().filter(|kind| *kind != "NONE").map(|_| wording::plain_list(test))
}

/// Changes the configuration; gives the instruction's line in the history.
fn apply(stage: &mut Stage, kind: Kind) -> Result<String, String> {
    let config = &mut stage.config;
    Ok(match kind {
        Kind::Maintainer(name) => {
            let comment = format!("MAINTAINER {name}");
            stage.author = Some(name);
            comment
        }
        Kind::Env(pairs) => {
            pairs.iter().for_each(|(name, value)| image::set_variable(config, name, value));
            format!("ENV{}", wording::pairs(&pairs))
        }
        Kind::Label(pairs) => {
            config.labels.extend(pairs.iter().cloned());
            format!("LABEL{}", wording::pairs(&pairs))
        }
        Kind::Arg(declarations) => {
            let words: Vec<String> = declarations
                .into_iter()
                .map(|declaration| match declaration.default {
                    Some(default) => format!("{}={default}", declaration.name),
                    None => declaration.name,
                })
                .collect();
            format!("ARG {}", words.join(" "))
        }
        Kind::Cmd(command) => {
            let words = resolve(command, image::shell(config));
            let comment = format!("CMD {}", wording::quoted_list(&words));
            config.cmd = Some(words);
            stage.cmd_set = true;
            comment
        }
        Kind::Entrypoint(command) => {
            let words = resolve(command, image::shell(config));
            let comment = format!("ENTRYPOINT {}", wording::quoted_list(&words));
            // An empty one takes the parent's away.
            config.entrypoint = Some(words).filter(|words| !words.is_empty());
            if !stage.cmd_set {
                config.cmd = None;
            }
            comment
        }
        Kind::Expose(words) => {
            let mut ports = Vec::new();
            for word in &words {
                ports.extend(ports::parse(word)?);
            }
            config.exposed_ports.extend(names(ports));
            format!("EXPOSE {}", words.join(" "))
        }
        Kind::Volume(paths) => {
            if paths.iter().any(String::is_empty) {
                return Err("VOLUME specified can not be an empty string".to_owned());
            }
            let comment = format!("VOLUME {}", wording::plain_list(&paths));
            config.volumes.extend(names(paths));
            comment
        }
        Kind::User(user) => {
            let comment = format!("USER {user}");
            config.user = user;
            comment
        }
        Kind::Onbuild(trigger) => {
            let comment = format!("ONBUILD {trigger}");
            config.on_build.push(trigger);
            comment
        }
        Kind::Stopsignal(signal) => {
            check_signal(&signal)?;
            let comment = format!("STOPSIGNAL {signal}");
            config.stop_signal = signal;
            comment
        }
        Kind::Healthcheck(check) => {
            let health = health(check);
            let comment = format!("HEALTHCHECK {}", wording::health(&health));
            config.healthcheck = Some(health);
            comment
        }
        Kind::Shell(words) => {
            let comment = format!("SHELL {}", wording::plain_list(&words));
            config.shell = Some(words);
            comment
        }
        other => return Err(format!("{} is not a configuration instruction", other.name())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dockerfile::parse_instruction;

    fn after(instructions: &[&str]) -> (Stage, Vec<String>) {
        let mut stage = Stage::default();
        let comments = instructions
            .iter()
            .map(|text| apply(&mut stage, parse_instruction(text).expect(text).kind).expect(text))
            .collect();
        (stage, comments)
    }

    /// Lines that dockerd 20.10 wrote for the same instructions.
    #[test]
    fn comments_are_dockers() {
        for (instruction, expected) in [
            ("MAINTAINER a b  c", "MAINTAINER a b  c"),
            ("ENV a b   c", "ENV a=b   c"),
            ("LABEL z=1 a=2", "LABEL z=1 a=2"),
            ("ARG a=1 b", "ARG a=1 b"),
            ("CMD a", "CMD [\"/bin/sh\" \"-c\" \"a\"]"),
            ("CMD", "CMD [\"/bin/sh\" \"-c\"]"),
            ("CMD []", "CMD []"),
            ("ENTRYPOINT [\"q\"]", "ENTRYPOINT [\"q\"]"),
            ("EXPOSE 80 90/udp 100-102", "EXPOSE 100-102 80 90/udp"),
            ("VOLUME /a /b", "VOLUME [/a /b]"),
            ("USER app", "USER app"),
            ("ONBUILD COPY   a    b", "ONBUILD COPY   a    b"),
            ("STOPSIGNAL TERM", "STOPSIGNAL TERM"),
            ("SHELL [\"/bin/sh\", \"-x\", \"-c\"]", "SHELL [/bin/sh -x -c]"),
            ("HEALTHCHECK NONE", "HEALTHCHECK &{[\"NONE\"] \"0s\" \"0s\" \"0s\" \"0s\" '\\x00'}"),
        ] {
            assert_eq!(after(&[instruction]).1, [expected]);
        }
    }

    #[test]
    fn entrypoint_drops_an_inherited_command() {
        let (mut stage, _) = after(&["CMD a"]);
        stage.cmd_set = false;
        apply(&mut stage, parse_instruction("ENTRYPOINT x").expect("legal").kind).expect("applied");
        assert_eq!(stage.config.cmd, None);
        assert!(after(&["CMD a", "ENTRYPOINT x"]).0.config.cmd.is_some());
        assert_eq!(after(&["ENTRYPOINT [\"x\"]", "ENTRYPOINT []"]).0.config.entrypoint, None);
    }
}
