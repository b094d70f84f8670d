//! What is asked of a Dockerfile instead of building it, and what its author is warned of.

use std::collections::{BTreeMap, HashMap};

use dockerfile::{BaseImage, Checks, LintInput, Warning};
use futures::future::try_join_all;
use model::Platform;
use oci::ImageConfig;
use serde_json::{Value, json};

use super::named::Resolved;
use super::plan::{Base, Plan};
use super::source::Source;
use super::trace::Warned;
use super::{Finished, Graph};
use crate::failure::Failure;

/// What is known of base images, by the numbers of the stages that begin on them.
type BaseImages = BTreeMap<usize, BaseImage>;

impl Graph {
    /// The answer to what is asked instead of a build; none: it is to be built.
    ///
    /// # Errors
    /// `User` for what nobody knows.
    pub(super) async fn answer(&self, source: &Source, plan: &Plan) -> Result<Option<Finished>, Failure> {
        let answer = match self.options.check.as_str() {
            "" => return Ok(None),
            "lint" => self.lint(source, plan).await?,
            "outline" => dockerfile::outline(&plan.file, &plan.graph, &plan.globals, &plan.lexer).json(),
            "targets" => {
                let targets = dockerfile::targets(&plan.file);
                json!({"targets": targets.iter().map(dockerfile::Target::json).collect::<Vec<_>>()})
            }
            other => return Err(Failure::user(format!("unsupported request {other:?}"))),
        };
        let response = HashMap::from([("result.json".to_owned(), answer.to_string())]);
        Ok(Some(Finished { response, ..Finished::default() }))
    }

    /// As BuildKit's `frontend.lint` answers. Without a target all stages are looked at. A base image that cannot be had
    /// is told of beside what was found without it.
    async fn lint(&self, source: &Source, plan: &Plan) -> Result<Value, Failure> {
        let all_stages = self.options.target.is_empty();
        let (images, error) = match self.base_images(plan, all_stages).await {
            Ok(images) => (images, None),
            Err(Failure::User(why)) => (BaseImages::new(), Some(why)),
            Err(error) => return Err(error),
        };
        let warnings = warnings(source, plan, &checks(plan)?, &images, all_stages);
        let filename = if self.options.dockerfile.is_empty() { "Dockerfile" } else { &self.options.dockerfile };
        let mut answer = json!({
            "warnings": warnings.iter().map(Warning::json).collect::<Vec<_>>(),
            "sources": [{"filename": filename, "language": "Dockerfile"}],
        });
        if let Some(message) = error {
            answer["error"] = json!({"message": message});
        }
        Ok(answer)
    }

    /// Builds, and warns of the Dockerfile meanwhile: the base images that it is about are the build's own.
    ///
    /// # Errors
    /// Those of the build, and `User` for a file whose own checks fail it; then nothing is built.
    pub(super) async fn checked<T>(
        &self,
        source: &Source,
        plan: &Plan,
        build: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let checks = checks(plan)?;
        if checks.error
            && let Some(why) = checks.failure(&self.warn(source, plan, &checks).await?)
        {
            return Err(Failure::user(why));
        }
        if checks.error {
            return build.await;
        }
        let (built, warned) = tokio::join!(build, self.warn(source, plan, &checks));
        let built = built?;
        warned?;
        Ok(built)
    }

    async fn warn(&self, source: &Source, plan: &Plan, checks: &Checks) -> Result<Vec<Warning>, Failure> {
        let images = self.base_images(plan, false).await?;
        let warnings = warnings(source, plan, checks, &images, false);
        for warning in &warnings {
            self.trace.warn(&source.definition, warned(warning)).await;
        }
        Ok(warnings)
    }

    async fn base_images(&self, plan: &Plan, all_stages: bool) -> Result<BaseImages, Failure> {
        let nodes = plan.graph.nodes.iter().enumerate();
        let numbers = nodes
            .filter(|(number, node)| !node.replaced && (all_stages || plan.graph.needed.contains(number)))
            .map(|(number, _)| number);
        let known = try_join_all(numbers.map(|number| self.base_image(plan, number))).await?;
        Ok(known.into_iter().flatten().collect())
    }

    async fn base_image(&self, plan: &Plan, number: usize) -> Result<Option<(usize, BaseImage)>, Failure> {
        let reference = match self.resolved(plan, &plan.graph.nodes[number].base)? {
            Resolved::Base(Base::Image(reference)) => reference,
            Resolved::Base(_) => return Ok(None),
            // Files have no configuration.
            _ => return Ok(Some((number, BaseImage::default()))),
        };
        let wanted = plan.platform_of(number)?;
        let image = self.image(&reference, &wanted).await?;
        let config = ImageConfig::parse(&image.image.config).map_err(Failure::caused)?;
        let known = BaseImage {
            environment: config.config.env,
            has_shell: config.config.shell.is_some_and(|shell| !shell.is_empty()),
            platform: Platform::new(&config.os, &config.architecture, &config.variant).to_string(),
            wanted_platform: wanted.to_string(),
        };
        Ok(Some((number, known)))
    }
}

/// # Errors
/// `User` for checks that nobody knows.
fn checks(plan: &Plan) -> Result<Checks, Failure> {
    Checks::of(&plan.file, &plan.globals).map_err(Failure::user)
}

fn warnings(source: &Source, plan: &Plan, checks: &Checks, images: &BaseImages, all_stages: bool) -> Vec<Warning> {
    dockerfile::lint(LintInput {
        file: &plan.file,
        globals: &plan.globals,
        lexer: &plan.lexer,
        graph: &plan.graph,
        checks,
        all_stages,
        image: &|number: usize| images.get(&number).cloned(),
        ignore: source.ignore.as_ref(),
    })
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
