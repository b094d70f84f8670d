//! What BuildKit warns of in a Dockerfile (`docker build --check`): the rules of its linter, in its words.
//!
//! `file` looks at the text alone, `stages` at each stage with the variables that its instructions see.

mod file;
mod rules;
mod stages;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::error::Error;
use crate::expand::Lexer;
use crate::graph::StageGraph;
use crate::ignore::Ignore;
use crate::mount::boolean;
use crate::outline::location;
use crate::parse::Dockerfile;
use crate::quote::quote;
use crate::scope::Globals;
use rules::Rule;

/// A breach of a rule. BuildKit's level of all of them is 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    pub rule: &'static str,
    pub description: &'static str,
    pub url: String,
    pub message: String,
    pub line: usize,
    pub end_line: usize,
}

impl Warning {
    /// The one line that a build's progress shows.
    pub fn short(&self) -> String {
        format!("{}: {} (line {})", self.rule, self.message, self.line)
    }

    /// As BuildKit's `frontend.lint` answers.
    pub fn json(&self) -> Value {
        let Self { rule, description, url, message, line, end_line } = self;
        json!({ "ruleName": rule, "description": description, "url": url, "detail": message,
            "location": location(*line, *end_line) })
    }
}

/// Which rules count: `# check=skip=A,B;error=true`, or the build argument `BUILDKIT_DOCKERFILE_CHECK`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checks {
    skip_all: bool,
    skip: BTreeSet<String>,
    experimental_all: bool,
    experimental: BTreeSet<String>,
    /// Warnings fail the build.
    pub error: bool,
}

const BUILD_ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// Reads a list of rules; true: all of them.
fn list(value: &str) -> (bool, BTreeSet<String>) {
    match value.trim() {
        "all" => (true, BTreeSet::new()),
        names => (false, names.split(',').map(|name| name.trim().to_owned()).collect()),
    }
}

impl Checks {
    /// What counts for a file: the build argument, if it is given, else the file's own directive.
    pub fn of(file: &Dockerfile, globals: &Globals) -> Result<Self, String> {
        if let Some(given) = globals.given(BUILD_ARGUMENT) {
            return Self::parse(given).map_err(|error| format!("failed to parse build-arg:{BUILD_ARGUMENT}: {error}"));
        }
        let text = file.directives.check.as_deref().unwrap_or_default();
        Self::parse(text).map_err(|error| format!("failed to parse check options: {error}"))
    }

    pub fn parse(text: &str) -> Result<Self, String> {
        let mut checks = Self::default();
        let text = text.trim();
        for part in text.splitn(3, ';').filter(|_| !text.is_empty()) {
            let Some((key, value)) = part.split_once('=') else {
                return Err(format!("invalid check option {}", quote(part)));
            };
            match key.trim() {
                "skip" => (checks.skip_all, checks.skip) = list(value),
                "experimental" => (checks.experimental_all, checks.experimental) = list(value),
                "error" => {
                    let value = value.trim();
                    checks.error = boolean(value).ok_or_else(|| {
                        let (part, value) = (quote(part), quote(value));
                        format!(
                            "failed to parse check option {part}: strconv.ParseBool: parsing {value}: invalid syntax"
                        )
                    })?;
                }
                key => return Err(format!("invalid check option {}", quote(key))),
            }
        }
        Ok(checks)
    }

    fn counts(&self, rule: &Rule) -> bool {
        match rule.experimental {
            true => self.experimental_all || self.experimental.contains(rule.name),
            false => !self.skip_all && !self.skip.contains(rule.name),
        }
    }

    /// Why a build with these warnings fails, if it does: each rule once, in the order of lines.
    pub fn failure(&self, warnings: &[Warning]) -> Option<String> {
        let mut rules: Vec<&str> = Vec::new();
        for warning in warnings {
            if !rules.contains(&warning.rule) {
                rules.push(warning.rule);
            }
        }
        (self.error && !rules.is_empty()).then(|| format!("lint violation found for rules: {}", rules.join(", ")))
    }
}

/// What the rules need to know of a base image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BaseImage {
    /// `NAME=value`
    pub environment: Vec<String>,
    /// Its configuration names a shell, so that shell form is meant.
    pub has_shell: bool,
    /// "os/architecture[/variant]"; empty where it has none.
    pub platform: String,
    /// The platform that the stage asked for.
    pub wanted_platform: String,
}

#[derive(Clone, Copy)]
pub struct LintInput<'a> {
    pub file: &'a Dockerfile,
    pub globals: &'a Globals,
    pub lexer: &'a Lexer,
    /// `None` where stages and bases do not fit together: only what the text itself says is looked at.
    pub graph: Option<&'a StageGraph>,
    pub checks: &'a Checks,
    /// All stages, not only the needed ones (`--check` without a target).
    pub all_stages: bool,
    /// The base image of a stage by its number; `None` where it is not known: undefined variables are not looked for.
    pub image: &'a dyn Fn(usize) -> Option<BaseImage>,
    /// The context's ignore file.
    pub ignore: Option<&'a Ignore>,
}

/// What was found in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// In the order of lines.
    pub warnings: Vec<Warning>,
    /// The mistake behind which nothing more was looked at.
    pub error: Option<Error>,
}

/// Every breach up to the first mistake that fails the build.
pub fn lint(input: LintInput) -> Findings {
    let mut report = Report { checks: input.checks, found: Findings::default() };
    file::check(&input, &mut report);
    if let Some(graph) = input.graph.filter(|_| report.found.error.is_none()) {
        stages::check(&input, graph, &mut report);
    }
    report.found.warnings.sort_by_key(|warning| warning.line);
    report.found
}

struct Report<'a> {
    checks: &'a Checks,
    found: Findings,
}

/// The lines of what a warning is about.
#[derive(Debug, Clone, Copy)]
struct Place {
    line: usize,
    end_line: usize,
}

impl Report<'_> {
    fn add(&mut self, rule: &'static Rule, at: Place, message: String) {
        if !self.checks.counts(rule) {
            return;
        }
        self.found.warnings.push(Warning {
            rule: rule.name,
            description: rule.description,
            url: rule.url(),
            message,
            line: at.line,
            end_line: at.end_line,
        });
    }
}

/// The instruction's name as it is written.
fn written_name(original: &str) -> &str {
    original.split(char::is_whitespace).next().unwrap_or_default()
}
