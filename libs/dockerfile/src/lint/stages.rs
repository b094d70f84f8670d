//! Rules about a stage's instructions, which see variables.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::rules::{self, Rule};
use super::{BaseImage, LintInput, Place, Report, written_name};
use crate::error::Error;
use crate::expand::Lexer;
use crate::graph::{Origin, StageGraph};
use crate::ignore::Ignore;
use crate::instruction::{Command, Copy, Instruction, Kind};
use crate::quote::quote;
use crate::scope::Scope;
use crate::suggest;

pub fn check(input: &LintInput, graph: &StageGraph, report: &mut Report) {
    let mut ended: Vec<Option<State>> = Vec::new();
    for (number, stage) in input.file.stages.iter().enumerate() {
        let node = &graph.nodes[number];
        if node.replaced || !(input.all_stages || graph.needed.contains(&number)) {
            ended.push(None);
            continue;
        }
        let mut state = match &node.base {
            Origin::Stage(base) => ended.get(*base).cloned().flatten().unwrap_or_default().inherited(),
            Origin::Empty => State::default(),
            Origin::Image(name) | Origin::Context(name) => {
                let image = (input.image)(number);
                if let Some(image) = &image {
                    base_platform(name, image, stage.into(), report);
                }
                State::of_image(image)
            }
        };
        for instruction in &stage.instructions {
            if let Err(error) = state.instruction(input, instruction, report) {
                report.found.error = Some(error.on(instruction.line));
                return;
            }
        }
        ended.push(Some(state));
    }
}

/// What is known of a stage between two instructions.
#[derive(Clone)]
struct State {
    scope: Scope,
    /// Variables that are not in the scope are undefined; else they may come from the base image.
    knows_environment: bool,
    has_shell: bool,
    has_workdir: bool,
    cmd: Option<Place>,
    entrypoint: Option<Place>,
    healthcheck: Option<Place>,
}

impl Default for State {
    /// `scratch`.
    fn default() -> Self {
        Self::of_image(Some(BaseImage::default()))
    }
}

