//! Which stages a build needs, as BuildKit decides it: from the target along FROM, COPY --from and RUN --mount=from.

use std::collections::{BTreeSet, HashMap};

use crate::error::Error;
use crate::expand::Lexer;
use crate::instruction::{Instruction, Kind, Stage};
use crate::quote::quote;
use crate::scope::Globals;
use crate::suggest;

/// Where the files of a stage, a copy or a mount come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The number of a stage.
    Stage(usize),
    /// A reference as it is written, with its variables replaced.
    Image(String),
    /// `scratch`: no files.
    Empty,
    /// A context that the client named (`--build-context`).
    Context(String),
}

/// A stage and what it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageNode {
    /// Its name, or `stage-N`; empty where it is the only one and nothing else is copied from. As progress shows it.
    pub shown: String,
    pub base: Origin,
    /// `base` is a context of the stage's own name, which stands for all of the stage: its instructions do not count.
    pub replaced: bool,
    /// `--platform`, with its variables replaced.
    pub platform: Option<String>,
    /// How many steps progress counts.
    pub steps: usize,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Dependency {
    on: usize,
    line: usize,
}

/// The stages of a Dockerfile and how they depend on each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageGraph {
    pub nodes: Vec<StageNode>,
    pub target: usize,
    /// Numbers of the stages that the target needs, itself included.
    pub needed: BTreeSet<usize>,
    /// Stages by their name, in order.
    named: HashMap<String, Vec<usize>>,
}

/// What a graph is made from.
#[derive(Clone, Copy)]
pub struct GraphInput<'a> {
    /// Triggers of base images stand at the head of their stages' instructions.
    pub stages: &'a [Stage],
    pub globals: &'a Globals,
    pub lexer: &'a Lexer,
    /// `--target`, empty for the last stage.
    pub target: &'a str,
    /// Gives the name of the context that stands for an image or a stage of this name, if there is one.
    pub context: &'a dyn Fn(&str) -> Option<String>,
}

/// A FROM whose variables leave it no name.
pub(crate) fn blank_base(stage: &Stage) -> Error {
    Error::meaning(format!("base name ({}) should not be blank", stage.base)).on(stage.line)
}

impl StageGraph {
    /// Resolves every base and every `--from`. Errors are BuildKit's: a target that is not there, a stage's number out
    /// of range, a circle, a stage that is copied from before it is defined.
    pub fn new(input: GraphInput) -> Result<Self, Error> {
        let stages = input.stages;
        let mut graph = Self { nodes: Vec::new(), target: 0, needed: BTreeSet::new(), named: HashMap::new() };
        for (number, stage) in stages.iter().enumerate() {
            let node = graph.node(&input, number, stage)?;
            graph.nodes.push(node);
            if let Some(name) = &stage.name {
                graph.named.entry(name.clone()).or_default().push(number);
            }
        }
        graph.target = graph.find_target(input.target)?;
        let mut images = BTreeSet::new();
        for (number, stage) in stages.iter().enumerate() {
            if !graph.nodes[number].replaced {
                graph.nodes[number].dependencies = graph.dependencies(&input, stage, &mut images)?;
            }
        }
        graph.check_circles()?;
        if stages.len() + images.len() == 1 {
            graph.nodes[0].shown.clear();
        }
        graph.need(graph.target);
        graph.check_order(stages)?;
        Ok(graph)
    }

    /// What a `COPY --from` names: a stage by its number or name, a named context, or an image.
    pub fn copy_origin(&self, from: &str, context: &dyn Fn(&str) -> Option<String>) -> Result<Origin, Error> {
        match from.parse::<i64>() {
            Err(_) if from.contains('$') => Err(Error::meaning(
                "variable expansion is not supported for --from, define a new stage with FROM using ARG from global \
                 scope as a workaround",
            )),
            Ok(number) => match usize::try_from(number) {
                Ok(number) if number < self.nodes.len() => Ok(Origin::Stage(number)),
                _ => Err(Error::meaning(format!("invalid stage index {number}"))),
            },
            Err(_) => Ok(self.mount_origin(from, context)),
        }
    }

