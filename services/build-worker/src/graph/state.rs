//! A stage's image as far as it is evaluated: its configuration, what its commands see, its layers. Pure.

use std::path::Path;

use dockerfile::{ArgDeclaration, Globals, Kind, Lexer, Scope};
use model::Platform;
use oci::{ContainerConfig, History, ImageConfig};

use crate::failure::Failure;
use crate::image::{self, check_signal, health, names, resolve};
use crate::layers::diff_id;
use crate::rooted::clean;
use crate::squash::Base;
use crate::{ports, wording};

/// What BuildKit's frontend writes into the entries of its history.
const COMMENT: &str = "buildkit.dockerfile.v0";

#[derive(Clone, Debug)]
pub struct State {
    pub platform: Platform,
    /// The image's configuration file; entries of the history that have no time yet get it at the end.
    pub file: ImageConfig,
    /// Base layer first.
    pub layers: Vec<proto::Layer>,
    /// The image that was there before.
    pub base: Option<Base>,
    /// What instructions and commands see.
    pub scope: Scope,
    /// A CMD of this stage is not dropped by a later ENTRYPOINT.
    cmd_set: bool,
    /// `SOURCE_DATE_EPOCH`: the time of whatever is made.
    pub epoch: Option<i64>,
}

impl State {
    /// `FROM scratch`.
    pub fn scratch(platform: Platform, epoch: Option<i64>) -> Self {
        let file = ImageConfig {
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
            os: platform.os.clone(),
            config: ContainerConfig { working_dir: "/".to_owned(), ..ContainerConfig::default() },
            ..ImageConfig::default()
        };
        Self { platform, file, layers: Vec::new(), base: None, scope: Scope::default(), cmd_set: false, epoch }.begun()
    }

    /// On an image.
    ///
    /// # Errors
    /// `Internal` for a configuration that cannot be read.
    pub fn on(image: &proto::Image, epoch: Option<i64>) -> Result<Self, Failure> {
        let read = ImageConfig::parse(&image.config)
            .map_err(|error| Failure::internal(format!("configuration of image {}: {error}", image.id)))?;
        // Only what describes the new image itself; the parent's container and builder are its own affair.
        let file = ImageConfig {
            architecture: read.architecture,
            variant: read.variant,
            os: read.os,
            os_version: read.os_version,
            author: read.author,
            config: read.config,
            history: read.history,
            rootfs: read.rootfs,
            ..ImageConfig::default()
        };
        let platform = Platform::new(&file.os, &file.architecture, &file.variant);
        let scratch = Self::scratch(platform, epoch);
        let layers = image.layers.clone();
        let base = Some(Base { id: image.id.clone(), layers: layers.len(), history: file.history.len() });
        Ok(Self { file, base, layers, scope: Scope::default(), ..scratch }.begun())
    }

    /// On a context of files, which has no configuration of its own.
    ///
    /// # Errors
    /// `Internal` for a layer without a digest.
    pub fn of_files(platform: Platform, epoch: Option<i64>, layer: proto::Layer) -> Result<Self, Failure> {
        let mut state = Self::scratch(platform, epoch);
        state.file.rootfs.diff_ids.push(diff_id(&layer)?);
        state.note("COPY / / # buildkit".to_owned());
        if let Some(entry) = state.file.history.last_mut() {
            entry.empty_layer = false;
        }
        state.layers.push(layer);
        Ok(state)
    }

    /// A stage that begins where this one ends: arguments with a value are seen there, too.
    pub fn child(&self) -> Self {
        Self { scope: self.scope.inherited(), cmd_set: false, ..self.clone() }.begun()
    }

    fn begun(mut self) -> Self {
        image::default_path(&mut self.file.config);
        for entry in self.file.config.env.clone() {
            let (name, value) = entry.split_once('=').unwrap_or((&entry, ""));
            self.scope.set(name, value);
        }
        self
    }

    pub fn working_dir(&self) -> &str {
        match self.file.config.working_dir.as_str() {
            "" => "/",
            folder => folder,
        }
    }

    /// WORKDIR: the folder that it leads to.
    pub fn enter(&mut self, path: &str) -> String {
        let folder = Path::new("/").join(clean(&Path::new(self.working_dir()).join(path)));
        self.file.config.working_dir = folder.display().to_string();
        self.file.config.working_dir.clone()
    }

    /// A step that is a layer; `made` is what it made, none where it made nothing.
    ///
    /// # Errors
    /// `Internal` for a layer without a digest.
    pub fn add_layer(&mut self, line: String, record: &proto::StepRecord) -> Result<(), Failure> {
        let created = Some(self.epoch.map_or_else(|| time(record.created_ns), |seconds| time(seconds * 1_000_000_000)));
        for layer in &record.layers {
            self.file.rootfs.diff_ids.push(diff_id(layer)?);
            self.layers.push(layer.clone());
        }
        let empty_layer = record.layers.is_empty();
        self.file.history.push(History {
            created,
            created_by: line,
            comment: COMMENT.to_owned(),
            empty_layer,
            ..History::default()
        });
        Ok(())
    }

