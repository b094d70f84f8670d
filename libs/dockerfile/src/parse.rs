use crate::dialect::Dialect;
use crate::directive::Directives;
use crate::error::Error;
use crate::flags::{self, Allowed, Flags};
use crate::heredoc::Heredoc;
use crate::instruction::{Instruction, Kind, Stage};
use crate::interpret;
use crate::lines::{self, Line, Misread};
use crate::quote::quote;
use crate::words;

/// A whole Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    pub directives: Directives,
    /// ARG instructions before the first FROM.
    pub meta_args: Vec<Instruction>,
    /// At least one.
    pub stages: Vec<Stage>,
    /// What Docker warns of before the first step, each without a newline at its end.
    pub warnings: Vec<String>,
    /// Lines where instructions end that have a blank line inside.
    pub blank_lines: Vec<usize>,
}

impl Dockerfile {
    /// Parses the text of a Dockerfile; errors are in the classic builder's words. Docker splits all of it before it
    /// looks at any instruction, so a syntax error late in the file comes before a wrong instruction early in it.
    pub fn parse(source: &str) -> Result<Self, Error> {
        Self::parse_as(source, Dialect::Classic)
    }

    /// As [`Dockerfile::parse`], with errors in a dialect's words.
    pub fn parse_as(source: &str, dialect: Dialect) -> Result<Self, Error> {
        if dialect == Dialect::BuildKit && source.is_empty() {
            return Err(Error::meaning("the Dockerfile cannot be empty"));
        }
        let Nodes { directives, nodes, warnings, blank_lines } = nodes(source, dialect)?;
        let mut dockerfile = Self { directives, meta_args: Vec::new(), stages: Vec::new(), warnings, blank_lines };
        for node in nodes {
            dockerfile.add(&node)?;
        }
        if dockerfile.stages.is_empty() {
            return Err(Error::NoStage { dialect });
        }
        Ok(dockerfile)
    }

    fn add(&mut self, node: &Node) -> Result<(), Error> {
        if node.name == "FROM" {
            self.stages.push(stage(node)?);
            return Ok(());
        }
        let instruction = interpret::instruction(node)?;
        match self.stages.last_mut() {
            Some(stage) => stage.instructions.push(instruction),
            None if matches!(instruction.kind, Kind::Arg(_)) => self.meta_args.push(instruction),
            None => return Err(Error::BeforeFrom { line: node.line }),
        }
        Ok(())
    }

    /// How many steps Docker counts: every instruction, FROM included.
    pub fn step_count(&self) -> usize {
        let in_stages = self.stages.iter().map(|stage| 1 + stage.instructions.len());
        self.meta_args.len() + in_stages.sum::<usize>()
    }
}

/// Parses one instruction other than FROM, such as an ONBUILD trigger of a parent image.
pub fn parse_instruction(source: &str) -> Result<Instruction, Error> {
    parse_instruction_as(source, Dialect::Classic)
}

/// As [`parse_instruction`], with errors in a dialect's words.
pub fn parse_instruction_as(source: &str, dialect: Dialect) -> Result<Instruction, Error> {
    match nodes(source, dialect)?.nodes.as_slice() {
        [node] => interpret::instruction(node),
        _ => {
            let message = "onbuild trigger should be a single expression".to_owned();
            Err(Error::Syntax { dialect, line: 0, message })
        }
    }
}

/// An instruction split into its parts but not yet understood.
#[derive(Debug)]
pub(crate) struct Node {
    pub line: usize,
    pub end_line: usize,
    pub comments: Vec<String>,
    pub dialect: Dialect,
    pub original: String,
    /// Upper case.
    pub name: String,
    pub flags: Vec<String>,
    pub arguments: Arguments,
    pub heredocs: Vec<Heredoc>,
    pub escape: char,
}

impl Node {
    pub fn error(&self, message: String) -> Error {
        Error::Instruction { line: self.line, message }
    }
}

#[derive(Debug)]
pub(crate) enum Arguments {
    Json(Vec<String>),
    Text(String),
    Words(Vec<String>),
    Pairs(Vec<(String, String)>),
}

/// A file split into its instructions.
pub(crate) struct Nodes {
    pub directives: Directives,
    pub nodes: Vec<Node>,
    pub warnings: Vec<String>,
    pub blank_lines: Vec<usize>,
}

