//! Runs a plan as Docker's classic builder does: the same lines, the same history, one image after each step.
//!
//! ```text
//! Builder::run ── from: stage begins ──┬─ metadata: the configuration changes
//!                                      ├─ files:    COPY and ADD into a new layer
//!                                      └─ run:      a container whose upper folder becomes a layer
//!                  each: steps::begin_step (cache, claim, or another's step) → work → steps::record (gateway)
//! ```
//!
//! Stages run at once. One that needs an earlier one, by FROM or `--from`, waits for its end there; what each prints is
//! told in their order.

mod files;
mod from;
mod metadata;
mod run;
mod share;
mod sources;
mod squash;
mod stage;
mod stages;
mod stays;
mod steps;
mod told;

use std::sync::Arc;

use bus::Bus;
use dockerfile::{Instruction, Kind, Lexer};
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::arguments::Arguments;
use crate::claims::Claims;
use crate::context::Context;
use crate::failure::Failure;
use crate::halt::Halt;
use crate::image;
use crate::layers::Layers;
use crate::lifeline::Renewals;
use crate::log::Log;
use crate::machine::Machine;
use crate::plan::Plan;
use crate::recorder::Recorder;
use sources::Source;
use stage::Stage;
use stages::Stages;

/// Stages of one build that run at once.
const STAGES_AT_ONCE: usize = 8;

/// One build on this worker. A clone is the same build; each stage has its own, for its part of the log.
#[derive(Clone)]
pub struct Builder {
    pub build_id: String,
    pub attempt: u32,
    pub options: Arc<proto::BuildOptions>,
    pub bus: Bus,
    pub log: Arc<Log>,
    pub layers: Arc<Layers>,
    pub context: Arc<Context>,
    pub machine: Machine,
    pub cancel: CancellationToken,
    pub gone: CancellationToken,
    pub stop: CancellationToken,
    /// Renewed as long as this worker has the build.
    pub lease: Renewals,
    pub claims: Arc<Claims>,
    pub recorder: Arc<Recorder>,
    /// Images of `--cache-from`.
    sources: Arc<Mutex<Vec<Source>>>,
}

/// What a build needs besides itself.
pub struct Parts {
    pub bus: Bus,
    pub log: Arc<Log>,
    pub layers: Layers,
    pub context: Arc<Context>,
    pub machine: Machine,
    pub claims: Arc<Claims>,
    /// Renewed as long as this worker has the build.
    pub lease: Renewals,
    /// The build is to end, for whatever reason.
    pub cancel: CancellationToken,
    /// Nobody wants it any more.
    pub gone: CancellationToken,
    /// The worker ends.
    pub stop: CancellationToken,
}

/// What changes while a stage is run.
#[derive(Clone)]
pub(crate) struct Progress {
    lexer: Lexer,
    arguments: Arguments,
    stages: Arc<Stages>,
    /// Which of them this one is.
    number: usize,
    step: usize,
    steps: usize,
    /// The steps of this stage's FROM and instructions: the first, and how many.
    own: (usize, usize),
}

impl Progress {
    /// A step's place in its stage, as BuildKit shows it: "build 2/5"; the only stage of a Dockerfile has no name.
    fn place(&self) -> String {
        let (first, count) = self.own;
        let name = match self.stages.count() {
            1 => String::new(),
            _ => format!("{} ", self.stages.name(self.number).unwrap_or(format!("stage-{}", self.number))),
        };
        format!("{name}{}/{count}", self.step.saturating_sub(first))
    }
}

impl Builder {
    pub fn new(lease: &proto::BuildLease, options: proto::BuildOptions, parts: Parts) -> Self {
        let Parts { bus, log, layers, context, machine, claims, lease: renewals, cancel, gone, stop } = parts;
        Self {
            build_id: lease.build_id.clone(),
            attempt: lease.attempt,
            options: Arc::new(options),
            recorder: Arc::new(Recorder::new(bus.clone())),
            sources: Arc::default(),
            bus,
            log,
            layers: Arc::new(layers),
            context,
            machine,
            cancel,
            gone,
            stop,
            lease: renewals,
            claims,
        }
    }