    /// What a mount's `from` names: a stage, a named context, or an image.
    pub fn mount_origin(&self, from: &str, context: &dyn Fn(&str) -> Option<String>) -> Origin {
        match self.last_named(&from.to_lowercase()) {
            Some(number) => Origin::Stage(number),
            None => outside(from, context),
        }
    }

    /// The last stage of this name; while the graph is made, of those so far.
    fn last_named(&self, name: &str) -> Option<usize> {
        self.named.get(name).and_then(|stages| stages.last()).copied()
    }

    fn node(&self, input: &GraphInput, number: usize, stage: &Stage) -> Result<StageNode, Error> {
        let lookup = |name: &str| input.globals.value(name);
        let expand = |word: &str| input.lexer.expand(word, &lookup).map_err(|error| error.on(stage.line));
        let base = expand(&stage.base)?;
        if base.is_empty() {
            return Err(blank_base(stage));
        }
        let platform = stage.platform.as_deref().map(expand).transpose()?;
        if platform.as_deref() == Some("") {
            let written = stage.platform.as_deref().unwrap_or_default();
            return Err(Error::meaning(format!("empty platform value from expression {written}")).on(stage.line));
        }
        let shown = stage.name.clone().unwrap_or_else(|| format!("stage-{number}"));
        if let Some(context) = stage.name.as_deref().and_then(input.context) {
            let base = Origin::Context(context);
            return Ok(StageNode { shown, base, replaced: true, platform, steps: 0, dependencies: Vec::new() });
        }
        let base = match self.last_named(&base) {
            Some(earlier) => Origin::Stage(earlier),
            None => outside(&base, input.context),
        };
        let own = stage.instructions.iter().filter(|instruction| is_step(&instruction.kind)).count();
        let steps = own + usize::from(matches!(base, Origin::Image(_) | Origin::Context(_)));
        Ok(StageNode { shown, base, replaced: false, platform, steps, dependencies: Vec::new() })
    }

    fn find_target(&self, target: &str) -> Result<usize, Error> {
        if target.is_empty() {
            return Ok(self.nodes.len() - 1);
        }
        let found = self.last_named(&target.to_lowercase());
        found.ok_or_else(|| {
            let message = format!("target stage {} could not be found", quote(target));
            let mut names: Vec<(&Vec<usize>, &str)> =
                self.named.iter().map(|(name, numbers)| (numbers, name.as_str())).collect();
            names.sort_unstable();
            Error::meaning(suggest::ignoring_case(message, target, names.into_iter().map(|(_, name)| name)))
        })
    }

    fn dependencies(
        &self,
        input: &GraphInput,
        stage: &Stage,
        images: &mut BTreeSet<String>,
    ) -> Result<Vec<Dependency>, Error> {
        let mut found = Vec::new();
        for instruction in &stage.instructions {
            for origin in self.origins(input, instruction)? {
                match origin {
                    Origin::Stage(on) => found.push(Dependency { on, line: instruction.line }),
                    Origin::Image(name) | Origin::Context(name) => drop(images.insert(name)),
                    Origin::Empty => drop(images.insert("scratch".to_owned())),
                }
            }
        }
        Ok(found)
    }

    fn origins(&self, input: &GraphInput, instruction: &Instruction) -> Result<Vec<Origin>, Error> {
        Ok(match &instruction.kind {
            Kind::Copy(copy) => {
                let origin = |from: &String| self.copy_origin(from, input.context);
                copy.from.iter().map(origin).collect::<Result<_, _>>()?
            }
            Kind::Run(run) => {
                let origin = |from: &String| self.mount_origin(from, input.context);
                run.mounts.iter().map(|mount| mount.from.as_ref().map_or(Origin::Empty, origin)).collect()
            }
            _ => Vec::new(),
        })
    }

