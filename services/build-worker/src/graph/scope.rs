//! Build arguments as BuildKit has them: those of the whole file, and what a stage makes of them.

use std::collections::BTreeMap;

use dockerfile::{Instruction, Kind, Lexer, PREDEFINED_ARGS, automatic_args};
use model::Platform;

use crate::failure::Failure;

/// Arguments that hold for the whole file: what FROM sees, and where an ARG without a value gets it from.
#[derive(Clone, Debug, Default)]
pub struct Globals {
    /// `--build-arg`.
    given: BTreeMap<String, String>,
    /// Declared before the first FROM, and those of the platforms.
    values: BTreeMap<String, String>,
}

impl Globals {
    /// `build` is the platform of the worker, `target` that of the image.
    pub fn new(options: &proto::BuildOptions, build: &Platform, target: &Platform, stage: &str) -> Self {
        let values = automatic_args(&build.to_string(), &target.to_string(), stage).into_iter().collect();
        let given = options.build_args.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Self { given, values }
    }

    /// With the ARG instructions before the first FROM.
    pub fn declared(mut self, lexer: &Lexer, arguments: &[Instruction]) -> Result<Self, Failure> {
        for argument in arguments {
            let Kind::Arg(declarations) = &argument.kind else { continue };
            for declaration in declarations {
                let value = match (self.given.get(&declaration.name), &declaration.default) {
                    (Some(given), _) => Some(given.clone()),
                    (None, Some(default)) => Some(lexer.expand(default, &|name| self.value(name))?),
                    (None, None) => None,
                };
                if let Some(value) = value {
                    self.values.insert(declaration.name.clone(), value);
                }
            }
        }
        Ok(self)
    }

    pub fn value(&self, name: &str) -> Option<String> {
        self.values.get(name).cloned()
    }

    /// What an ARG of a stage is worth: given, else its own default (expanded already), else the file's.
    pub fn of_stage(&self, name: &str, default: Option<String>) -> Option<String> {
        self.given.get(name).cloned().or(default).or_else(|| self.value(name))
    }

    /// Proxies of the client: every command sees them, and no key or history does.
    pub fn proxies(&self) -> Vec<(String, String)> {
        let value = |name: &str| Some((name.to_owned(), self.given.get(name)?.clone()));
        PREDEFINED_ARGS.into_iter().filter_map(value).collect()
    }

    /// `SOURCE_DATE_EPOCH`, in seconds.
    ///
    /// # Errors
    /// `User` for what is no number.
    pub fn epoch(&self) -> Result<Option<i64>, Failure> {
        let Some(text) = self.given.get("SOURCE_DATE_EPOCH").filter(|text| !text.is_empty()) else { return Ok(None) };
        let wrong = |_| {
            Failure::user(format!(
                "invalid SOURCE_DATE_EPOCH: {text}: strconv.ParseInt: parsing {text:?}: invalid syntax"
            ))
        };
        text.parse().map(Some).map_err(wrong)
    }
}
