//! `--call`: what is asked of a Dockerfile instead of building it.

use serde_json::Value;

use crate::failure::{Failure, Outcome};
use crate::output;
use crate::solve::Excerpt;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Call {
    Build,
    Check,
    Outline,
    Targets,
}

impl Call {
    /// As the daemon is told; empty: it is built.
    pub fn name(self) -> &'static str {
        match self {
            Self::Build => "",
            Self::Check => "lint",
            Self::Outline => "outline",
            Self::Targets => "targets",
        }
    }

    /// Prints the answer as `docker buildx build` does.
    ///
    /// # Errors
    /// A check that found something.
    pub fn print(self, answer: &Value, excerpt: &Excerpt) -> Outcome {
        match self {
            Self::Build => Ok(()),
            Self::Check => check(answer, excerpt),
            Self::Outline => outline(answer),
            Self::Targets => targets(answer),
        }
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The lines that something is about.
fn excerpt_of(what: &Value, excerpt: &Excerpt) -> String {
    let line = what["location"]["ranges"][0]["start"]["line"].as_u64().unwrap_or(0);
    excerpt.at(usize::try_from(line).unwrap_or(0))
}

fn check(answer: &Value, excerpt: &Excerpt) -> Outcome {
    let warnings = list(answer, "warnings");
    let error = answer["buildError"]["message"].as_str();
    match warnings.len() {
        0 if error.is_some() => {}
        0 => output::line("Check complete, no warnings found."),
        1 => output::line("Check complete, 1 warning has been found!"),
        count => output::line(format!("Check complete, {count} warnings have been found!")),
    }
    for warning in warnings {
        let url = text(warning, "url");
        let dash = if url.is_empty() { "" } else { " - " };
        output::line(format!("\nWARNING: {}{dash}{url}\n{}", text(warning, "ruleName"), text(warning, "detail")));
        output::write(excerpt_of(warning, excerpt).as_bytes());
    }
    if let Some(error) = error {
        let lines = excerpt_of(&answer["buildError"], excerpt);
        return Err(Failure::new(format!("ERROR: {error}\n{lines}").trim_end().to_owned()));
    }
    if warnings.is_empty() { Ok(()) } else { Err(Failure::exit(1)) }
}

fn outline(answer: &Value) -> Outcome {
    let (name, description) = (text(answer, "name"), text(answer, "description"));
    if !name.is_empty() || !description.is_empty() {
        let name = if name.is_empty() { "(default)" } else { name };
        let mut rows = vec![vec!["TARGET:".to_owned(), name.to_owned()]];
        if !description.is_empty() {
            rows.push(vec!["DESCRIPTION:".to_owned(), description.to_owned()]);
        }
        table(rows);
        output::line("");
    }
    let args = list(answer, "args");
    if !args.is_empty() {
        let row = |arg: &Value| ["name", "value", "description"].map(|key| text(arg, key).to_owned()).to_vec();
        table(headed(&["BUILD ARG", "VALUE", "DESCRIPTION"], args.iter().map(row)));
        output::line("");
    }
    for (key, title) in [("secrets", "SECRET"), ("ssh", "SSH")] {
        let mounts = list(answer, key);
        if mounts.is_empty() {
            continue;
        }
        let row = |mount: &Value| {
            let required = if mount["required"] == true { "true" } else { "" };
            vec![text(mount, "name").to_owned(), required.to_owned()]
        };
        table(headed(&[title, "REQUIRED"], mounts.iter().map(row)));
        output::line("");
    }
    Ok(())
}

fn targets(answer: &Value) -> Outcome {
    let row = |target: &Value| {
        let name = match (text(target, "name"), target["default"] == true) {
            ("", true) => "(default)".to_owned(),
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_owned(),
        };
        vec![name, text(target, "description").to_owned()]
    };
    // A stage without a name is none that could be named, unless it is the last.
    let named = list(answer, "targets").iter().filter(|t| !text(t, "name").is_empty() || t["default"] == true);
    table(headed(&["TARGET", "DESCRIPTION"], named.map(row)));
    Ok(())
}

fn headed(titles: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Vec<Vec<String>> {
    let titles = titles.iter().map(|title| (*title).to_owned()).collect();
    std::iter::once(titles).chain(rows).collect()
}

/// Columns three blanks apart.
fn table(rows: Vec<Vec<String>>) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        output::line(cells.collect::<Vec<_>>().join("   ").trim_end());
    }
}
