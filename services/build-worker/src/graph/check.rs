//! What is asked of a Dockerfile instead of building it, and what its author is warned of.

use std::collections::HashMap;

use dockerfile::{
    BaseImage, Checks, Dockerfile, Globals, GraphInput, Lexer, LintInput, StageGraph, Warning, automatic_args,
};
use model::Platform;
use serde_json::{Value, json};

use super::source::Source;
use super::trace::Warned;
use super::{Finished, Graph};
use crate::failure::Failure;

impl Graph {
    /// The answer to what is asked instead of a build; none: it is to be built, and its author has been warned.
    ///
    /// # Errors
    /// `User` for a file that cannot be built, or whose own checks fail it.
    pub(super) async fn check(&self, source: &Source) -> Result<Option<Finished>, Failure> {
        let linted = Linted::new(&source.file, &self.options)?;
        let answer = match self.options.check.as_str() {
            "" => {
                let warnings = linted.warnings(&source.file, false);
                for warning in &warnings {
                    self.trace.warn(&source.definition, warned(warning)).await;
                }
                return match linted.checks.failure(&warnings) {
                    Some(why) => Err(Failure::user(why)),
                    None => Ok(None),
                };
            }
            "lint" => linted.lint(&source.file, &self.options),
            "outline" => dockerfile::outline(&source.file, &linted.graph, &linted.globals, &linted.lexer).json(),
            "targets" => {
                let targets = dockerfile::targets(&source.file);
                json!({"targets": targets.iter().map(dockerfile::Target::json).collect::<Vec<_>>()})
            }
            other => return Err(Failure::user(format!("unsupported request {other:?}"))),
        };
        let response = HashMap::from([("result.json".to_owned(), answer.to_string())]);
        Ok(Some(Finished { image_id: String::new(), response }))
    }
}

fn warned(warning: &Warning) -> Warned {
    let line = |line: usize| u32::try_from(line).unwrap_or(u32::MAX);
    Warned {
        short: warning.short(),
        detail: warning.description.to_owned(),
        url: warning.url.clone(),
        lines: (line(warning.line), line(warning.end_line)),
    }
}

/// A Dockerfile as its linter sees it.
struct Linted {
    graph: StageGraph,
    globals: Globals,
    lexer: Lexer,
    checks: Checks,
}

impl Linted {
    /// # Errors
    /// `User`, in BuildKit's words, for a file that cannot be built.
    fn new(file: &Dockerfile, options: &proto::BuildOptions) -> Result<Self, Failure> {
        let host = Platform::host().to_string();
        let target = options.platforms.first().unwrap_or(&host);
        let lexer = Lexer::new(file.directives.escape);
        let given = options.build_args.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let automatic = automatic_args(&host, target, &options.target);
        let globals = Globals::new(&file.meta_args, &lexer, automatic, &given)?;
        let checks = Checks::of(file, &globals).map_err(Failure::user)?;
        let context = |name: &str| options.contexts.iter().any(|known| known.name == name).then(|| name.to_owned());
        let input = GraphInput {
            stages: &file.stages,
            globals: &globals,
            lexer: &lexer,
            target: &options.target,
            context: &context,
        };
        let graph = StageGraph::new(input)?;
        Ok(Self { graph, globals, lexer, checks })
    }

    /// What the author is warned of. Base images are not looked up for it: variables that one might set do not count as
    /// undefined.
    fn warnings(&self, file: &Dockerfile, all_stages: bool) -> Vec<Warning> {
        dockerfile::lint(LintInput {
            file,
            globals: &self.globals,
            lexer: &self.lexer,
            graph: &self.graph,
            checks: &self.checks,
            all_stages,
            image: &|_: usize| -> Option<BaseImage> { None },
            ignore: None,
        })
    }

    /// As BuildKit's `frontend.lint` answers. Without a target all stages are looked at.
    fn lint(&self, file: &Dockerfile, options: &proto::BuildOptions) -> Value {
        let warnings = self.warnings(file, options.target.is_empty());
        let filename = if options.dockerfile.is_empty() { "Dockerfile" } else { &options.dockerfile };
        json!({
            "warnings": warnings.iter().map(Warning::json).collect::<Vec<_>>(),
            "sources": [{"filename": filename, "language": "Dockerfile"}],
        })
    }
}
