//! A Dockerfile as far as one platform's build knows it before anything is looked up. Pure.

use std::sync::Arc;

use dockerfile::{
    Dockerfile, Globals, GraphInput, Instruction, Lexer, PREDEFINED_ARGS, Stage, StageGraph, StageNode, automatic_args,
};
use model::Platform;

/// What a stage begins on, or what files come from.
pub use dockerfile::Origin as Base;

use super::named::context_of;
use crate::failure::Failure;

#[derive(Clone, Debug)]
pub struct Plan {
    pub file: Arc<Dockerfile>,
    pub lexer: Lexer,
    pub globals: Globals,
    pub graph: StageGraph,
    contexts: Arc<[proto::NamedContext]>,
    /// The platform that is built for.
    pub platform: Platform,
}

impl Plan {
    /// # Errors
    /// `User`, in BuildKit's words, for a file that cannot be built.
    pub fn new(file: Arc<Dockerfile>, options: &proto::BuildOptions, platform: Platform) -> Result<Self, Failure> {
        let lexer = Lexer::new(file.directives.escape);
        let given = options.build_args.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let automatic = automatic_args(&Platform::host().to_string(), &platform.to_string(), &options.target);
        let globals = Globals::new(&file.meta_args, &lexer, automatic, &given)?;
        let contexts: Arc<[proto::NamedContext]> = options.contexts.clone().into();
        let context = |name: &str| context_of(&contexts, name);
        let input = GraphInput {
            stages: &file.stages,
            globals: &globals,
            lexer: &lexer,
            target: &options.target,
            context: &context,
        };
        let graph = StageGraph::new(input)?;
        Ok(Self { file, lexer, globals, graph, contexts, platform })
    }

    /// A stage as it is written, and what is made of it.
    pub fn stage(&self, number: usize) -> (&Stage, &StageNode) {
        (&self.file.stages[number], &self.graph.nodes[number])
    }

    /// A stage's own instructions; none where a context stands for it.
    pub fn instructions(&self, number: usize) -> &[Instruction] {
        let (stage, node) = self.stage(number);
        if node.replaced { &[] } else { &stage.instructions }
    }

    /// The platform of a stage's base.
    ///
    /// # Errors
    /// `User` for what is no platform.
    pub fn platform_of(&self, number: usize) -> Result<Platform, Failure> {
        match &self.graph.nodes[number].platform {
            Some(text) => super::parse_platform(text),
            None => Ok(self.platform.clone()),
        }
    }

    /// What `COPY --from` means.
    pub fn copied_from(&self, from: &str) -> Result<Base, Failure> {
        Ok(self.graph.copy_origin(from, &|name: &str| context_of(&self.contexts, name))?)
    }

    /// What a mount's `from` means.
    pub fn mounted_from(&self, from: &str) -> Base {
        self.graph.mount_origin(from, &|name: &str| context_of(&self.contexts, name))
    }

    /// Proxies of the client: every command sees them, under the name in capitals and in small letters, whichever was
    /// given; no key or history does.
    pub fn proxies(&self) -> Vec<(String, String)> {
        let either = |name: &str| {
            let given = |name: &str| self.globals.given(name).map(str::to_owned);
            given(name).or_else(|| given(&name.to_lowercase())).or_else(|| given(&name.to_uppercase()))
        };
        PREDEFINED_ARGS.into_iter().filter_map(|name| Some((name.to_owned(), either(name)?))).collect()
    }

    /// `SOURCE_DATE_EPOCH`, in seconds.
    ///
    /// # Errors
    /// `User` for what is no number.
    pub fn epoch(&self) -> Result<Option<i64>, Failure> {
        let Some(text) = self.globals.given("SOURCE_DATE_EPOCH").filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let wrong = |_| {
            let quoted = dockerfile::quote(text);
            Failure::user(format!(
                "invalid SOURCE_DATE_EPOCH: {text}: strconv.ParseInt: parsing {quoted}: invalid syntax"
            ))
        };
        text.parse().map(Some).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(source: &str, options: &proto::BuildOptions) -> Plan {
        let file = Dockerfile::parse_as(source, dockerfile::Dialect::BuildKit).expect(source);
        Plan::new(Arc::new(file), options, Platform::host()).expect(source)
    }

    fn given(build_args: &[(&str, &str)]) -> proto::BuildOptions {
        let build_args = build_args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        proto::BuildOptions { build_args, ..Default::default() }
    }

    #[test]
    fn proxies_and_times_are_build_arguments() {
        let source = "FROM a\n";
        let plan_with = |args: &[(&str, &str)]| plan(source, &given(args));
        let proxied = plan_with(&[("http_proxy", "p"), ("OTHER", "x")]);
        let both = ["HTTP_PROXY", "http_proxy"].map(|name| (name.to_owned(), "p".to_owned()));
        assert_eq!(proxied.proxies(), both);
        for (text, epoch) in [("", Some(None)), ("17", Some(Some(17))), ("x", None)] {
            assert_eq!(plan_with(&[("SOURCE_DATE_EPOCH", text)]).epoch().ok(), epoch, "{text:?}");
        }
    }

    #[test]
    fn a_stage_that_is_given_is_not_built() {
        let context =
            proto::NamedContext { name: "Base".to_owned(), source: "docker-image://x".to_owned(), results: Vec::new() };
        let options = proto::BuildOptions { contexts: vec![context], ..Default::default() };
        let plan = plan("FROM busybox AS base\nRUN make\nFROM base\nCOPY --from=base / /\n", &options);
        assert!(plan.instructions(0).is_empty() && plan.instructions(1).len() == 1);
        assert_eq!(plan.stage(0).1.base, Base::Context("Base".to_owned()));
        assert_eq!(plan.copied_from("base").expect("a stage"), Base::Stage(0));
    }
}
