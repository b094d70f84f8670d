//! What is asked of a Dockerfile instead of building it, and what its author is warned of.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use dockerfile::{BaseImage, Checks, Findings, Globals, Lexer, LintInput, Warning};
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
        let text = || BASE64.encode(self.dockerfile.content());
        match self.options.check.as_str() {
            "" => Ok(None),
            "lint" => self.lint(source, plan).await.map(Some),
            "outline" => {
                let mut answer = dockerfile::outline(&plan.file, &plan.graph, &plan.globals, &plan.lexer).json();
                answer["sources"] = json!([text()]);
                Ok(Some(answered(&answer, true)))
            }
            "targets" => {
                let targets = dockerfile::targets(&plan.file);
                let targets: Vec<Value> = targets.iter().map(dockerfile::Target::json).collect();
                Ok(Some(answered(&json!({"targets": targets, "sources": [text()]}), true)))
            }
            other => Err(Failure::user(format!("unsupported request {other:?}"))),
        }
    }

    /// As BuildKit's `frontend.lint` answers. Without a target all stages are looked at. A base image that cannot be had
    /// is told of beside what was found without it.
    async fn lint(&self, source: &Source, plan: &Plan) -> Result<Finished, Failure> {
        let all_stages = self.options.target.is_empty();
        let (images, missing) = match self.base_images(plan, all_stages).await {
            Ok(images) => (images, None),
            Err(error @ (Failure::User(_) | Failure::Dockerfile { .. } | Failure::Bus(_))) => {
                (BaseImages::new(), Some(error))
            }
            Err(error) => return Err(error),
        };
        let checks = match checks(plan) {
            Ok(checks) => checks,
            Err(error) => return Ok(self.linted(&[], Some(error))),
        };
        let Findings { warnings, error } = findings(source, plan, &checks, &images, all_stages);
        let error = missing.or_else(|| error.map(Failure::from));
        let error = error.or_else(|| checks.failure(&warnings).map(Failure::user));
        Ok(self.linted(&warnings, error))
    }

    /// The answer for a client, which shows it and ends with its status.
    fn linted(&self, warnings: &[Warning], error: Option<Failure>) -> Finished {
        let filename = if self.options.dockerfile.is_empty() { "Dockerfile" } else { &self.options.dockerfile };
        let mut answer = json!({
            "warnings": warnings.iter().map(Warning::json).collect::<Vec<_>>(),
            "sources": [{
                "filename": filename,
                "data": BASE64.encode(self.dockerfile.content()),
                "language": "Dockerfile",
            }],
        });
        let is_clean = warnings.is_empty() && error.is_none();
        if let Some(error) = error {
            answer["buildError"] = json!({"message": error.to_string(), "location": self.dockerfile.location(&error)});
        }
        answered(&answer, is_clean)
    }

    /// The answer about a file that cannot be read as one.
    pub(super) fn unparsed(&self, error: Failure) -> Result<Finished, Failure> {
        match (&error, self.options.check.as_str()) {
            (Failure::Dockerfile { .. }, "lint") => Ok(self.linted(&[], Some(error))),
            _ => Err(error),
        }
    }

    /// Tells what the text alone says where nothing could be planned, for `error`.
    pub(super) async fn unplanned(&self, source: &Source, error: Failure) -> Result<Finished, Failure> {
        let lexer = Lexer::new(source.file.directives.escape);
        let given = self.options.build_args.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let automatic = dockerfile::automatic_args("", "", "");
        let Ok(globals) = Globals::new(&source.file.meta_args, &lexer, automatic, &given) else { return Err(error) };
        let Ok(checks) = Checks::of(&source.file, &globals) else { return Err(error) };
        let Findings { warnings, .. } = dockerfile::lint(LintInput {
            file: &source.file,
            globals: &globals,
            lexer: &lexer,
            graph: None,
            checks: &checks,
            all_stages: true,
            image: &|_| None,
            ignore: None,
        });
        if self.options.check == "lint" {
            return Ok(self.linted(&warnings, Some(error)));
        }
        for warning in &warnings {
            self.trace.warn(&source.definition, warned(warning)).await;
        }
        Err(error)
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
        // What fails there fails the build by itself; the text is looked at all the same.
        let images = self.base_images(plan, false).await.unwrap_or_default();
        let Findings { warnings, .. } = findings(source, plan, checks, &images, false);
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
        let image = self.image(&reference, &wanted).await.map_err(|error| error.on(plan.stage(number).0.line))?;
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

/// What a client is answered; `is_clean`: it ends well.
fn answered(answer: &Value, is_clean: bool) -> Finished {
    let text = serde_json::to_string_pretty(answer).unwrap_or_default();
    let status = if is_clean { "0" } else { "1" };
    let response = [("result.json", text), ("result.statuscode", status.to_owned())];
    let response = response.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<HashMap<_, _>>();
    Finished { response, ..Finished::default() }
}

fn findings(source: &Source, plan: &Plan, checks: &Checks, images: &BaseImages, all_stages: bool) -> Findings {
    dockerfile::lint(LintInput {
        file: &plan.file,
        globals: &plan.globals,
        lexer: &plan.lexer,
        graph: Some(&plan.graph),
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
