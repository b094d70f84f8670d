//! RUN, COPY, ADD and WORKDIR: what they ask for becomes a step's definition, their result a layer of the stage.

use std::collections::BTreeSet;

use dockerfile::{Command, Copy, Mount, MountType, Run};
use model::Digest;
use proto::step_definition::Operation;

use super::execute::Chmod;
use super::files::{Origin, Reading};
use super::key::{self, FileInput, Inputs};
use super::named::Resolved;
use super::plan::Base;
use super::reasons;
use super::solving::Solving;
use super::source::Needs;
use super::state::State;
use super::step_view;
use super::steps::Step;
use super::trace::Vertex;
use crate::failure::Failure;
use crate::heredocs::{script, with_heredocs};
use crate::image::{self, resolve};
use crate::remote::Archives;
use crate::wording;

/// What a step is made of: its definition, and what it reads.
struct Asked {
    operation: Operation,
    reads: Vec<(Origin, Reading)>,
    uncounted: BTreeSet<String>,
    /// It stands on nothing (`--link`).
    alone: bool,
    /// Its line in the history.
    line: String,
}

impl Solving {
    pub(super) async fn run_step(
        &self,
        number: usize,
        state: &mut State,
        vertex: &mut Vertex,
        run: Run,
    ) -> Result<(), Failure> {
        let network = self.network(run.network.as_deref());
        let security = run.security.unwrap_or_else(|| "sandbox".to_owned());
        let script = script(&run.command, &run.heredocs);
        let command = match &script {
            Some(script) => Command::Shell(Some(script.target())),
            None => with_heredocs(run.command, &run.heredocs),
        };
        let args = resolve(command, image::shell(&state.file.config));
        let scripts = script
            .into_iter()
            .map(|script| proto::InlineFile { name: script.name, content: script.content.into_bytes() })
            .collect();
        let (mut mounts, mut reads) = (Vec::new(), Vec::new());
        for flag in &run.mounts {
            let mount = {
                let lookup = |name: &str| state.scope.value(name);
                flag.expanded(&self.wanted.plan.lexer, &lookup, state.working_dir())?
            };
            let origin = self.mounted((number, vertex), &mount, state).await?;
            if let Some(origin) = &origin {
                let paths = vec![mount.source.clone()];
                reads.push((origin.clone(), Reading { paths, whole: true, ..Reading::default() }));
            }
            mounts.push(step_mount(mount, origin.as_ref()));
        }
        let proxies = self.wanted.plan.proxies();
        let hidden: Vec<(String, String)> =
            proxies.into_iter().filter(|(name, _)| state.scope.value(name).is_none()).collect();
        let shown = [&["RUN".to_owned()][..], &state.arguments_shown(), &args].concat().join(" ");
        let operation = proto::RunOperation {
            args,
            env: [state.scope.environment(), hidden.iter().map(|(name, value)| format!("{name}={value}")).collect()]
                .concat(),
            cwd: state.working_dir().to_owned(),
            user: state.file.config.user.clone(),
            mounts,
            network,
            security,
            resources: self.graph.options.resources.clone(),
            extra_hosts: self.graph.options.extra_hosts.clone(),
            ulimits: self.graph.options.ulimits.clone(),
            shm_bytes: self.graph.options.shm_bytes,
            scripts,
        };
        let asked = Asked {
            operation: Operation::Run(operation),
            reads,
            uncounted: hidden.into_iter().map(|(name, _)| name).collect(),
            alone: false,
            line: format!("{shown} # buildkit"),
        };
        self.make(number, state, vertex, asked).await
    }

