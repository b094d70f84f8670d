//! One stage: its base, then its instructions in order.

use dockerfile::{Dialect, Instruction, Kind, is_step};
use model::Platform;

use super::folders::Folder;
use super::instructions::may_copy;
use super::named::Resolved;
use super::plan::Base;
use super::solving::Solving;
use super::state::State;
use super::trace::Vertex;
use crate::failure::Failure;
use crate::heredocs::only_heredoc;

/// Names of a stage's steps, as BuildKit writes them: `[build 2/5] RUN make`.
pub struct Names {
    shown: String,
    platform: Option<String>,
    step: usize,
    steps: usize,
}

/// What is evaluated next: an instruction of the stage, or a trigger that its base has brought.
struct Next {
    instruction: Instruction,
    trigger: bool,
}

impl Names {
    pub fn next(&mut self, text: &str) -> String {
        self.step += 1;
        let width = self.steps.to_string().len();
        let before: String = self
            .platform
            .iter()
            .chain([&self.shown])
            .filter(|word| !word.is_empty())
            .map(|word| format!("{word} "))
            .collect();
        format!("[{before}{:width$}/{}] {text}", self.step, self.steps)
    }
}

impl Solving {
    /// Evaluates a stage, and makes all its layers.
    pub async fn stage(&self, number: usize) -> Result<State, Failure> {
        let plan = &self.wanted.plan;
        let (stage, node) = plan.stage(number);
        let platform = plan.platform_of(number)?;
        let (mut state, image) = self.base(number, &platform).await.map_err(|error| error.on(stage.line))?;
        let triggers = std::mem::take(&mut state.file.config.on_build);
        let mut all = Vec::new();
        for trigger in &triggers {
            all.push(Next { instruction: parse_trigger(trigger)?, trigger: true });
        }
        let own = plan.instructions(number).iter().cloned();
        all.extend(own.map(|instruction| Next { instruction, trigger: false }));
        let steps = all.iter().filter(|next| is_step(&next.instruction.kind)).count() + usize::from(image.is_some());
        let mut names = Names { shown: node.shown.clone(), platform: self.wanted.shown.clone(), step: 0, steps };
        let place = |step: usize| format!("{} {} {number} {step}", self.graph.executor.build_id, self.wanted.number);
        let vertex = |step, name, line| {
            let mut vertex = Vertex::new(&self.graph.trace, &place(step), name);
            vertex.told.line = u32::try_from(line).unwrap_or_default();
            vertex
        };
        let mut below = String::new();
        if let Some(image) = image {
            let mut from = vertex(0, names.next(&format!("FROM {image}")), stage.line);
            from.cached().await;
            from.digest().clone_into(&mut below);
        }
        if let Err((at, error)) = self.rehearse(state.clone(), &all) {
            return Err(if all[at].trigger { error } else { error.on(all[at].instruction.line) });
        }
        let mut vertices = Vec::new();
        for (step, next) in all.iter().enumerate().filter(|(_, next)| is_step(&next.instruction.kind)) {
            let mark = if next.trigger { "ONBUILD " } else { "" };
            let name = names.next(&format!("{mark}{}", shown(&next.instruction)));
            let mut vertex = vertex(step + 1, name, next.instruction.line);
            vertex.told.inputs.extend(Some(below).filter(|below| !below.is_empty()));
            below = vertex.digest().to_owned();
            vertex.announce().await;
            vertices.push((step, vertex));
        }
        let mut vertices = vertices.into_iter().peekable();
        for (step, next) in all.iter().enumerate() {
            let kind = &next.instruction.kind;
            if let Kind::Arg(declarations) = kind {
                state.declare(&plan.globals, &plan.lexer, declarations)?;
                continue;
            }
            let kind = kind.expanded(&plan.lexer, &|name: &str| state.scope.value(name))?;
            match vertices.next_if(|(at, _)| *at == step) {
                Some((_, mut vertex)) => {
                    let made = self.layer_step(number, &mut state, &mut vertex, kind).await;
                    told(&mut vertex, made).await?;
                }
                None => state.configure(kind)?,
            }
        }
        Ok(state)
    }

    /// What a stage begins on; with the image's name where it is one.
    async fn base(&self, stage: usize, platform: &Platform) -> Result<(State, Option<String>), Failure> {
        let epoch = self.wanted.epoch;
        let base = match self.graph.resolved(&self.wanted.plan, &self.wanted.plan.graph.nodes[stage].base)? {
            Resolved::Base(base) => base,
            Resolved::Url(url) => {
                let context = self.graph.url_context(&url, !self.ignores_cache(stage)).await?;
                return Ok((State::of_files(platform.clone(), epoch, context.layer)?, None));
            }
            Resolved::Brought(image) => {
                let image = self.graph.brought(&image, platform).await?;
                return Ok((State::on(&image.image, epoch)?, Some(image.name.clone())));
            }
            Resolved::Folder(folder) => {
                return self.on_folder(stage, &folder, State::scratch(platform.clone(), epoch)).await;
            }
        };
        Ok(match base {
            Base::Empty => (State::scratch(platform.clone(), epoch), None),
            Base::Stage(earlier) => (self.other(earlier).await?.child(), None),
            Base::Image(reference) => {
                let image = self.graph.image(&reference, platform).await?;
                (State::on(&image.image, epoch)?, Some(image.name.clone()))
            }
            Base::Context(name) => return Err(Failure::internal(format!("a context {name} in a context"))),
        })
    }