    /// A line in the history without a layer.
    pub fn note(&mut self, line: String) {
        let created = self.epoch.map(|seconds| time(seconds * 1_000_000_000));
        self.file.history.push(History {
            created,
            created_by: line,
            comment: COMMENT.to_owned(),
            empty_layer: true,
            ..History::default()
        });
    }

    /// A RUN's line in the history, before its arguments: `|2 A=1 B=2`.
    pub fn arguments_shown(&self) -> Vec<String> {
        let shown = self.scope.arguments();
        let count = (!shown.is_empty()).then(|| format!("|{}", shown.len()));
        count.into_iter().chain(shown).collect()
    }

    /// An ARG of this stage, as it is written: each of its arguments sees those before it.
    ///
    /// # Errors
    /// `User` for a default that cannot be expanded.
    pub fn declare(
        &mut self,
        globals: &Globals,
        lexer: &Lexer,
        declarations: &[ArgDeclaration],
    ) -> Result<(), Failure> {
        let mut line = "ARG".to_owned();
        for declaration in declarations {
            line.push_str(&format!(" {}", declaration.name));
            if let Some(value) = self.scope.declare(declaration, globals, lexer)? {
                line.push_str(&format!("={value}"));
            }
        }
        self.note(line);
        Ok(())
    }

    /// An instruction that changes the configuration only.
    ///
    /// # Errors
    /// `User`, in BuildKit's words.
    pub fn configure(&mut self, kind: Kind) -> Result<(), Failure> {
        let line = self.apply(kind).map_err(Failure::User)?;
        if let Some(line) = line {
            self.note(line);
        }
        Ok(())
    }

    fn apply(&mut self, kind: Kind) -> Result<Option<String>, String> {
        let config = &mut self.file.config;
        Ok(Some(match kind {
            Kind::Maintainer(name) => {
                self.file.author.clone_from(&name);
                format!("MAINTAINER {name}")
            }
            Kind::Env(pairs) => {
                for (name, value) in &pairs {
                    image::set_variable(config, name, value);
                }
                pairs.iter().for_each(|(name, value)| self.scope.set(name, value));
                format!("ENV{}", wording::pairs(&pairs))
            }
            Kind::Label(pairs) => {
                config.labels.extend(pairs.iter().cloned());
                format!("LABEL{}", wording::pairs(&pairs))
            }
            Kind::Cmd(command) => {
                let words = resolve(command, image::shell(config));
                let line = format!("CMD {}", wording::quoted_list(&words));
                (config.cmd, config.args_escaped) = (Some(words), true);
                self.cmd_set = true;
                line
            }
            Kind::Entrypoint(command) => {
                let words = resolve(command, image::shell(config));
                let line = format!("ENTRYPOINT {}", wording::quoted_list(&words));
                config.entrypoint = Some(words).filter(|words| !words.is_empty());
                if !self.cmd_set {
                    config.cmd = None;
                }
                line
            }
            Kind::Expose(words) => {
                let mut ports = Vec::new();
                for word in &words {
                    ports.extend(ports::parse(word)?);
                }
                let line = format!("EXPOSE {}", wording::plain_list(&ports));
                config.exposed_ports.extend(names(ports));
                line
            }
            Kind::Volume(paths) => {
                if paths.iter().any(String::is_empty) {
                    return Err("VOLUME specified can not be an empty string".to_owned());
                }
                let line = format!("VOLUME {}", wording::plain_list(&paths));
                config.volumes.extend(names(paths));
                line
            }
            Kind::User(user) => {
                let line = format!("USER {user}");
                config.user = user;
                line
            }
            // It leaves no line.
            Kind::Onbuild(trigger) => {
                config.on_build.push(trigger);
                return Ok(None);
            }
            Kind::Stopsignal(signal) => {
                check_signal(&signal)?;
                let line = format!("STOPSIGNAL {signal}");
                config.stop_signal = signal;
                line
            }
            Kind::Healthcheck(check) => {
                let health = health(check);
                let line = format!("HEALTHCHECK {}", wording::health(&health));
                config.healthcheck = Some(health);
                line
            }
            Kind::Shell(words) => {
                let line = format!("SHELL {}", wording::plain_list(&words));
                config.shell = Some(words);
                line
            }
            other => return Err(format!("{} is not a configuration instruction", other.name())),
        }))
    }