    pub(super) async fn copy_step(
        &self,
        number: usize,
        state: &mut State,
        vertex: &mut Vertex,
        name: &str,
        copy: Copy,
    ) -> Result<(), Failure> {
        let (remote, local): (Vec<_>, Vec<_>) = copy.sources.iter().cloned().partition(|source| is_remote(source));
        let line = copied_line(name, &copy);
        let (mut sources, mut reads) = (Vec::new(), Vec::new());
        if !local.is_empty() {
            let origin = match &copy.from {
                None => self.context(vertex).await?,
                Some(from) => self.origin(number, &self.wanted.plan.copied_from(from)?, state).await?,
            };
            sources.push(proto::CopySource {
                from: Some(origin.input()),
                paths: local.clone(),
                unpack: copy.unpack.unwrap_or(name == "ADD"),
            });
            reads.push((
                origin,
                Reading { paths: local, excludes: copy.excludes.clone(), parents: copy.parents, whole: false },
            ));
        }
        for url in remote {
            let file = proto::RemoteFile {
                url,
                checksum: copy.checksum.clone().unwrap_or_default(),
                keep_git_dir: copy.keep_git_dir,
                name: String::new(),
            };
            let fetched = self.graph.remote(&file, Archives::Kept, !self.ignores_cache(number)).await?;
            let paths = vec![fetched.source];
            sources.push(proto::CopySource {
                from: Some(fetched.origin.input()),
                paths: paths.clone(),
                unpack: copy.unpack.unwrap_or_default(),
            });
            reads.push((fetched.origin, Reading { paths, excludes: copy.excludes.clone(), ..Reading::default() }));
        }
        if !copy.heredocs.is_empty() {
            let file = |heredoc: dockerfile::Heredoc| proto::InlineFile {
                name: heredoc.name,
                content: heredoc.content.into_bytes(),
            };
            let origin = Origin::Inline(copy.heredocs.into_iter().map(file).collect());
            sources.push(proto::CopySource { from: Some(origin.input()), paths: Vec::new(), unpack: false });
            reads.push((origin, Reading::default()));
        }
        // With a mode it is copied plainly, as BuildKit does: links of the image are followed.
        let alone = copy.link && copy.chmod.is_none();
        let operation = proto::CopyOperation {
            sources,
            destination: copy.destination,
            chown: copy.chown.unwrap_or_default(),
            chmod: copy.chmod.unwrap_or_default(),
            excludes: copy.excludes,
            parents: copy.parents,
            link: alone,
            cwd: state.working_dir().to_owned(),
        };
        let asked = Asked { operation: Operation::Copy(operation), reads, uncounted: BTreeSet::new(), alone, line };
        self.make(number, state, vertex, asked).await
    }

    /// Makes all files of an origin the first layer of a stage.
    pub(super) async fn files_step(
        &self,
        number: usize,
        state: &mut State,
        vertex: &mut Vertex,
        origin: Origin,
    ) -> Result<(), Failure> {
        let paths = vec!["/".to_owned()];
        let source = proto::CopySource { from: Some(origin.input()), paths: paths.clone(), unpack: false };
        let operation = proto::CopyOperation {
            sources: vec![source],
            destination: "/".to_owned(),
            cwd: "/".to_owned(),
            ..proto::CopyOperation::default()
        };
        let reads = vec![(origin, Reading { paths, ..Reading::default() })];
        let (operation, line) = (Operation::Copy(operation), "COPY / / # buildkit".to_owned());
        self.make(number, state, vertex, Asked { operation, reads, uncounted: BTreeSet::new(), alone: false, line })
            .await
    }

    pub(super) async fn workdir_step(
        &self,
        number: usize,
        state: &mut State,
        vertex: &mut Vertex,
        path: &str,
    ) -> Result<(), Failure> {
        let folder = state.enter(path);
        let line = format!("WORKDIR {folder}");
        if folder == "/" {
            vertex.cached().await;
            state.note(line);
            return Ok(());
        }
        let user = state.file.config.user.clone();
        let operation = Operation::Folder(proto::FolderOperation { path: folder, user });
        let asked = Asked { operation, reads: Vec::new(), uncounted: BTreeSet::new(), alone: false, line };
        self.make(number, state, vertex, asked).await
    }