    /// A stage that begins on a folder of the client.
    async fn on_folder(
        &self,
        stage: usize,
        folder: &Folder,
        mut state: State,
    ) -> Result<(State, Option<String>), Failure> {
        let origin = self.graph.folder_context(folder).await?;
        let place = format!("{} {} {stage} folder", self.graph.executor.build_id, self.wanted.number);
        let mut vertex = Vertex::new(&self.graph.trace, &place, format!("[context {0}] FROM {0}", folder.context));
        let made = self.files_step(stage, &mut state, &mut vertex, origin).await;
        told(&mut vertex, made).await?;
        Ok((state, None))
    }

    async fn layer_step(
        &self,
        number: usize,
        state: &mut State,
        vertex: &mut Vertex,
        kind: Kind,
    ) -> Result<(), Failure> {
        match kind {
            Kind::Run(run) => self.run_step(number, state, vertex, run).await,
            Kind::Copy(copy) => self.copy_step(number, state, vertex, "COPY", copy).await,
            Kind::Add(copy) => self.copy_step(number, state, vertex, "ADD", copy).await,
            Kind::Workdir(path) => self.workdir_step(number, state, vertex, &path).await,
            other => Err(Failure::internal(format!("{} makes no layer", other.name()))),
        }
    }

    /// Evaluates a stage without making anything, so that its author's mistakes are told before any of its commands runs,
    /// and not as a step's.
    ///
    /// # Errors
    /// Which of the instructions is wrong, and why.
    fn rehearse(&self, mut state: State, all: &[Next]) -> Result<(), (usize, Failure)> {
        for (at, next) in all.iter().enumerate() {
            self.rehearse_one(&mut state, &next.instruction.kind).map_err(|error| (at, error))?;
        }
        Ok(())
    }

    fn rehearse_one(&self, state: &mut State, kind: &Kind) -> Result<(), Failure> {
        let plan = &self.wanted.plan;
        if let Kind::Arg(declarations) = kind {
            return state.declare(&plan.globals, &plan.lexer, declarations);
        }
        match kind.expanded(&plan.lexer, &|name: &str| state.scope.value(name))? {
            Kind::Workdir(path) => drop(state.enter(&path)),
            Kind::Run(run) => {
                for mount in &run.mounts {
                    mount.expanded(&plan.lexer, &|name: &str| state.scope.value(name), state.working_dir())?;
                }
                self.may_run(&run)?;
            }
            Kind::Copy(copy) => may_copy("COPY", &copy)?,
            Kind::Add(copy) => may_copy("ADD", &copy)?,
            kind => state.configure(kind)?,
        }
        Ok(())
    }

    /// Whether a stage's steps neither look into the cache nor follow others.
    pub fn ignores_cache(&self, number: usize) -> bool {
        let options = &self.graph.options;
        let name = self.wanted.plan.file.stages[number].name.as_deref();
        let named = |other: &String| name.is_some_and(|name| name.eq_ignore_ascii_case(other));
        options.no_cache || options.no_cache_stages.iter().any(named)
    }
}

/// Tells of a failure that the step has not told itself.
async fn told(vertex: &mut Vertex, made: Result<(), Failure>) -> Result<(), Failure> {
    if let Err(error) = &made
        && vertex.told.completed_ns == 0
    {
        vertex.complete(Some(error)).await;
    }
    made
}

fn parse_trigger(trigger: &str) -> Result<Instruction, Failure> {
    let instruction = dockerfile::parse_instruction_as(trigger, Dialect::BuildKit)?;
    match instruction.kind {
        Kind::Onbuild(_) => Err(Failure::user("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")),
        Kind::Maintainer(_) => Err(Failure::user("MAINTAINER isn't allowed as an ONBUILD trigger")),
        _ => Ok(instruction),
    }
}

/// An instruction as a step's name shows it: on one line, of a heredoc its first line.
fn shown(instruction: &Instruction) -> String {
    let (word, rest) = instruction.original.split_once(char::is_whitespace).unwrap_or((&instruction.original, ""));
    let text = format!("{} {}", word.to_uppercase(), rest.trim_start());
    let heredoc = match &instruction.kind {
        Kind::Run(run) => only_heredoc(&run.command, &run.heredocs),
        _ => None,
    };
    match heredoc.map(|heredoc| heredoc.content.trim()) {
        None => text,
        Some(content) => {
            let first = content.lines().next().unwrap_or_default();
            let more = if content.lines().nth(1).is_some() { "..." } else { "" };
            format!("{text} ({first}{more})")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_buildkits() {
        let mut names = Names { shown: "build".to_owned(), platform: None, step: 0, steps: 12 };
        assert_eq!(names.next("FROM x"), "[build  1/12] FROM x");
        let mut one = Names { shown: String::new(), platform: Some("linux/arm64".to_owned()), step: 0, steps: 2 };
        assert_eq!(one.next("FROM x"), "[linux/arm64 1/2] FROM x");
        let shown_of = |text: &str| shown(&dockerfile::parse_instruction_as(text, Dialect::BuildKit).expect(text));
        assert_eq!(shown_of("run echo  a"), "RUN echo  a");
        assert_eq!(shown_of("RUN <<EOF\na\nb\nEOF\n"), "RUN <<EOF (a...)");
        assert_eq!(shown_of("RUN << EOF\na\nEOF\n"), "RUN << EOF (a)");
        assert_eq!(shown_of("RUN cat <<EOF\na\nEOF\n"), "RUN cat <<EOF");
    }
}
