use crate::directive::Directives;
use crate::error::Error;
use crate::flags::{self, Allowed, Flags};
use crate::heredoc::Heredoc;
use crate::instruction::{Instruction, Kind, Stage};
use crate::interpret;
use crate::lines::{self, Line};
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
}

impl Dockerfile {
    /// Parses the text of a Dockerfile. Docker splits all of it before it looks at any instruction,
    /// so a syntax error late in the file comes before a wrong instruction early in it.
    pub fn parse(source: &str) -> Result<Self, Error> {
        let (directives, nodes, warnings) = nodes(source)?;
        let mut dockerfile = Self { directives, meta_args: Vec::new(), stages: Vec::new(), warnings };
        for node in nodes {
            dockerfile.add(&node)?;
        }
        if dockerfile.stages.is_empty() {
            return Err(Error::NoStage);
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
            None => return Err(Error::NoStage),
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
    let (_, nodes, _) = nodes(source)?;
    match nodes.as_slice() {
        [node] => interpret::instruction(node),
        _ => Err(Error::Syntax("onbuild trigger should be a single expression".to_owned())),
    }
}

/// An instruction split into its parts but not yet understood.
#[derive(Debug)]
pub(crate) struct Node {
    pub line: usize,
    pub original: String,
    /// Upper case.
    pub name: String,
    pub flags: Vec<String>,
    pub arguments: Arguments,
    pub heredocs: Vec<Heredoc>,
    pub escape: char,
}

#[derive(Debug)]
pub(crate) enum Arguments {
    Json(Vec<String>),
    Text(String),
    Words(Vec<String>),
    Pairs(Vec<(String, String)>),
}

pub(crate) fn nodes(source: &str) -> Result<(Directives, Vec<Node>, Vec<String>), Error> {
    let (directives, lines) = lines::join(source).map_err(Error::Syntax)?;
    if lines.is_empty() {
        return Err(Error::Syntax("file with no instructions".to_owned()));
    }
    let warnings = warnings(&lines);
    let nodes =
        lines.into_iter().map(|line| node(line, directives.escape)).collect::<Result<_, _>>().map_err(Error::Syntax)?;
    Ok((directives, nodes, warnings))
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

fn node(line: Line, escape: char) -> Result<Node, String> {
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
    Ok(Node { line: line.start, name, flags, arguments, heredocs: line.heredocs, escape, original })
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
    let fail = |message: String| Error::at(node.line, message);
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
            "invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
        )));
    }
    let allowed = Allowed { once: &["platform"], ..Allowed::default() };
    let flags = Flags::check(&node.flags, allowed).map_err(fail)?;
    Ok(Stage {
        line: node.line,
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
