//! Rules that need no variables but those of FROM.

use std::collections::{BTreeMap, BTreeSet};

use super::rules::{self, Rule};
use super::{LintInput, Place, Report, written_name};
use crate::graph::blank_base;
use crate::instruction::{Instruction, Kind, Stage};
use crate::quote::quote;
use crate::scope::Globals;
use crate::suggest;

pub fn check(input: &LintInput, report: &mut Report) {
    for &line in &input.file.blank_lines {
        let at = Place { line, end_line: line };
        report.add(&rules::NO_EMPTY_CONTINUATION, at, "Empty continuation line".to_owned());
    }
    for argument in &input.file.meta_args {
        definition(argument, report);
    }
    let mut names = BTreeSet::new();
    for stage in &input.file.stages {
        stage_words(stage, report);
        stage_name(stage, &mut names, report);
        for instruction in &stage.instructions {
            definition(instruction, report);
            if matches!(instruction.kind, Kind::Maintainer(_)) {
                let message = "Maintainer instruction is deprecated in favor of using label".to_owned();
                report.add(&rules::MAINTAINER_DEPRECATED, instruction.into(), message);
            }
        }
    }
    casing(&input.file.stages, report);
    let automatic = input.globals.automatic().to_vec();
    let defaults = Globals::new(&input.file.meta_args, input.lexer, automatic, &BTreeMap::new());
    for stage in &input.file.stages {
        if let Ok(defaults) = &defaults {
            default_name(input, defaults, stage, report);
        }
        variables_of_from(input, stage, report);
        if report.found.error.is_some() {
            return;
        }
    }
}

impl From<&Instruction> for Place {
    fn from(instruction: &Instruction) -> Self {
        Self { line: instruction.line, end_line: instruction.end_line }
    }
}

impl From<&Stage> for Place {
    fn from(stage: &Stage) -> Self {
        Self { line: stage.line, end_line: stage.end_line }
    }
}

fn is_lower(text: &str) -> bool {
    text == text.to_lowercase()
}

fn is_upper(text: &str) -> bool {
    text == text.to_uppercase()
}

fn stage_words(stage: &Stage, report: &mut Report) {
    let from = written_name(&stage.original);
    let words: Vec<&str> = stage.original.split_whitespace().skip(1).filter(|word| !word.starts_with("--")).collect();
    let [_, keyword, name] = words.as_slice() else { return };
    if !is_lower(name) {
        report.add(&rules::STAGE_NAME_CASING, stage.into(), format!("Stage name '{name}' should be lowercase"));
    }
    // A FROM of mixed case is told of elsewhere.
    let matches = match (is_lower(from), is_upper(from)) {
        (true, _) => is_lower(keyword),
        (_, true) => is_upper(keyword),
        _ => true,
    };
    if !matches {
        let message = format!("'{keyword}' and '{from}' keywords' casing do not match");
        report.add(&rules::FROM_AS_CASING, stage.into(), message);
    }
    let name = name.to_lowercase();
    description("FROM", &[&name], &stage.comments, stage.into(), report);
}

fn definition(instruction: &Instruction, report: &mut Report) {
    if let Kind::Arg(declarations) = &instruction.kind {
        let names: Vec<&str> = declarations.iter().map(|declaration| declaration.name.as_str()).collect();
        description("ARG", &names, &instruction.comments, instruction.into(), report);
    }
}

fn description(name: &str, keys: &[&str], comments: &[String], at: Place, report: &mut Report) {
    let Some(comment) = comments.last().filter(|comment| !comment.is_empty()) else { return };
    let first = comment.split(' ').next().unwrap_or_default();
    if keys.contains(&first) {
        return;
    }
    let example = if let [key] = keys { key } else { "<arg_key>" };
    let message = format!("Comment for {name} should follow the format: `# {example} <description>`");
    report.add(&rules::INVALID_DEFINITION_DESCRIPTION, at, message);
}

fn stage_name<'a>(stage: &'a Stage, names: &mut BTreeSet<&'a str>, report: &mut Report) {
    let Some(name) = stage.name.as_deref() else { return };
    if ["context", "scratch"].contains(&name) {
        let message = format!("Stage name should not use the same name as reserved stage {}", quote(name));
        report.add(&rules::RESERVED_STAGE_NAME, stage.into(), message);
    }
    if !names.insert(name) {
        let message = format!("Duplicate stage name {}, stage names should be unique", quote(name));
        report.add(&rules::DUPLICATE_STAGE_NAME, stage.into(), message);
    }
}

fn casing(stages: &[Stage], report: &mut Report) {
    let names: Vec<(&str, Place)> = stages
        .iter()
        .flat_map(|stage| {
            let own = stage.instructions.iter().map(|one| (written_name(&one.original), one.into()));
            std::iter::once((written_name(&stage.original), stage.into())).chain(own)
        })
        .collect();
    let lower = names.iter().filter(|(name, _)| is_lower(name)).count();
    let upper = names.iter().filter(|(name, _)| is_upper(name)).count();
    let (majority, matches): (&str, fn(&str) -> bool) =
        if lower > upper { ("lowercase", is_lower) } else { ("uppercase", is_upper) };
    for (name, at) in names.into_iter().filter(|(name, _)| !matches(name)) {
        let message = format!("Command '{name}' should match the case of the command majority ({majority})");
        report.add(&rules::CONSISTENT_INSTRUCTION_CASING, at, message);
    }
}

