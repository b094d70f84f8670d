//! Which stages a Dockerfile has, on what each stands, and which of them the target needs. Pure.

use std::collections::BTreeSet;

use dockerfile::{Dockerfile, Instruction, Kind, Lexer};

use super::scope::Globals;
use crate::failure::Failure;

/// A Dockerfile as far as one platform's build knows it before anything is looked up.
#[derive(Clone, Debug)]
pub struct Plan {
    pub lexer: Lexer,
    pub globals: Globals,
    pub stages: Vec<Stage>,
    pub target: usize,
}

#[derive(Clone, Debug)]
pub struct Stage {
    /// As it is shown: its own name, else "stage-1"; empty where there is but one stage.
    pub shown: String,
    pub name: Option<String>,
    pub line: usize,
    pub base: Base,
    /// `--platform`, expanded.
    pub platform: Option<String>,
    pub instructions: Vec<Instruction>,
}

/// What a stage begins on, or what files come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    Scratch,
    /// An earlier stage.
    Stage(usize),
    /// By reference, or by the name of a context that the build was given.
    Image(String),
}

const SCRATCH: &str = "scratch";

impl Plan {
    /// # Errors
    /// `User`, in BuildKit's words, for an unknown target and stages that need each other.
    pub fn new(file: Dockerfile, globals: Globals, target: &str) -> Result<Self, Failure> {
        let lexer = Lexer::new(file.directives.escape);
        let globals = globals.declared(&lexer, &file.meta_args)?;
        let many = file.stages.len() > 1;
        let mut stages: Vec<Stage> = Vec::new();
        for (number, stage) in file.stages.into_iter().enumerate() {
            let base = lexer.expand(&stage.base, &|name| globals.value(name))?;
            if base.is_empty() {
                return Err(Failure::user(format!("base name ({}) should not be blank", stage.base)));
            }
            let platform = stage.platform.as_ref();
            let platform = platform.map(|text| lexer.expand(text, &|name| globals.value(name))).transpose()?;
            let base = match find(&stages, &base) {
                Some(earlier) => Base::Stage(earlier),
                None if base == SCRATCH => Base::Scratch,
                None => Base::Image(base),
            };
            let shown = match (&stage.name, many) {
                (_, false) => String::new(),
                (Some(name), true) => name.clone(),
                (None, true) => format!("stage-{number}"),
            };
            let (name, line, instructions) = (stage.name, stage.line, stage.instructions);
            stages.push(Stage { shown, name, line, base, platform: platform.filter(|p| !p.is_empty()), instructions });
        }
        let target = match target {
            "" => stages.len() - 1,
            name => find(&stages, name)
                .or_else(|| name.parse().ok().filter(|number| *number < stages.len()))
                .ok_or_else(|| Failure::user(format!("target stage {name:?} could not be found")))?,
        };
        let plan = Self { lexer, globals, stages, target };
        plan.needed()?;
        Ok(plan)
    }

    /// What `--from` means, anywhere in the file.
    pub fn from(&self, from: &str) -> Result<Base, Failure> {
        if let Some(number) = find(&self.stages, from) {
            return Ok(Base::Stage(number));
        }
        match from.parse::<usize>() {
            Ok(number) if number < self.stages.len() => Ok(Base::Stage(number)),
            Ok(number) => Err(Failure::user(format!("invalid stage index {number}"))),
            Err(_) if from == SCRATCH => Ok(Base::Scratch),
            Err(_) => Ok(Base::Image(from.to_owned())),
        }
    }

    /// The stages that the target needs, itself among them.
    pub fn needed(&self) -> Result<BTreeSet<usize>, Failure> {
        let mut needed = BTreeSet::new();
        self.visit(self.target, &mut Vec::new(), &mut needed)?;
        Ok(needed)
    }

    fn visit(&self, number: usize, above: &mut Vec<usize>, needed: &mut BTreeSet<usize>) -> Result<(), Failure> {
        if above.contains(&number) {
            let shown = self.stages[number].name.clone().unwrap_or_else(|| format!("stage-{number}"));
            return Err(Failure::user(format!("circular dependency detected on stage: {shown}")));
        }
        if !needed.insert(number) {
            return Ok(());
        }
        above.push(number);
        let stage = &self.stages[number];
        if let Base::Stage(base) = stage.base {
            self.visit(base, above, needed)?;
        }
        for from in stage.instructions.iter().flat_map(|instruction| froms(&instruction.kind)) {
            if let Base::Stage(other) = self.from(&from)? {
                self.visit(other, above, needed)?;
            }
        }
        above.pop();
        Ok(())
    }
}

/// What an instruction reads besides its stage and the build's context.
pub fn froms(kind: &Kind) -> Vec<String> {
    match kind {
        Kind::Copy(copy) | Kind::Add(copy) => copy.from.iter().cloned().collect(),
        Kind::Run(run) => run.mounts.iter().filter_map(|mount| mount.from.clone()).collect(),
        _ => Vec::new(),
    }
}

/// The last stage of this name. Case does not count.
fn find(stages: &[Stage], name: &str) -> Option<usize> {
    stages.iter().rposition(|stage| stage.name.as_deref().is_some_and(|other| other.eq_ignore_ascii_case(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(source: &str, target: &str) -> Result<Plan, String> {
        let file = Dockerfile::parse_as(source, dockerfile::Dialect::BuildKit).map_err(|error| error.to_string())?;
        Plan::new(file, Globals::default(), target).map_err(|error| error.to_string())
    }

    #[test]
    fn only_what_the_target_needs() {
        let source = "FROM a AS one\nFROM b AS two\nRUN x\nFROM One AS three\nCOPY --from=two /x /\nFROM c AS four\n";
        for (target, needed) in [("", vec![3]), ("three", vec![0, 1, 2]), ("ONE", vec![0]), ("1", vec![1])] {
            let found = plan(source, target).expect(target).needed().expect("needed");
            assert_eq!(found.into_iter().collect::<Vec<_>>(), needed, "{target}");
        }
        assert_eq!(plan(source, "five").expect_err("unknown"), "target stage \"five\" could not be found");
        let circle = "FROM a AS one\nCOPY --from=two /x /\nFROM b AS two\nCOPY --from=one /x /\n";
        assert_eq!(plan(circle, "").expect_err("a circle"), "circular dependency detected on stage: two");
        assert_eq!(plan("FROM a\nCOPY --from=7 /x /\n", "").expect_err("no such"), "invalid stage index 7");
    }

    #[test]
    fn bases_are_earlier_stages_or_images() {
        let plan = plan("ARG V=1\nFROM b:$V AS b\nFROM b\nFROM scratch\nFROM c\n", "").expect("a plan");
        let bases: Vec<&Base> = plan.stages.iter().map(|stage| &stage.base).collect();
        assert_eq!(bases, [&Base::Image("b:1".into()), &Base::Stage(0), &Base::Scratch, &Base::Image("c".into())]);
        assert_eq!(plan.stages[1].shown, "stage-1");
    }
}
