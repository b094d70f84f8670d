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
mod check;
mod exchange;
mod execute;
mod export;
mod fault;
mod files;
mod folders;
mod instructions;
mod key;
mod likely;
mod look;
mod named;
mod place;
mod plan;
mod reasons;
mod records;
mod remote;
pub mod serve;
mod solving;
mod source;
mod stage;
mod state;
mod step_view;
mod steps;
mod trace;
mod view;

use std::sync::Arc;

use model::Platform;
use tokio::sync::Semaphore;

use crate::failure::Failure;
use crate::log::Log;
use base::Images;
use exchange::Exchange;
pub use execute::Executor;
use export::Built;
pub use export::Finished;
use folders::Folders;
use likely::Likely;
use place::Places;
use plan::Plan;
use records::Records;
use solving::Solving;
use source::Source;
use state::State;
use trace::Trace;

/// Steps of one build that run at once where the build has no limit of its own.
const STEPS_AT_ONCE: usize = 32;

/// One build, on the worker that leased it. A clone is the same build.
#[derive(Clone)]
pub struct Graph {
    pub options: Arc<proto::BuildOptions>,
    pub executor: Executor,
    pub worker_id: String,
    /// What this worker runs.
    platforms: Arc<[Platform]>,
    places: Places,
    trace: Trace,
    dockerfile: Arc<fault::Text>,
    records: Arc<Records>,
    images: Arc<Images>,
    folders: Arc<Folders>,
    exchange: Arc<Exchange>,
    likely: Arc<Likely>,
    /// Steps that may run at once.
    slots: Arc<Semaphore>,
}

impl Graph {
    pub fn new(options: proto::BuildOptions, executor: Executor, likely_keys: Vec<String>, log: Arc<Log>) -> Self {
        let at_once = match usize::try_from(options.max_parallel) {
            Ok(limit @ 1..) => limit,
            _ => STEPS_AT_ONCE,
        };
        Self {
            options: Arc::new(options),
            trace: Trace::new(log),
            dockerfile: Arc::default(),
            records: Arc::new(Records::new(executor.worker.bus.clone(), &executor.build_id, executor.attempt)),
            images: Arc::default(),
            folders: Arc::default(),
            exchange: Arc::default(),
            likely: Arc::new(Likely::new(likely_keys)),
            slots: Arc::new(Semaphore::new(at_once)),
            worker_id: executor.worker.claims.worker_id().to_owned(),
            platforms: crate::platforms::supported().into(),
            places: Places::default(),
            executor,
        }
    }

    /// Builds, and waits until all layers are stored and recorded.
    ///
    /// # Errors
    /// `User` and `Process` in BuildKit's words.
    pub async fn run(&self) -> Result<Finished, Failure> {
        let finished = self.finish().await;
        self.trace.flush().await;
        finished
    }

    async fn finish(&self) -> Result<Finished, Failure> {
        if let Some(wanted) = &self.options.look_at {
            return self.look_at(wanted).await;
        }
        let outputs = export::options::parse(&self.options)?;
        let (source, ()) = tokio::join!(self.source(), self.look_ahead());
        let mut source = match source {
            Ok(source) => source,
            Err(error) => return self.unparsed(error),
        };
        let plans = match self.plans(&source) {
            Ok(plans) => plans,
            Err(error) => return self.unplanned(&source, error).await,
        };
        source.read_by(&plans);
        let source = Arc::new(source);
        let first = plans[0].clone();
        if let Some(answer) = self.answer(&source, &first).await? {
            return Ok(answer);
        }
        exchange::check(&self.options)?;
        let graph = Self { exchange: Arc::new(self.import_caches().await), ..self.clone() };
        let built = graph.checked(&source, &first, graph.build(source.clone(), plans)).await?;
        let wanted = if graph.options.squash { graph.squashed(&built).await? } else { built.clone() };
        let mut finished = graph.export(&outputs, wanted.clone()).await?;
        finished.results = graph.results(&wanted).await?;
        finished.response.extend(graph.export_caches(&built).await?);
        Ok(finished)
    }

    /// One for each platform, at least one.
    fn plans(&self, source: &Source) -> Result<Vec<Plan>, Failure> {
        let wanted: Vec<Platform> = match self.options.platforms.as_slice() {
            [] if self.options.platform.is_empty() => vec![Platform::host()],
            [] => vec![parse_platform(&self.options.platform)?],
            many => many.iter().map(|text| parse_platform(text)).collect::<Result<_, _>>()?,
        };
        wanted.into_iter().map(|platform| Plan::new(source.file.clone(), &self.options, platform)).collect()
    }

    async fn build(&self, source: Arc<Source>, plans: Vec<Plan>) -> Result<Vec<Built>, Failure> {
        let many = plans.len() > 1;
        let mut solvings = Vec::new();
        for (number, plan) in plans.into_iter().enumerate() {
            let epoch = plan.epoch()?;
            let shown = many.then(|| plan.platform.to_string());
            let wanted = solving::Wanted { plan, number, shown, epoch };
            solvings.push(Solving::new(self.clone(), source.clone(), wanted));
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
        Built {
            config: state.config(),
            platform: state.platform,
            layers: state.layers,
            base: state.base,
            epoch: state.epoch,
        }
    }

    /// Waits until what was made before a failure is recorded: it is worth keeping.
    pub async fn keep(&self) -> Result<(), Failure> {
        self.records.finish().await
    }
}

fn parse_platform(text: &str) -> Result<Platform, Failure> {
    text.parse().map_err(|error| Failure::user(format!("failed to parse platform {text}: {error}")))
}