impl State {
    fn of_image(image: Option<BaseImage>) -> Self {
        let known = image.is_some();
        let image = image.unwrap_or_default();
        let mut scope = Scope::of_image(&image.environment);
        if scope.value("PATH").is_none() {
            scope.set("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        }
        Self {
            scope,
            knows_environment: known,
            has_shell: image.has_shell || !known,
            has_workdir: false,
            cmd: None,
            entrypoint: None,
            healthcheck: None,
        }
    }

    /// As the next stage starts with it: there its instructions have not been written yet.
    fn inherited(self) -> Self {
        Self { scope: self.scope.inherited(), cmd: None, entrypoint: None, healthcheck: None, ..self }
    }

    /// # Errors
    /// What fails the build there.
    fn instruction(&mut self, input: &LintInput, instruction: &Instruction, report: &mut Report) -> Result<(), Error> {
        let at = Place::from(instruction);
        self.undefined(input, instruction, report)?;
        // Of an ARG a default counts only where no value is given: what is wrong with it was told above.
        if matches!(instruction.kind, Kind::Arg(_)) {
            self.arguments(input, instruction, report);
            return Ok(());
        }
        match instruction.kind.expanded(input.lexer, &|name| self.scope.value(name))? {
            Kind::Env(pairs) => {
                legacy(instruction, input.lexer, report);
                for (name, value) in pairs {
                    secret("ENV", &name, at, report);
                    self.scope.set(&name, &value);
                }
            }
            Kind::Label(_) => legacy(instruction, input.lexer, report),
            Kind::Cmd(command) => {
                once(instruction, &mut self.cmd, report);
                self.json(instruction, &command, report);
            }
            Kind::Entrypoint(command) => {
                once(instruction, &mut self.entrypoint, report);
                self.json(instruction, &command, report);
            }
            Kind::Healthcheck(_) => once(instruction, &mut self.healthcheck, report),
            Kind::Shell(_) => self.has_shell = true,
            Kind::Workdir(path) => {
                if !self.has_workdir && !path.starts_with('/') {
                    let message = format!(
                        "Relative workdir {} can have unexpected results if the base image changes",
                        quote(&path)
                    );
                    report.add(&rules::WORKDIR_RELATIVE_PATH, at, message);
                }
                self.has_workdir = true;
            }
            Kind::Expose(ports) => ports.iter().for_each(|port| expose(port, at, report)),
            Kind::Copy(copy) if copy.from.is_none() => ignored(input.ignore, "Copy", &copy, at, report),
            Kind::Add(copy) => ignored(input.ignore, "Add", &copy, at, report),
            Kind::Volume(paths) if paths.iter().any(String::is_empty) => {
                return Err(Error::meaning("VOLUME specified can not be an empty string"));
            }
            Kind::Run(run) => {
                for mount in &run.mounts {
                    mount.expanded(input.lexer, &|name| self.scope.value(name), "/")?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn arguments(&mut self, input: &LintInput, instruction: &Instruction, report: &mut Report) {
        // As written: a declaration's default is only looked at where no value is given.
        let Kind::Arg(declarations) = &instruction.kind else { return };
        for declaration in declarations {
            secret("ARG", &declaration.name, instruction.into(), report);
            // A default that cannot be expanded fails the build by itself.
            let _ = self.scope.declare(declaration, input.globals, input.lexer);
        }
    }

    /// Variables that have no value where they are used.
    ///
    /// # Errors
    /// For what cannot be expanded: then none is told.
    fn undefined(&self, input: &LintInput, instruction: &Instruction, report: &mut Report) -> Result<(), Error> {
        let unknown = RefCell::new(BTreeSet::new());
        let lookup = |scope: &Scope, name: &str| {
            let value = scope.value(name);
            if value.is_none() {
                unknown.borrow_mut().insert(name.to_owned());
            }
            value
        };
        match &instruction.kind {
            Kind::Expose(_) => {}
            Kind::Arg(declarations) => {
                // Each argument sees those before it.
                let mut scope = self.scope.clone();
                for argument in declarations {
                    let default = argument.default.as_ref().filter(|_| input.globals.given(&argument.name).is_none());
                    if let Some(default) = default {
                        input.lexer.expand(default, &|name| lookup(&scope, name))?;
                    }
                    scope.declare(argument, input.globals, input.lexer)?;
                }
            }
            Kind::Run(run) => {
                for mount in &run.mounts {
                    // What it means once it is expanded is looked at later.
                    let _ = mount.expanded(input.lexer, &|name| lookup(&self.scope, name), "/");
                }
            }
            kind => drop(kind.expanded(input.lexer, &|name| lookup(&self.scope, name))?),
        }
        if !self.knows_environment {
            return Ok(());
        }
        for name in unknown.into_inner().into_iter().filter(|name| !self.scope.declares(name)) {
            let message = match suggest::nearest(&name, self.scope.names()) {
                Some(near) => format!("Usage of undefined variable '${name}' (did you mean ${near}?)"),
                None => format!("Usage of undefined variable '${name}'"),
            };
            report.add(&rules::UNDEFINED_VAR, instruction.into(), message);
        }
        Ok(())
    }

    fn json(&self, instruction: &Instruction, command: &Command, report: &mut Report) {
        if self.has_shell || matches!(command, Command::Exec(_)) {
            return;
        }
        let name = written_name(&instruction.original);
        let message =
            format!("JSON arguments recommended for {name} to prevent unintended behavior related to OS signals");
        report.add(&rules::JSON_ARGS_RECOMMENDED, instruction.into(), message);
    }
}

/// Variants do not count.
fn base_platform(name: &str, image: &BaseImage, at: Place, report: &mut Report) {
    let BaseImage { platform, wanted_platform, .. } = image;
    let part = |text: &str| text.splitn(3, '/').take(2).map(str::to_owned).collect::<Vec<_>>();
    if !platform.is_empty() && part(platform) != part(wanted_platform) {
        let (actual, expected) = (quote(platform), quote(wanted_platform));
        let message =
            format!("Base image {name} was pulled with platform {actual}, expected {expected} for current build");
        report.add(&rules::INVALID_BASE_IMAGE_PLATFORM, at, message);
    }
}

/// Told at the earlier instruction: it is the one that counts for nothing.
fn once(instruction: &Instruction, earlier: &mut Option<Place>, report: &mut Report) {
    if let Some(at) = earlier.replace(instruction.into()) {
        let name = written_name(&instruction.original);
        let message = format!(
            "Multiple {name} instructions should not be used in the same stage because only the last one will be used"
        );
        report.add(&rules::MULTIPLE_INSTRUCTIONS_DISALLOWED, at, message);
    }
}

/// `ENV name value`.
fn legacy(instruction: &Instruction, lexer: &Lexer, report: &mut Report) {
    let name = written_name(&instruction.original);
    let words = lexer.raw_words(instruction.original[name.len()..].trim_start());
    if words.first().is_some_and(|first| first.contains('=')) {
        return;
    }
    let message = format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format");
    report.add(&rules::LEGACY_KEY_VALUE_FORMAT, instruction.into(), message);
}

fn secret(instruction: &str, name: &str, at: Place, report: &mut Report) {
    const SECRET: [&str; 10] =
        ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
    const PUBLIC: [&str; 3] = ["public", "file", "version"];
    let lower = name.to_lowercase();
    let words: Vec<&str> = lower.split('_').collect();
    if words.iter().any(|word| SECRET.contains(word)) && !words.iter().any(|word| PUBLIC.contains(word)) {
        let message = format!("Do not use ARG or ENV instructions for sensitive data ({instruction} {})", quote(name));
        report.add(&rules::SECRETS_USED_IN_ARG_OR_ENV, at, message);
    }
}

fn expose(port: &str, at: Place, report: &mut Report) {
    let container = port.rsplit(':').next().unwrap_or_default();
    let protocol = container.split_once('/').map_or("", |(_, protocol)| protocol);
    if protocol != protocol.to_lowercase() {
        let message = format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
        report.add(&rules::EXPOSE_PROTO_CASING, at, message);
    }
    if port.trim_start_matches(':').contains(':') {
        let message =
            format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'");
        report.add(&rules::EXPOSE_INVALID_FORMAT, at, message);
    }
}

fn ignored(ignore: Option<&Ignore>, what: &str, copy: &Copy, at: Place, report: &mut Report) {
    let rule: &'static Rule = &rules::COPY_IGNORED_FILE;
    let Some(ignore) = ignore else { return };
    for source in &copy.sources {
        if source.contains("://") {
            continue;
        }
        let path = crate::mount::absolute("/", source);
        // A folder counts as left out only where no `!` rule could bring back something inside it.
        if path != "/" && ignore.excludes(&path, true) {
            let shown = path.trim_start_matches('/');
            report.add(
                rule,
                at,
                format!("Attempting to {what} file {} that is excluded by .dockerignore", quote(shown)),
            );
        }
    }
}