pub(crate) fn nodes(source: &str, dialect: Dialect) -> Result<Nodes, Error> {
    let misread = |Misread { line, message }| Error::Syntax { dialect, line, message };
    let (directives, lines) = lines::join(source).map_err(misread)?;
    if lines.is_empty() {
        let line = source.lines().count();
        return Err(misread(Misread { line, message: "file with no instructions".to_owned() }));
    }
    let warnings = warnings(&lines);
    let blank_lines = lines.iter().filter(|line| line.blank_inside).map(|line| line.head_end).collect();
    let split = |line: Line| {
        let start = line.start;
        node(line, directives.escape, dialect).map_err(|message| misread(Misread { line: start, message }))
    };
    let nodes = lines.into_iter().map(split).collect::<Result<_, _>>()?;
    Ok(Nodes { directives, nodes, warnings, blank_lines })
}

fn warnings(lines: &[Line]) -> Vec<String> {
    let mut warnings: Vec<String> = lines
        .iter()
        .filter(|line| line.blank_inside)
        .map(|line| format!("[WARNING]: Empty continuation line found in:\n    {}", line.text))
        .collect();
    if !warnings.is_empty() {
        warnings.push("[WARNING]: Empty continuation lines will become errors in a future release.".to_owned());
    }
    warnings
}

fn node(line: Line, escape: char, dialect: Dialect) -> Result<Node, String> {
    let original = line.text.trim().to_owned();
    let (name, rest) = match original.split_once(char::is_whitespace) {
        Some((name, rest)) => (name.to_uppercase(), rest),
        None => (original.to_uppercase(), ""),
    };
    let (flags, rest) = flags::split(rest, escape);
    let arguments = arguments(&name, rest, escape)?;
    if name == "ONBUILD" {
        check_trigger(rest, escape)?;
    }
    Ok(Node {
        line: line.start,
        end_line: line.end,
        comments: line.comments,
        dialect,
        original,
        name,
        flags,
        arguments,
        heredocs: line.heredocs,
        escape,
    })
}

fn arguments(name: &str, rest: &str, escape: char) -> Result<Arguments, String> {
    Ok(match name {
        "ADD" | "COPY" | "VOLUME" => match words::json_strings(rest)? {
            Some(strings) => Arguments::Json(strings),
            None => Arguments::Words(rest.split_whitespace().map(str::to_owned).collect()),
        },
        "CMD" | "ENTRYPOINT" | "RUN" | "SHELL" => match words::json_strings(rest)? {
            Some(strings) => Arguments::Json(strings),
            None => Arguments::Text(rest.to_owned()),
        },
        "EXPOSE" | "FROM" => Arguments::Words(rest.split_whitespace().map(str::to_owned).collect()),
        "ARG" => Arguments::Words(words::split_quoted(rest, escape)),
        "ENV" | "LABEL" => Arguments::Pairs(words::pairs(rest, name, escape)?),
        _ => Arguments::Text(rest.to_owned()),
    })
}

/// A trigger's own syntax is looked at when ONBUILD is, one level deep: deeper is refused anyway.
fn check_trigger(rest: &str, escape: char) -> Result<(), String> {
    let (name, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let (_, rest) = flags::split(rest, escape);
    arguments(&name.to_uppercase(), rest, escape).map(|_| ())
}

fn stage(node: &Node) -> Result<Stage, Error> {
    let fail = |message: String| node.error(message);
    let Arguments::Words(words) = &node.arguments else {
        return Err(fail("FROM requires either one or three arguments".into()));
    };
    let (base, name) = match words.as_slice() {
        [base] => (base, None),
        [base, word, name] if word.eq_ignore_ascii_case("as") => (base, Some(name)),
        _ => return Err(fail("FROM requires either one or three arguments".into())),
    };
    if let Some(name) = name
        && !is_stage_name(&name.to_lowercase())
    {
        return Err(fail(format!(
            "invalid name for build stage: {}, name can't start with a number or contain symbols",
            quote(name)
        )));
    }
    let allowed = Allowed { once: &["platform"], ..Allowed::default() };
    let flags = Flags::check(&node.flags, allowed).map_err(fail)?;
    Ok(Stage {
        line: node.line,
        end_line: node.end_line,
        comments: node.comments.clone(),
        original: node.original.clone(),
        name: name.map(|name| name.to_lowercase()),
        base: base.clone(),
        platform: flags.one("platform"),
        instructions: Vec::new(),
    })
}

fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c))
}