    fn need(&mut self, number: usize) {
        let mut open = vec![number];
        while let Some(number) = open.pop() {
            if !self.needed.insert(number) {
                continue;
            }
            let node = &self.nodes[number];
            open.extend(node.dependencies.iter().map(|dependency| dependency.on));
            if let Origin::Stage(base) = node.base {
                open.push(base);
            }
        }
    }

    /// Only copies and mounts can close a circle: a base always stands above.
    fn check_circles(&self) -> Result<(), Error> {
        let mut ended = BTreeSet::new();
        for number in 0..self.nodes.len() {
            if let Some(line) = self.circle(number, &mut ended) {
                let shown = &self.nodes[number].shown;
                return Err(Error::meaning(format!("circular dependency detected on stage: {shown}")).on(line));
            }
        }
        Ok(())
    }

    /// The line of the instruction that closes a circle which can be reached from a stage. Not recursive: a hostile
    /// file has as many stages in a row as it has lines.
    fn circle(&self, start: usize, ended: &mut BTreeSet<usize>) -> Option<usize> {
        let mut path = vec![(start, 0)];
        let mut on_path = BTreeSet::from([start]);
        while let Some((stage, next)) = path.last_mut() {
            let Some(dependency) = self.nodes[*stage].dependencies.get(*next).filter(|_| !ended.contains(stage)) else {
                ended.insert(*stage);
                on_path.remove(stage);
                path.pop();
                continue;
            };
            *next += 1;
            if !on_path.insert(dependency.on) {
                return Some(dependency.line);
            }
            path.push((dependency.on, 0));
        }
        None
    }

    fn check_order(&self, stages: &[Stage]) -> Result<(), Error> {
        for &number in &self.needed {
            let later = self.nodes[number].dependencies.iter().find(|dependency| dependency.on > number);
            let Some(later) = later else { continue };
            let (from, to) = (&self.nodes[later.on].shown, &self.nodes[number].shown);
            let at = stages[number].instructions.iter().find(|instruction| instruction.line == later.line);
            let message = match at.map(|instruction| &instruction.kind) {
                Some(Kind::Run(_)) => {
                    format!(
                        "cannot mount from stage {from:?} to {to:?}, stage needs to be defined before current command"
                    )
                }
                _ => format!("cannot copy from stage {from:?}, it needs to be defined before current stage {to:?}"),
            };
            return Err(Error::meaning(message).on(later.line));
        }
        Ok(())
    }
}

fn outside(name: &str, context: &dyn Fn(&str) -> Option<String>) -> Origin {
    if name == "scratch" {
        return Origin::Empty;
    }
    match context(name) {
        Some(context) => Origin::Context(context),
        None => Origin::Image(name.to_owned()),
    }
}

/// Whether an instruction changes files, and so is a step of its own.
pub fn is_step(kind: &Kind) -> bool {
    matches!(kind, Kind::Add(_) | Kind::Copy(_) | Kind::Run(_) | Kind::Workdir(_))
}

