//! Which variables an instruction of BuildKit's dialect sees: arguments of the whole file, of a stage, and the
//! environment.
//!
//! ```text
//! automatic (TARGETARCH …) ─▶ Globals (ARG before FROM) ─▶ FROM, --platform
//!                                      │ ARG NAME without a default
//! image's environment ─▶ Scope of a stage (ENV, ARG: the later wins) ─▶ every instruction, RUN's environment
//!                                      │ FROM stage
//!                                      ▼ the next stage's Scope
//! ```

use std::collections::BTreeMap;

use crate::error::Error;
use crate::expand::Lexer;
use crate::instruction::{ArgDeclaration, Instruction, Kind};
use crate::mount::boolean;

/// Arguments that steer BuildKit's analysis of what an image holds; no step sees them.
const HIDDEN: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// The automatic arguments of a build for one platform. Platforms are "os/architecture" with an optional variant;
/// `stage` is the target's name, empty where it has none. A build argument of the same name replaces one.
pub fn automatic_args(build: &str, target: &str, stage: &str) -> Vec<(String, String)> {
    let mut args = Vec::new();
    for (prefix, platform) in [("BUILD", build), ("TARGET", target)] {
        let mut parts = platform.splitn(3, '/');
        let mut part = || parts.next().unwrap_or_default().to_owned();
        args.push((format!("{prefix}PLATFORM"), platform.to_owned()));
        args.push((format!("{prefix}OS"), part()));
        args.push((format!("{prefix}OSVERSION"), String::new()));
        args.push((format!("{prefix}ARCH"), part()));
        args.push((format!("{prefix}VARIANT"), part()));
    }
    let stage = if stage.is_empty() { "default" } else { stage };
    args.push(("TARGETSTAGE".to_owned(), stage.to_owned()));
    args
}

/// An ARG of the whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalArg {
    pub name: String,
    pub value: Option<String>,
    /// Variables that its default names.
    pub uses: Vec<String>,
    pub line: usize,
    pub end_line: usize,
    pub comment: String,
}

/// What FROM sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Globals {
    given: BTreeMap<String, String>,
    automatic: Vec<(String, String)>,
    values: Vec<(String, String)>,
    /// In the order of the file.
    pub declared: Vec<GlobalArg>,
}

impl Globals {
    /// Evaluates the ARGs before the first FROM. `given` are the build arguments that have a value.
    pub fn new(
        meta_args: &[Instruction],
        lexer: &Lexer,
        automatic: Vec<(String, String)>,
        given: &BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let value = |(name, value): (String, String)| (name.clone(), given.get(&name).cloned().unwrap_or(value));
        let values = automatic.iter().cloned().map(value).collect();
        let mut globals = Self { given: given.clone(), automatic, values, declared: Vec::new() };
        for instruction in meta_args {
            let Kind::Arg(declarations) = &instruction.kind else { continue };
            for declaration in declarations {
                globals.declare(instruction, declaration, lexer).map_err(|error| error.on(instruction.line))?;
            }
        }
        Ok(globals)
    }

    fn declare(&mut self, at: &Instruction, declaration: &ArgDeclaration, lexer: &Lexer) -> Result<(), Error> {
        let name = &declaration.name;
        let mut uses = Vec::new();
        let value = match (self.given.get(name), &declaration.default) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(default)) => {
                let expanded = lexer.expand_traced(default, &|name| self.value(name))?;
                uses = expanded.matched.into_iter().collect();
                Some(expanded.text)
            }
            (None, None) => None,
        };
        if let Some(value) = &value {
            replace(&mut self.values, name, value);
        }
        self.declared.push(GlobalArg {
            name: name.clone(),
            value,
            uses,
            line: at.line,
            end_line: at.end_line,
            comment: described(&at.comments, name),
        });
        Ok(())
    }

    pub fn value(&self, name: &str) -> Option<String> {
        self.values.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    /// Names that have a value, in the order in which they got it.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.iter().map(|(name, _)| name.as_str())
    }

    pub(crate) fn automatic(&self) -> &[(String, String)] {
        &self.automatic
    }

    /// A build argument by its name.
    pub fn given(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(String::as_str)
    }
}

/// What one stage's instructions see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    environment: Vec<(String, String)>,
    arguments: Vec<(String, Option<String>)>,
}

impl Scope {
    /// The scope at the start of a stage that is based on an image: its `NAME=value` environment.
    pub fn of_image(environment: &[String]) -> Self {
        let mut scope = Self::default();
        for pair in environment {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            replace(&mut scope.environment, name, value);
        }
        scope
    }

    /// As a stage starts with it that is based on this one: values stay, declarations do not.
    #[must_use]
    pub fn inherited(&self) -> Self {
        Self { environment: self.environment.clone(), arguments: Vec::new() }
    }