    /// Finds or makes the step's result, and goes on from it.
    async fn make(&self, number: usize, state: &mut State, vertex: &mut Vertex, asked: Asked) -> Result<(), Failure> {
        let definition = proto::StepDefinition {
            description: vertex.told.name.clone(),
            platform: state.platform.to_string(),
            parent: if asked.alone { Vec::new() } else { state.layers.clone() },
            source_date_epoch: state.epoch.unwrap_or_default(),
            has_epoch: state.epoch.is_some(),
            operation: Some(asked.operation),
        };
        vertex.view = step_view::of(&definition, state, &asked.uncounted);
        let use_cache = !self.ignores_cache(number);
        if !use_cache {
            vertex.told.reason = wording::CACHE_UNUSED.to_owned();
        }
        // What comes from layers is known by them, before any file is looked at.
        let quick = asked.reads.iter().map(|(origin, reading)| reading.quickly(origin)).collect::<Option<Vec<_>>>();
        let quick = quick.filter(|files| !files.is_empty()).map(|files| {
            let files = files.into_iter().enumerate().flat_map(|(number, files)| of_source(number, files)).collect();
            key::of(&definition, &Inputs { files, uncounted: asked.uncounted.clone() })
        });
        if use_cache
            && let Some(quick) = &quick
            && let Some(record) = self.graph.found(quick).await?
        {
            vertex.told.key.clone_from(quick);
            let inputs = Inputs { files: Vec::new(), uncounted: asked.uncounted };
            vertex.key_inputs = reasons::of(&definition, instruction(&vertex.told.name), &inputs, &asked.reads);
            vertex.cached().await;
            self.graph.exchange.note(quick, &record);
            if !self.graph.options.cache_exports.is_empty() {
                // Whoever takes the cache may have other layers there: what is in them is what tells the step.
                let inputs = Inputs { files: self.files(&asked.reads).await?, ..inputs };
                self.graph.exchange.note(&key::of(&definition, &inputs), &record);
            }
            return state.add_layer(asked.line, &record);
        }
        let inputs = Inputs { files: self.files(&asked.reads).await?, uncounted: asked.uncounted };
        let key = key::of(&definition, &inputs);
        vertex.key_inputs = reasons::of(&definition, instruction(&vertex.told.name), &inputs, &asked.reads);
        let keys: Vec<String> = quick.iter().chain([&key]).cloned().collect();
        let step = Step { definition, key, also: quick, use_cache };
        let record = self.graph.solve(vertex, step).await?;
        keys.iter().for_each(|key| self.graph.exchange.note(key, &record));
        state.add_layer(asked.line, &record)
    }

    /// What a step reads of all its origins, by content.
    async fn files(&self, reads: &[(Origin, Reading)]) -> Result<Vec<FileInput>, Failure> {
        let mut files = Vec::new();
        for (number, (origin, reading)) in reads.iter().enumerate() {
            files.extend(of_source(number, self.graph.digests(origin, reading).await?));
        }
        Ok(files)
    }

    /// The files of what a `from` names.
    async fn origin(&self, stage: usize, from: &Base, state: &State) -> Result<Origin, Failure> {
        let base = match self.graph.resolved(&self.wanted.plan, from)? {
            Resolved::Url(url) => return Ok(self.graph.url_context(&url, !self.ignores_cache(stage)).await?.origin),
            Resolved::Folder(folder) => return self.graph.folder_context(&folder).await,
            Resolved::Brought(image) => {
                return Ok(Origin::Layers(self.graph.brought(&image, &state.platform).await?.image.layers.clone()));
            }
            Resolved::Base(base) => base,
        };
        Ok(match base {
            Base::Empty => Origin::Layers(Vec::new()),
            Base::Stage(number) => Origin::Layers(self.other(number).await?.layers.clone()),
            Base::Image(reference) => {
                Origin::Layers(self.graph.image(&reference, &state.platform).await?.image.layers.clone())
            }
            Base::Context(name) => return Err(Failure::internal(format!("a context {name} in a context"))),
        })
    }

    /// What is mounted, where a mount has files of its own.
    async fn mounted(
        &self,
        (stage, vertex): (usize, &Vertex),
        mount: &Mount,
        state: &State,
    ) -> Result<Option<Origin>, Failure> {
        match (mount.kind, &mount.from) {
            (MountType::Bind | MountType::Cache, Some(from)) => {
                self.origin(stage, &self.wanted.plan.mounted_from(from), state).await.map(Some)
            }
            (MountType::Bind, None) => self.context(vertex).await.map(Some),
            _ => Ok(None),
        }
    }

    async fn context(&self, vertex: &Vertex) -> Result<Origin, Failure> {
        // A base image's triggers are known too late to be among what the client is asked for at first.
        let needs = if vertex.told.name.contains("] ONBUILD ") { Needs::Whole } else { Needs::Named };
        self.graph.build_context(&self.source, needs).await
    }