/// The triggers that a stage leaves to one that is based on it.
pub fn triggers(stage: &Stage) -> Vec<&str> {
    let kinds = stage.instructions.iter().map(|instruction| &instruction.kind);
    kinds.filter_map(|kind| if let Kind::Onbuild(text) = kind { Some(text.as_str()) } else { None }).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{Dialect, Dockerfile, automatic_args};

    fn graph(source: &str, target: &str) -> Result<StageGraph, String> {
        let file = Dockerfile::parse_as(source, Dialect::BuildKit).map_err(|error| error.to_string())?;
        let lexer = Lexer::new('\\');
        let automatic = automatic_args("linux/amd64", "linux/amd64", target);
        let globals = Globals::new(&file.meta_args, &lexer, automatic, &BTreeMap::new()).expect("globals");
        let context = |name: &str| (name == "ctx").then(|| name.to_owned());
        let input = GraphInput { stages: &file.stages, globals: &globals, lexer: &lexer, target, context: &context };
        StageGraph::new(input).map_err(|error| format!("{}: {error}", error.line()))
    }

    fn needed(source: &str, target: &str) -> Vec<usize> {
        graph(source, target).expect(source).needed.into_iter().collect()
    }

    #[test]
    fn only_what_the_target_needs() {
        let source = "FROM a AS one\nFROM b AS two\nCOPY --from=one /x /\nFROM two AS three\nFROM scratch AS four\n\
                      RUN --mount=from=two,target=/t x\nFROM c AS five\nCOPY --from=3 / /\n";
        assert_eq!(needed(source, ""), [0, 1, 3, 4]);
        assert_eq!(needed(source, "THREE"), [0, 1, 2]);
        assert_eq!(needed(source, "one"), [0]);
        assert_eq!(needed("FROM a AS x\nFROM b AS x\nFROM x\n", ""), [1, 2], "the later of two of a name");
    }

    #[test]
    fn origins_and_what_progress_shows() {
        let graph = graph(
            "ARG V=1\nFROM --platform=$BUILDPLATFORM a:$V\nWORKDIR /x\nENV a=b\nRUN x\nFROM ctx\nFROM y AS ctx\n",
            "",
        )
        .expect("graph");
        let [first, second, third] = graph.nodes.as_slice() else { panic!("{graph:?}") };
        assert_eq!((first.shown.as_str(), &first.base), ("stage-0", &Origin::Image("a:1".to_owned())));
        assert_eq!((first.steps, first.platform.as_deref()), (3, Some("linux/amd64")));
        assert_eq!(second.base, Origin::Context("ctx".to_owned()));
        assert!(third.replaced && third.steps == 0);
        let alone = super::tests::graph("FROM scratch\nCOPY a /\n", "").expect("one stage");
        assert_eq!((alone.nodes[0].shown.as_str(), alone.nodes[0].steps), ("", 1));
        let copies = super::tests::graph("FROM scratch\nCOPY --from=busybox a /\n", "").expect("an image beside it");
        assert_eq!(copies.nodes[0].shown, "stage-0");
    }

    #[test]
    fn what_cannot_be_built() {
        for (source, target, message) in [
            ("FROM a\n", "x", "0: target stage \"x\" could not be found"),
            ("FROM a AS one\n", "nope", "0: target stage \"nope\" could not be found (did you mean one?)"),
            ("FROM a AS s\nCOPY --from=s / /\n", "", "2: circular dependency detected on stage: s"),
            (
                "FROM a AS s\nCOPY --from=t / /\nFROM b AS t\nCOPY --from=s / /\n",
                "",
                "4: circular dependency detected on stage: s",
            ),
            ("FROM a\nCOPY --from=1 / /\n", "", "0: invalid stage index 1"),
            (
                "FROM a\nARG B\nCOPY --from=$B / /\n",
                "",
                "0: variable expansion is not supported for --from, define a new stage with FROM using ARG from global \
                 scope as a workaround",
            ),
            ("FROM a\nCOPY --from=-1 / /\n", "", "0: invalid stage index -1"),
            ("FROM $X\n", "", "1: base name ($X) should not be blank"),
            ("FROM --platform=$X a\n", "", "1: empty platform value from expression $X"),
            (
                "FROM a AS s\nCOPY --from=t / /\nFROM b AS t\n",
                "s",
                "2: cannot copy from stage \"t\", it needs to be defined before current stage \"s\"",
            ),
            (
                "FROM a AS s\nRUN --mount=from=t,target=/x y\nFROM b AS t\n",
                "s",
                "2: cannot mount from stage \"t\" to \"s\", stage needs to be defined before current command",
            ),
        ] {
            assert_eq!(graph(source, target).expect_err(source), message, "{source}");
        }
        let chain: String =
            (0..20_000).map(|stage| format!("FROM a AS s{stage}\nCOPY --from=s{} / /\n", stage + 1)).collect();
        assert!(graph(&chain, "").is_ok_and(|graph| graph.needed.len() == 1));
    }
}