    pub fn value(&self, name: &str) -> Option<String> {
        self.environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    /// ENV.
    pub fn set(&mut self, name: &str, value: &str) {
        replace(&mut self.environment, name, value);
    }

    /// ARG; gives its value. Without a default it has that of the whole file's argument.
    pub fn declare(
        &mut self,
        declaration: &ArgDeclaration,
        globals: &Globals,
        lexer: &Lexer,
    ) -> Result<Option<String>, Error> {
        let name = &declaration.name;
        let value = match (globals.given(name), &declaration.default) {
            (Some(given), _) => Some(given.to_owned()),
            (None, Some(default)) => Some(lexer.expand(default, &|name| self.value(name))?),
            (None, None) => globals.value(name),
        };
        if let Some(value) = &value
            && !HIDDEN.contains(&name.as_str())
        {
            replace(&mut self.environment, name, value);
        }
        self.arguments.push((name.clone(), value.clone()));
        Ok(value)
    }

    /// Whether an ARG of this name stands above, with or without a value.
    pub fn declares(&self, name: &str) -> bool {
        self.arguments.iter().any(|(known, _)| known == name)
    }

    /// Names that have a value, in the order in which they got it.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.environment.iter().map(|(name, _)| name.as_str())
    }

    /// `NAME=value` of everything that a RUN sees, in the order in which names got their first value.
    pub fn environment(&self) -> Vec<String> {
        self.environment.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// `NAME=value` of the arguments, as the history of a RUN counts them before its command: each name once, with the
    /// value that the step sees.
    pub fn arguments(&self) -> Vec<String> {
        let mut shown: Vec<(&str, String)> = Vec::new();
        for (name, value) in &self.arguments {
            let value = self.value(name).or_else(|| value.clone()).unwrap_or_default();
            match shown.iter_mut().find(|(known, _)| known == name) {
                Some((_, old)) => *old = value,
                None => shown.push((name, value)),
            }
        }
        shown.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }
}

/// What the comment above an ARG or a FROM says of a name: `# name description`.
pub(crate) fn described(comments: &[String], name: &str) -> String {
    let about = |comment: &String| comment.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
    comments.iter().filter(|_| !name.is_empty()).find_map(about).unwrap_or_default()
}

fn replace(pairs: &mut Vec<(String, String)>, name: &str, value: &str) {
    match pairs.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => value.clone_into(old),
        None => pairs.push((name.to_owned(), value.to_owned())),
    }
}

/// Whether a build argument such as `BUILDKIT_MULTI_PLATFORM` is switched on.
pub fn is_on(value: Option<&str>) -> bool {
    value.and_then(boolean).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dialect, Dockerfile};

    fn globals(source: &str, given: &[(&str, &str)]) -> Globals {
        let file = Dockerfile::parse_as(&format!("{source}\nFROM x"), Dialect::BuildKit).expect(source);
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let automatic = automatic_args("linux/amd64", "linux/arm64/v8", "");
        Globals::new(&file.meta_args, &Lexer::new('\\'), automatic, &given).expect(source)
    }

    fn declaration(name: &str, default: Option<&str>) -> ArgDeclaration {
        ArgDeclaration { name: name.to_owned(), default: default.map(str::to_owned) }
    }

    #[test]
    fn the_whole_files_arguments() {
        let globals = globals("ARG A=1\nARG B=$A-${TARGETARCH}${TARGETVARIANT}\nARG C\n", &[("A", "2"), ("U", "x")]);
        assert_eq!(globals.value("B").as_deref(), Some("2-arm64v8"));
        assert_eq!((globals.value("C"), globals.value("U")), (None, None));
        assert_eq!(globals.value("BUILDPLATFORM").as_deref(), Some("linux/amd64"));
        assert_eq!(globals.value("TARGETSTAGE").as_deref(), Some("default"));
        assert_eq!(globals.declared[1].uses, ["A", "TARGETARCH", "TARGETVARIANT"]);
    }

    #[test]
    fn a_stages_scope() {
        let globals = globals("ARG G=global", &[("A", "given")]);
        let lexer = Lexer::new('\\');
        let mut scope = Scope::of_image(&["PATH=/bin".to_owned(), "E=1".to_owned()]);
        assert_eq!(scope.value("G"), None, "it must be declared again");
        for (name, default, value) in [
            ("G", None, Some("global")),
            ("A", Some("default"), Some("given")),
            ("N", None, None),
            ("D", Some("${E}2"), Some("12")),
            ("TARGETOS", None, Some("linux")),
        ] {
            let got = scope.declare(&declaration(name, default), &globals, &lexer).expect(name);
            assert_eq!(got.as_deref(), value, "{name}");
        }
        scope.set("G", "env");
        assert_eq!(scope.value("G").as_deref(), Some("env"), "the later wins");
        assert_eq!(scope.arguments(), ["G=env", "A=given", "N=", "D=12", "TARGETOS=linux"]);
        assert_eq!(scope.environment(), ["PATH=/bin", "E=1", "G=env", "A=given", "D=12", "TARGETOS=linux"]);
        assert!(scope.declares("N") && !scope.declares("E"));
        let child = scope.inherited();
        assert_eq!((child.value("G").as_deref(), child.declares("N")), (Some("env"), false));
        assert!(child.arguments().is_empty());
    }
}