    /// Runs every stage; gives the last one, which has an image.
    pub async fn run(&self, plan: Plan) -> Result<Stage, Failure> {
        if !plan.warnings.is_empty() {
            self.log.stream(&format!("\x1b[91m{}\n\x1b[0m", plan.warnings.join("\n"))).await?;
        }
        *self.sources.lock().await = self.sources().await?;
        let given = self.options.build_args.iter().map(|(name, value)| (name.clone(), Some(value.clone())));
        let unset = self.options.unset_build_args.iter().map(|name| (name.clone(), None));
        let mut progress = Progress {
            lexer: Lexer::new(plan.escape),
            arguments: Arguments::new(given.chain(unset).collect()),
            stages: Arc::new(Stages::new(&plan.stages)),
            number: 0,
            step: 0,
            steps: plan.step_count(),
            own: (0, 0),
        };
        for argument in &plan.meta_args {
            self.announce(&mut progress, &argument.original).await?;
            self.meta_argument(&mut progress, argument)?;
        }
        let halt = self.cancel.child_token();
        let _halted = halt.clone().drop_guard();
        let (mut logs, mut running) = (Vec::new(), Vec::new());
        for (number, stage) in plan.stages.into_iter().enumerate() {
            let own = (progress.step, 1 + stage.instructions.len());
            let begun = Progress { number, own, ..progress.clone() };
            progress.step += 1 + stage.instructions.len();
            let log = Arc::new(self.log.part());
            logs.push(log.clone());
            let builder = Self { log, cancel: halt.clone(), ..self.clone() };
            let work = Halt::new(halt.clone());
            running.push(work.scope(async move { builder.stage(begun, stage).await }).boxed());
        }
        let mut running = futures::stream::iter(running).buffered(self.stages_at_once());
        let mut last = Stage::default();
        for log in logs {
            // The log's turn has come before the stage is waited for: what it says is told while it runs.
            let (told, ended) = tokio::join!(log.go_on(), running.next());
            let ended = told.map_err(Failure::from).and(ended.unwrap_or(Err(Failure::Cancelled)));
            let (arguments, stage) = match ended {
                Ok(ended) => ended,
                Err(error) => {
                    // Nothing of the other stages may go on when the build's end is told.
                    halt.cancel();
                    while running.next().await.is_some() {}
                    return Err(error);
                }
            };
            progress.arguments.also_declared(&arguments);
            if !stage.image_id.is_empty() {
                self.log.aux(&stage.image_id).await?;
            }
            last = stage;
        }
        let unused = progress.arguments.unused();
        if !unused.is_empty() {
            let warning = format!("[Warning] One or more build-args [{}] were not consumed\n", unused.join(" "));
            self.log.stream(&warning).await?;
        }
        match last.image_id.is_empty() {
            false => Ok(last),
            true => Err(Failure::user("No image was generated. Is your Dockerfile empty?")),
        }
    }

    /// One where the order of stages shows in more than the log: containers that stay, and images of `--cache-from`,
    /// whose history is followed from step to step.
    fn stages_at_once(&self) -> usize {
        if self.removes_containers() && self.options.cache_from.is_empty() { STAGES_AT_ONCE } else { 1 }
    }

    async fn announce(&self, progress: &mut Progress, original: &str) -> Result<(), Failure> {
        if self.cancel.is_cancelled() {
            return Err(Failure::Cancelled);
        }
        progress.step += 1;
        // Two writes, as Docker's: clients see two messages.
        self.log.stream(&format!("Step {}/{} : {original}", progress.step, progress.steps)).await?;
        Ok(self.log.stream("\n").await?)
    }

    fn meta_argument(&self, progress: &mut Progress, argument: &Instruction) -> Result<(), Failure> {
        let arguments = &progress.arguments;
        let expanded = argument.kind.expanded(&progress.lexer, &|name| arguments.meta_value(name))?;
        if let Kind::Arg(declarations) = expanded {
            declarations.into_iter().for_each(|declaration| progress.arguments.declare_meta(declaration));
        }
        Ok(())
    }

    async fn stage(&self, mut progress: Progress, stage: dockerfile::Stage) -> Result<(Arguments, Stage), Failure> {
        self.announce(&mut progress, &stage.original).await?;
        progress.arguments.next_stage();
        let telling = self.tell_begin(&progress, (stage.line, &stage.original), (None, &Stage::default())).await?;
        let (mut state, begun) = match self.begin(&mut progress, &stage).await {
            Ok(state) => (state, Ok(())),
            Err(failure) => (Stage::default(), Err(failure)),
        };
        state.told = None;
        let mut before = self.tell_end(telling, None, &begun).await?;
        begun?;
        self.print_image(&state).await?;
        if let Some(name) = &state.name
            && progress.stages.named(name, progress.number).is_some()
        {
            return Err(Failure::user(format!("{name} stage name already used")));
        }
        for instruction in &stage.instructions {
            self.announce(&mut progress, &instruction.original).await?;
            let step = (instruction.line, instruction.original.as_str());
            let telling = self.tell_begin(&progress, step, (Some(&before), &state)).await?;
            let done = self.dispatch(&mut progress, &mut state, instruction).await;
            before = self.tell_end(telling, state.told.take(), &done).await?;
            done?;
            self.print_image(&state).await?;
        }
        progress.stages.end(progress.number, &state);
        Ok((progress.arguments, state))
    }

    /// An earlier stage, once it has ended.
    async fn earlier(&self, progress: &Progress, number: usize) -> Result<Stage, Failure> {
        tokio::select! {
            () = self.cancel.cancelled() => Err(Failure::Cancelled),
            stage = progress.stages.ended(number) => Ok(stage),
        }
    }

    async fn print_image(&self, stage: &Stage) -> Result<(), Failure> {
        Ok(self.log.stream(&format!(" ---> {}\n", model::short_id(&stage.image_id))).await?)
    }

    async fn dispatch(
        &self,
        progress: &mut Progress,
        stage: &mut Stage,
        instruction: &Instruction,
    ) -> Result<(), Failure> {
        let kind = {
            let arguments = &progress.arguments;
            let lookup = |name: &str| {
                image::variable(&stage.config, name).map(str::to_owned).or_else(|| arguments.stage_value(name))
            };
            instruction.kind.expanded(&progress.lexer, &lookup)?
        };
        match kind {
            Kind::Run(run) => self.run_step(progress, stage, run).await,
            Kind::Copy(copy) => self.files_step(progress, stage, "COPY", copy).await,
            Kind::Add(copy) => self.files_step(progress, stage, "ADD", copy).await,
            Kind::Workdir(path) => self.workdir_step(progress, stage, &path).await,
            kind => self.metadata_step(progress, stage, kind).await,
        }
    }
}