    /// Whether a command is there, and asks for nothing that this build may not have.
    ///
    /// # Errors
    /// `User`, in BuildKit's words.
    pub(super) fn may_run(&self, run: &Run) -> Result<(), Failure> {
        if matches!(&run.command, Command::Exec(words) if words.is_empty()) {
            return Err(Failure::user("arguments are required"));
        }
        if let Some(device) = run.devices.first() {
            return Err(Failure::user(format!("device {device:?} is not available: this worker has no CDI devices")));
        }
        if run.network.as_deref() == Some("host") && self.graph.options.network_mode != "host" {
            self.entitled("network.host")?;
        }
        match run.security.as_deref() {
            Some("insecure") => self.entitled("security.insecure"),
            _ => Ok(()),
        }
    }

    fn network(&self, asked: Option<&str>) -> String {
        match asked {
            // Clients say the usual one by its name or not at all: both are one step.
            None | Some("default") => match self.graph.options.network_mode.as_str() {
                "default" => String::new(),
                mode => mode.to_owned(),
            },
            Some(other) => other.to_owned(),
        }
    }

    fn entitled(&self, entitlement: &str) -> Result<(), Failure> {
        match self.graph.options.entitlements.iter().any(|given| given == entitlement) {
            true => Ok(()),
            false => Err(Failure::user(format!("{entitlement} is not allowed"))),
        }
    }
}

/// Whether COPY and ADD ask for what they can do.
///
/// # Errors
/// `User`, in BuildKit's words.
pub(super) fn may_copy(name: &str, copy: &Copy) -> Result<(), Failure> {
    let remote = copy.sources.iter().find(|source| is_remote(source));
    if let Some(source) = remote.filter(|_| name != "ADD") {
        let what = if crate::remote::git::is_git(source) { "git ref" } else { "URL" };
        return Err(Failure::user(format!("source can't be a {what} for COPY")));
    }
    if let Some(checksum) = &copy.checksum {
        match (copy.sources.len(), remote.is_some()) {
            (1, true) if !remote.is_some_and(|source| crate::remote::git::is_git(source)) => {
                checksum.parse::<Digest>().map_err(|error| Failure::user(error.to_string()))?;
            }
            (1, true) => {}
            (1, false) => return Err(Failure::user("checksum requires HTTP(S) or Git sources")),
            _ => return Err(Failure::user("checksum can't be specified for multiple sources")),
        }
    }
    match copy.chmod.as_deref() {
        None | Some("") => Ok(()),
        Some(mode) => Chmod::parse(mode).map(drop).map_err(Failure::User),
    }
}

/// A copy's line in the history; flags that variables have left empty are not in it.
fn copied_line(name: &str, copy: &Copy) -> String {
    let mut line = name.to_owned();
    if copy.parents {
        line.push_str(" --parents");
    }
    for (flag, value) in [("chown", &copy.chown), ("chmod", &copy.chmod)] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            line.push_str(&format!(" --{flag}={value}"));
        }
    }
    copy.sources.iter().for_each(|source| line.push_str(&format!(" {source}")));
    copy.heredocs.iter().for_each(|heredoc| line.push_str(&format!(" <<{}", heredoc.name)));
    line.push_str(&format!(" {} # buildkit", copy.destination));
    line
}

/// A step's name without its number.
fn instruction(name: &str) -> &str {
    name.split_once("] ").map_or(name, |(_, text)| text)
}

/// Which of its sources gives a file counts, too.
fn of_source(number: usize, files: Vec<FileInput>) -> impl Iterator<Item = FileInput> {
    files.into_iter().map(move |FileInput { name, digest }| FileInput { name, digest: format!("{number} {digest}") })
}

fn step_mount(mount: Mount, origin: Option<&Origin>) -> proto::StepMount {
    proto::StepMount {
        r#type: mount.kind.name().to_owned(),
        target: mount.target,
        from: origin.map(Origin::input),
        source: mount.source,
        readonly: mount.read_only,
        id: mount.id,
        sharing: if mount.kind == MountType::Cache { mount.sharing.name().to_owned() } else { String::new() },
        mode: mount.mode,
        uid: mount.uid,
        gid: mount.gid,
        size_bytes: mount.size_bytes,
        required: mount.required,
        env: mount.env.unwrap_or_default(),
    }
}

fn is_remote(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://") || crate::remote::git::is_git(source)
}
