//! Builds a Dockerfile as BuildKit does: a graph of steps, each with a key made of its inputs only.
//!
//! ```text
//! Graph::run ── source (Dockerfile, context) ── plan ──┬─ platform: Solving ──┬─ stage: base, then its instructions
//!                                                      └─ ...                 └─ ... (those that are needed, at once)
//!    instruction ─┬─ configuration only: state
//!                 └─ RUN, COPY, ADD, WORKDIR: a StepDefinition ── key ── steps::solve
//!    solve: cache (gateway) ── claim, or follow who has it ── place ── execute (here, or StepRun) ── records
//! ```
//!
//! The worker that leased the build is its coordinator: it evaluates the file and decides. A [`proto::StepDefinition`] is
//! self-contained and runs on any worker by [`execute::Executor`], which knows nothing of Dockerfiles.

mod base;
mod execute;
mod files;
mod instructions;
mod key;
mod place;
mod plan;
mod records;
mod scope;
mod solving;
mod source;
mod stage;
mod state;
mod steps;
mod trace;
mod view;

use std::collections::HashMap;
use std::sync::Arc;

use model::{Digest, Platform};
use tokio::sync::Semaphore;

use crate::claims::Claims;
use crate::failure::Failure;
use crate::log::Log;
use base::Images;
pub use execute::Executor;
use plan::Plan;
use records::Records;
use scope::Globals;
use solving::Solving;
use state::State;
use trace::{Trace, Vertex};

/// Steps of one build that run at once where the build has no limit of its own.
const STEPS_AT_ONCE: usize = 32;

/// One build, on the worker that leased it. A clone is the same build.
#[derive(Clone)]
pub struct Graph {
    pub options: Arc<proto::BuildOptions>,
    pub executor: Executor,
    pub claims: Arc<Claims>,
    pub worker_id: String,
    trace: Trace,
    records: Arc<Records>,
    images: Arc<Images>,
    /// Steps that may run at once.
    slots: Arc<Semaphore>,
}

/// What a platform's build has come to.
pub struct Built {
    /// The exact bytes of the image's configuration.
    pub config: Vec<u8>,
    /// Base layer first.
    pub layers: Vec<proto::Layer>,
}

/// How a build ended.
pub struct Finished {
    /// Empty where no image was asked for.
    pub image_id: String,
    pub response: HashMap<String, String>,
}

impl Graph {
    pub fn new(options: proto::BuildOptions, executor: Executor, log: Arc<Log>, claims: Arc<Claims>) -> Self {
        let at_once = match usize::try_from(options.max_parallel) {
            Ok(limit @ 1..) => limit,
            _ => STEPS_AT_ONCE,
        };
        Self {
            options: Arc::new(options),
            trace: Trace::new(log),
            records: Arc::new(Records::new(executor.bus.clone(), &executor.build_id, executor.attempt)),
            images: Arc::default(),
            slots: Arc::new(Semaphore::new(at_once)),
            worker_id: claims.worker_id().to_owned(),
            claims,
            executor,
        }
    }

    /// Builds, and waits until all layers are stored and recorded.
    ///
    /// # Errors
    /// `User` and `Process` in BuildKit's words.
    pub async fn run(&self) -> Result<Finished, Failure> {
        let finished = match self.build().await {
            Ok(built) => self.export(built).await,
            Err(error) => Err(error),
        };
        self.trace.flush().await;
        finished
    }

    async fn build(&self) -> Result<Vec<Built>, Failure> {
        let source = Arc::new(self.source().await?);
        let host = Platform::host();
        let wanted: Vec<Platform> = match self.options.platforms.as_slice() {
            [] if self.options.platform.is_empty() => vec![host.clone()],
            [] => vec![parse_platform(&self.options.platform)?],
            many => many.iter().map(|text| parse_platform(text)).collect::<Result<_, _>>()?,
        };
        let many = wanted.len() > 1;
        let mut solvings = Vec::new();
        for (number, target) in wanted.into_iter().enumerate() {
            let globals = Globals::new(&self.options, &host, &target, &self.options.target);
            let epoch = globals.epoch()?;
            let plan = Plan::new(source.file.clone(), globals, &self.options.target)?;
            let shown = many.then(|| target.to_string());
            solvings.push(Solving::new(
                self.clone(),
                source.clone(),
                solving::Wanted { plan, number, target, shown, epoch },
            ));
        }
        let states = futures::future::join_all(solvings.into_iter().map(Solving::run)).await;
        // Those that were cut short were so because of another's failure.
        let cut_short = |state: &Result<State, Failure>| matches!(state, Err(Failure::Cancelled));
        let (cut, states): (Vec<_>, Vec<_>) = states.into_iter().partition(cut_short);
        let states = states.into_iter().collect::<Result<Vec<_>, _>>()?;
        match cut.is_empty() {
            true => Ok(states.into_iter().map(|state| self.built(state)).collect()),
            false => Err(Failure::Cancelled),
        }
    }

    /// The image of a stage; the labels of the build come last.
    fn built(&self, mut state: State) -> Built {
        let labels = self.options.labels.iter().map(|(name, value)| (name.clone(), value.clone()));
        state.file.config.labels.extend(labels);
        Built { config: state.config(), layers: state.layers }
    }

    async fn export(&self, built: Vec<Built>) -> Result<Finished, Failure> {
        let mut vertex =
            Vertex::new(&self.trace, &format!("{} export", self.executor.build_id), "exporting to image".to_owned());
        vertex.start().await;
        let exported = self.export_image(&vertex, built).await;
        vertex.complete(exported.as_ref().err()).await;
        exported
    }

    async fn export_image(&self, vertex: &Vertex, built: Vec<Built>) -> Result<Finished, Failure> {
        let stored = async {
            tokio::select! {
                () = self.executor.ends.cancel.cancelled() => Err(Failure::Cancelled),
                stored = self.records.finish() => stored,
            }
        };
        vertex.status("exporting layers", stored).await?;
        let [Built { config, layers }] = <[Built; 1]>::try_from(built)
            .map_err(|_| Failure::user("multiple platforms feature is currently not supported for docker driver"))?;
        let id = Digest::of(&config).to_string();
        let image = proto::Image { id: id.clone(), config, layers, ..proto::Image::default() };
        let result = proto::StepResult {
            build_id: self.executor.build_id.clone(),
            attempt: self.executor.attempt,
            key: String::new(),
            image: Some(image),
        };
        let record = async {
            let recorded = self.executor.bus.call::<bus::calls::StepResult>(&bus::Target::Gateway, &result).await;
            Ok(recorded.map(drop)?)
        };
        vertex.status(&format!("writing image {id}"), record).await?;
        for tag in &self.options.tags {
            let shown =
                tag.parse::<model::ImageRef>().map_or_else(|_| tag.clone(), |name| name.or_latest().to_string());
            vertex.status(&format!("naming to {shown}"), async { Ok(()) }).await?;
        }
        let response = HashMap::from([
            ("containerimage.digest".to_owned(), id.clone()),
            ("containerimage.config.digest".to_owned(), id.clone()),
        ]);
        Ok(Finished { image_id: id, response })
    }

    /// Waits until what was made before a failure is recorded: it is worth keeping.
    pub async fn keep(&self) -> Result<(), Failure> {
        self.records.finish().await
    }
}

fn parse_platform(text: &str) -> Result<Platform, Failure> {
    text.parse().map_err(|error| Failure::user(format!("failed to parse platform {text}: {error}")))
}
