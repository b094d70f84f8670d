//! Runs a plan as Docker's classic builder does: the same lines, the same history, one image after each step.
//!
//! ```text
//! Builder::run ── from: stage begins ──┬─ metadata: the configuration changes
//!                                      ├─ files:    COPY and ADD into a new layer
//!                                      └─ run:      a container whose upper folder becomes a layer
//!                  each: steps::look_up (cache) → work → steps::record (gateway)
//! ```

mod files;
mod from;
mod metadata;
mod output;
mod run;
pub(crate) use run::bind;
mod sources;
mod stage;
mod stays;
mod steps;
mod tree;

use std::sync::Arc;

use bus::Bus;
use dockerfile::{Instruction, Kind, Lexer};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::arguments::Arguments;
use crate::context::Context;
use crate::failure::Failure;
use crate::image;
use crate::layers::Layers;
use crate::log::Log;
use crate::machine::Machine;
use crate::plan::Plan;
use crate::recorder::Recorder;
use sources::Source;
use stage::Stage;

/// One build on this worker.
pub struct Builder {
    pub build_id: String,
    pub attempt: u32,
    pub options: proto::BuildOptions,
    pub bus: Bus,
    pub log: Log,
    pub layers: Layers,
    pub context: Arc<Context>,
    pub machine: Machine,
    pub cancel: CancellationToken,
    pub recorder: Recorder,
    /// Images of `--cache-from`.
    sources: Mutex<Vec<Source>>,
}

/// What a build needs besides itself.
pub struct Parts {
    pub bus: Bus,
    pub log: Log,
    pub layers: Layers,
    pub context: Arc<Context>,
    pub machine: Machine,
    pub cancel: CancellationToken,
}

/// What changes while the plan is run.
struct Progress {
    lexer: Lexer,
    arguments: Arguments,
    /// Finished stages, in order.
    stages: Vec<Stage>,
    step: usize,
    steps: usize,
}

impl Builder {
    pub fn new(lease: &proto::BuildLease, options: proto::BuildOptions, parts: Parts) -> Self {
        let Parts { bus, log, layers, context, machine, cancel } = parts;
        let build_id = lease.build_id.clone();
        let recorder = Recorder::new(bus.clone());
        let sources = Mutex::default();
        Self {
            build_id,
            attempt: lease.attempt,
            options,
            bus,
            log,
            layers,
            context,
            machine,
            cancel,
            recorder,
            sources,
        }
    }

    /// Runs every stage; gives the id of the last one's image.
    pub async fn run(&self, plan: Plan) -> Result<String, Failure> {
        if !plan.warnings.is_empty() {
            self.log.stream(&format!("\x1b[91m{}\n\x1b[0m", plan.warnings.join("\n"))).await?;
        }
        *self.sources.lock().await = self.sources().await?;
        let given = self.options.build_args.iter().map(|(name, value)| (name.clone(), Some(value.clone())));
        let unset = self.options.unset_build_args.iter().map(|name| (name.clone(), None));
        let mut progress = Progress {
            lexer: Lexer::new(plan.escape),
            arguments: Arguments::new(given.chain(unset).collect()),
            stages: Vec::new(),
            step: 0,
            steps: plan.step_count(),
        };
        for argument in &plan.meta_args {
            self.announce(&mut progress, &argument.original).await?;
            self.meta_argument(&mut progress, argument)?;
        }
        for stage in plan.stages {
            let stage = self.stage(&mut progress, stage).await?;
            if !stage.image_id.is_empty() {
                self.log.aux(&stage.image_id).await?;
            }
            progress.stages.push(stage);
        }
        let unused = progress.arguments.unused();
        if !unused.is_empty() {
            let warning = format!("[Warning] One or more build-args [{}] were not consumed\n", unused.join(" "));
            self.log.stream(&warning).await?;
        }
        match progress.stages.pop() {
            Some(last) if !last.image_id.is_empty() => Ok(last.image_id),
            _ => Err(Failure::user("No image was generated. Is your Dockerfile empty?")),
        }
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

    async fn stage(&self, progress: &mut Progress, stage: dockerfile::Stage) -> Result<Stage, Failure> {
        self.announce(progress, &stage.original).await?;
        progress.arguments.next_stage();
        let mut state = self.begin(progress, &stage).await?;
        self.print_image(&state).await?;
        if let Some(name) = &state.name
            && progress.stages.iter().any(|other| other.name.as_ref() == Some(name))
        {
            return Err(Failure::user(format!("{name} stage name already used")));
        }
        for instruction in &stage.instructions {
            self.announce(progress, &instruction.original).await?;
            self.dispatch(progress, &mut state, instruction).await?;
            self.print_image(&state).await?;
        }
        Ok(state)
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
            Kind::Workdir(path) => self.workdir_step(stage, &path).await,
            kind => self.metadata_step(progress, stage, kind).await,
        }
    }
}
