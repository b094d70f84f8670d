//! Build arguments: which are declared where, and what they are worth.

use std::collections::{BTreeMap, BTreeSet};

use dockerfile::{ArgDeclaration, PREDEFINED_ARGS};

/// The arguments of a build as one stage sees them.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// `--build-arg`; `None` for a name without a value.
    given: BTreeMap<String, Option<String>>,
    /// Declared before the first FROM.
    meta: BTreeMap<String, Option<String>>,
    /// Declared in this stage.
    declared: BTreeMap<String, Option<String>>,
    /// Declared anywhere.
    referenced: BTreeSet<String>,
}

impl Arguments {
    pub fn new(given: BTreeMap<String, Option<String>>) -> Self {
        Self { given, ..Self::default() }
    }

    /// An ARG before the first FROM.
    pub fn declare_meta(&mut self, argument: ArgDeclaration) {
        self.referenced.insert(argument.name.clone());
        self.meta.insert(argument.name, argument.default);
    }

    /// An ARG of this stage.
    pub fn declare(&mut self, argument: ArgDeclaration) {
        self.referenced.insert(argument.name.clone());
        self.declared.insert(argument.name, argument.default);
    }

    /// What a stage declared counts for the build.
    pub fn also_declared(&mut self, stage: &Self) {
        self.referenced.extend(stage.referenced.iter().cloned());
    }

    /// A stage starts with no argument declared.
    pub fn next_stage(&mut self) {
        self.declared.clear();
    }

    /// The value that FROM sees.
    pub fn meta_value(&self, name: &str) -> Option<String> {
        let visible = self.meta.contains_key(name) || is_predefined(name);
        visible.then(|| self.value(name, &self.meta)).flatten()
    }

    /// What a stage's instructions see besides its environment, which comes first.
    pub fn stage_value(&self, name: &str) -> Option<String> {
        let visible = self.declared.contains_key(name) || is_predefined(name);
        visible.then(|| self.value(name, &self.declared)).flatten()
    }

    /// `NAME=value` of all that have a value, without those that the environment sets; in the order of names.
    pub fn environment(&self, is_set: impl Fn(&str) -> bool) -> Vec<(String, String)> {
        let names: BTreeSet<&str> =
            self.declared.keys().map(String::as_str).chain(PREDEFINED_ARGS).filter(|name| !is_set(name)).collect();
        names.into_iter().filter_map(|name| Some((name.to_owned(), self.stage_value(name)?))).collect()
    }

    /// Whether an argument is part of a step's key and of the image's history: predefined ones only when declared.
    pub fn counts(&self, name: &str) -> bool {
        self.declared.contains_key(name) || !is_predefined(name)
    }

    /// Given but never declared.
    pub fn unused(&self) -> Vec<&str> {
        self.given
            .keys()
            .map(String::as_str)
            .filter(|name| !self.referenced.contains(*name) && !is_predefined(name))
            .collect()
    }

    fn value(&self, name: &str, declared: &BTreeMap<String, Option<String>>) -> Option<String> {
        if let Some(given) = self.given.get(name) {
            return Some(given.clone().unwrap_or_default());
        }
        let default = declared.get(name).cloned().flatten();
        default.or_else(|| self.meta.get(name).cloned().flatten())
    }
}

fn is_predefined(name: &str) -> bool {
    PREDEFINED_ARGS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declaration(name: &str, default: Option<&str>) -> ArgDeclaration {
        ArgDeclaration { name: name.to_owned(), default: default.map(str::to_owned) }
    }

    fn given(pairs: &[(&str, &str)]) -> Arguments {
        Arguments::new(pairs.iter().map(|(k, v)| ((*k).to_owned(), Some((*v).to_owned()))).collect())
    }

    #[test]
    fn scopes() {
        let mut arguments = given(&[("A", "given"), ("U", "x"), ("HTTP_PROXY", "p")]);
        arguments.declare_meta(declaration("A", Some("1")));
        arguments.declare_meta(declaration("M", Some("2")));
        assert_eq!(arguments.meta_value("A").as_deref(), Some("given"));
        assert_eq!(arguments.meta_value("U"), None, "not declared");
        assert_eq!(arguments.stage_value("M"), None, "a stage must declare it again");
        arguments.declare(declaration("M", None));
        assert_eq!(arguments.stage_value("M").as_deref(), Some("2"), "without a default it has the one from above");
        arguments.declare(declaration("M", Some("own")));
        assert_eq!(arguments.stage_value("M").as_deref(), Some("own"));
        arguments.next_stage();
        assert_eq!(arguments.stage_value("M"), None);
        assert_eq!(arguments.unused(), ["U"]);
    }

    #[test]
    fn environment_of_a_step() {
        let mut arguments = given(&[("B", "2"), ("HTTP_PROXY", "p")]);
        for declared in [declaration("B", None), declaration("A", Some("1")), declaration("N", None)] {
            arguments.declare(declared);
        }
        let pairs = arguments.environment(|name| name == "A");
        assert_eq!(pairs, [("B".to_owned(), "2".to_owned()), ("HTTP_PROXY".to_owned(), "p".to_owned())]);
        assert!(arguments.counts("B") && !arguments.counts("HTTP_PROXY"));
        arguments.declare(declaration("HTTP_PROXY", None));
        assert!(arguments.counts("HTTP_PROXY"));
    }
}