/// Base images must have a name also when no build argument is given.
fn default_name(input: &LintInput, defaults: &Globals, stage: &Stage, report: &mut Report) {
    let Ok(base) = input.lexer.expand(&stage.base, &|name| defaults.value(name)) else { return };
    if !is_image_name(&base) {
        let message = format!("Default value for ARG {} results in empty or invalid base image name", stage.base);
        report.add(&rules::INVALID_DEFAULT_ARG_IN_FROM, stage.into(), message);
    }
}

fn variables_of_from(input: &LintInput, stage: &Stage, report: &mut Report) {
    let globals = input.globals;
    let lookup = |name: &str| globals.value(name);
    let declared = |name: &str| globals.declared.iter().any(|argument| argument.name == name);
    let undeclared = |unmatched: BTreeSet<String>, report: &mut Report| {
        for name in unmatched.into_iter().filter(|name| !declared(name)) {
            let known = globals.names().chain(globals.declared.iter().map(|argument| argument.name.as_str()));
            let message = suggest::exact(format!("FROM argument '{name}' is not declared"), &name, known);
            report.add(&rules::UNDEFINED_ARG_IN_FROM, stage.into(), message);
        }
    };
    match input.lexer.expand_traced(&stage.base, &lookup) {
        Ok(base) => {
            undeclared(base.unmatched, report);
            if base.text.is_empty() {
                report.found.error = Some(blank_base(stage));
                return;
            }
        }
        Err(error) => {
            report.found.error = Some(error.on(stage.line));
            return;
        }
    }
    let Some(written) = &stage.platform else { return };
    let Ok(platform) = input.lexer.expand_traced(written, &lookup) else { return };
    if platform.matched.is_empty() && platform.unmatched.is_empty() {
        constant_platform(stage, &platform.text, report);
    }
    let only_target = platform.matched.len() == 1 && platform.matched.contains("TARGETPLATFORM");
    if only_target && platform.unmatched.is_empty() && globals.value("TARGETPLATFORM").as_ref() == Some(&platform.text)
    {
        let message =
            format!("Setting platform to predefined {written} in FROM is redundant as this is the default behavior");
        report.add(&rules::REDUNDANT_TARGET_PLATFORM, stage.into(), message);
    }
    undeclared(platform.unmatched, report);
}

/// A stage that is named after its platform means it.
fn constant_platform(stage: &Stage, platform: &str, report: &mut Report) {
    let rule: &'static Rule = &rules::FROM_PLATFORM_FLAG_CONST_DISALLOWED;
    let mut parts = platform.split('/');
    let (os, architecture) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let name = stage.name.as_deref().unwrap_or_default();
    let named = |part: &str| !part.is_empty() && name.contains(part);
    if os.is_empty() || named(os) || named(architecture) {
        return;
    }
    report.add(rule, stage.into(), format!("FROM --platform flag should not use constant value {}", quote(platform)));
}

/// Whether a text has the form of `[host[:port]/]name[:tag][@algorithm:hex]`.
fn is_image_name(text: &str) -> bool {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    let slash = rest.rfind('/').map_or(0, |at| at + 1);
    let (path, tag) = match rest[slash..].find(':') {
        Some(colon) => (&rest[..slash + colon], Some(&rest[slash + colon + 1..])),
        None => (rest, None),
    };
    let word = |part: &str, also: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' && also.contains('_'))
            && part.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c))
    };
    let mut parts: Vec<&str> = path.split('/').collect();
    let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost" || part != part.to_lowercase();
    if parts.len() > 1 && is_host(parts[0]) {
        let host = parts.remove(0);
        if !host.chars().all(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(c)) {
            return false;
        }
    }
    let component = |part: &&str| {
        !part.is_empty()
            && part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && part.ends_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c))
    };
    parts.iter().all(component)
        && tag.is_none_or(|tag| tag.len() <= 128 && word(tag, "_.-"))
        && digest.is_none_or(|digest| {
            digest.split_once(':').is_some_and(|(algorithm, hex)| {
                word(algorithm, "+.-_") && hex.len() >= 32 && hex.chars().all(|c| c.is_ascii_hexdigit())
            })
        })
}

#[cfg(test)]
mod tests {
    use super::is_image_name;

    #[test]
    fn names_of_images() {
        for name in
            ["a", "a:1.2_x", "host.io:5000/a/b-c@sha256:0123456789abcdef0123456789abcdef", "localhost/x", "scratch"]
        {
            assert!(is_image_name(name), "{name}");
        }
        for name in ["", "A", "a:", ":a", "a//b", "a/", "a:b:c", "-a", "a@x", "a b"] {
            assert!(!is_image_name(name), "{name}");
        }
    }
}