    /// The exact bytes of the image's configuration. An entry of the history without a time gets that of the entry with
    /// one before it; the first such entries get that of the first new layer.
    pub fn config(&self) -> Vec<u8> {
        let mut file = self.file.clone();
        let first_new = file.history.iter().position(|entry| entry.created.is_none()).unwrap_or_default();
        let (before, after) = file.history.split_at(first_new);
        let with_time = |entry: &History| entry.created.clone();
        let mut time = after.iter().find_map(with_time).or_else(|| before.iter().rev().find_map(with_time));
        for entry in &mut file.history[first_new..] {
            match &entry.created {
                Some(own) => time = Some(own.clone()),
                None => entry.created.clone_from(&time),
            }
        }
        file.created = file.history.last().and_then(with_time);
        file.to_bytes()
    }
}

/// A time as BuildKit writes it.
pub fn time(nanos: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(nanos)).map(|time| time.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dockerfile::parse_instruction;

    fn state() -> State {
        State::scratch(Platform::new("linux", "amd64", ""), None)
    }

    fn record(created_ns: i64) -> proto::StepRecord {
        let layer = proto::Layer { diff_id: model::Digest::of(b"x").to_string(), ..proto::Layer::default() };
        proto::StepRecord { layers: vec![layer], created_ns, ..proto::StepRecord::default() }
    }

    /// Lines as BuildKit's frontend writes them.
    #[test]
    fn lines_of_the_history() {
        for (instruction, expected) in [
            ("MAINTAINER a b", "MAINTAINER a b"),
            ("ENV a=1 b=2", "ENV a=1 b=2"),
            ("LABEL z=1 a=2", "LABEL z=1 a=2"),
            ("CMD a", "CMD [\"/bin/sh\" \"-c\" \"a\"]"),
            ("ENTRYPOINT [\"q\"]", "ENTRYPOINT [\"q\"]"),
            ("EXPOSE 80 90/udp", "EXPOSE [80/tcp 90/udp]"),
            ("VOLUME /a /b", "VOLUME [/a /b]"),
            ("USER app", "USER app"),
            ("STOPSIGNAL TERM", "STOPSIGNAL TERM"),
            ("SHELL [\"/bin/sh\", \"-c\"]", "SHELL [/bin/sh -c]"),
            ("HEALTHCHECK --interval=5s CMD true", r#"HEALTHCHECK &{["CMD-SHELL" "true"] "5s" "0s" "0s" "0s" '\x00'}"#),
        ] {
            let mut state = state();
            state.configure(parse_instruction(instruction).expect(instruction).kind).expect(instruction);
            let entry = state.file.history.last().expect("an entry");
            assert_eq!((entry.created_by.as_str(), entry.empty_layer), (expected, true));
            assert_eq!(entry.comment, "buildkit.dockerfile.v0");
        }
        let mut silent = state();
        silent.configure(parse_instruction("ONBUILD RUN x").expect("legal").kind).expect("applied");
        assert!(silent.file.history.is_empty() && silent.file.config.on_build == ["RUN x"]);
    }

    #[test]
    fn arguments_are_seen_and_shown_until_the_stage_ends() {
        let mut state = state();
        let globals = Globals::default();
        let argument = |name: &str, default: Option<&str>| ArgDeclaration {
            name: name.to_owned(),
            default: default.map(str::to_owned),
        };
        let declarations = [argument("A", Some("1")), argument("B", None), argument("C", Some("$A-$B"))];
        state.declare(&globals, &Lexer::new('\\'), &declarations).expect("declared");
        assert_eq!(state.arguments_shown(), ["|3", "A=1", "B=", "C=1-"]);
        assert_eq!(state.file.history[0].created_by, "ARG A=1 B C=1-");
        assert_eq!((state.scope.value("A").as_deref(), state.scope.value("B")), (Some("1"), None));
        let child = state.child();
        assert_eq!(child.scope.value("A").as_deref(), Some("1"), "a stage on this one inherits it");
        assert!(child.arguments_shown().is_empty());
        assert_eq!(child.file.config.env.len(), 1, "an argument is no variable of the image");
    }

    #[test]
    fn what_has_no_time_gets_one_of_its_layers() {
        let mut state = state();
        let second = 1_000_000_000;
        state.file.history.push(History { created: Some(time(second)), ..History::default() });
        state.note("ENV a=1".to_owned());
        state.add_layer("RUN x # buildkit".to_owned(), &record(5 * second)).expect("added");
        state.note("CMD x".to_owned());
        let file = ImageConfig::parse(&state.config()).expect("a config");
        let times: Vec<_> = file.history.iter().map(|entry| entry.created.clone().expect("a time")).collect();
        assert_eq!(times, [time(second), time(5 * second), time(5 * second), time(5 * second)]);
        assert_eq!(file.created, Some(time(5 * second)));
        let fixed = State { epoch: Some(7), ..state };
        let mut fixed = fixed;
        fixed.add_layer("RUN y # buildkit".to_owned(), &record(9 * second)).expect("added");
        assert_eq!(ImageConfig::parse(&fixed.config()).expect("a config").created, Some(time(7 * second)));
    }
}
