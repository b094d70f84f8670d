//! One split instruction to its meaning, with Docker's complaints.

use crate::dialect::Dialect;
use crate::duration;
use crate::error::Error;
use crate::flags::{Allowed, Flags};
use crate::heredoc;
use crate::instruction::{ArgDeclaration, Command, Copy, Healthcheck, Instruction, Kind, Run, Test};
use crate::mount::MountFlag;
use crate::parse::{Arguments, Node};
use crate::quote::quote;
use crate::words;

const NO_FLAGS: Allowed = Allowed { once: &[], many: &[], bare: &[] };
const COPY_FLAGS: Allowed =
    Allowed { once: &["from", "chown", "chmod"], many: &["exclude"], bare: &["link", "parents"] };
const ADD_FLAGS: Allowed =
    Allowed { once: &["chown", "chmod", "checksum"], many: &["exclude"], bare: &["link", "keep-git-dir", "unpack"] };
const RUN_FLAGS: Allowed = Allowed { once: &["network", "security"], many: &["mount", "device"], bare: &[] };
const HEALTHCHECK_FLAGS: Allowed =
    Allowed { once: &["interval", "timeout", "start-period", "start-interval", "retries"], many: &[], bare: &[] };

pub(crate) fn instruction(node: &Node) -> Result<Instruction, Error> {
    let kind = kind(node).map_err(|message| node.error(message))?;
    Ok(Instruction {
        line: node.line,
        end_line: node.end_line,
        comments: node.comments.clone(),
        original: node.original.clone(),
        kind,
    })
}

fn kind(node: &Node) -> Result<Kind, String> {
    Ok(match node.name.as_str() {
        "MAINTAINER" => Kind::Maintainer(single(node)?),
        "RUN" => Kind::Run(run(node)?),
        "CMD" => Kind::Cmd(plain_command(node)?),
        "ENTRYPOINT" => Kind::Entrypoint(plain_command(node)?),
        "COPY" => Kind::Copy(copy(node, COPY_FLAGS)?),
        "ADD" => Kind::Add(copy(node, ADD_FLAGS)?),
        "ENV" => Kind::Env(pairs(node)?),
        "LABEL" => Kind::Label(pairs(node)?),
        "ARG" => Kind::Arg(arg(node)?),
        "EXPOSE" => {
            let mut ports = list(node)?;
            ports.sort();
            Kind::Expose(ports)
        }
        "VOLUME" => Kind::Volume(volume(node)?),
        "USER" => Kind::User(single(node)?),
        "WORKDIR" => Kind::Workdir(single(node)?),
        "ONBUILD" => Kind::Onbuild(onbuild(node)?),
        "STOPSIGNAL" => Kind::Stopsignal(single(node)?),
        "HEALTHCHECK" => Kind::Healthcheck(healthcheck(node)?),
        "SHELL" => Kind::Shell(shell(node)?),
        "FROM" => return Err("FROM isn't allowed here".to_owned()),
        _ => return Err(unknown(node.original.split_whitespace().next().unwrap_or_default())),
    })
}

fn single(node: &Node) -> Result<String, String> {
    match &node.arguments {
        Arguments::Text(text) if !text.is_empty() => {
            Flags::check(&node.flags, NO_FLAGS)?;
            Ok(text.clone())
        }
        _ => Err(format!("{} requires exactly one argument", node.name)),
    }
}

fn list(node: &Node) -> Result<Vec<String>, String> {
    match &node.arguments {
        Arguments::Words(words) | Arguments::Json(words) if !words.is_empty() => {
            Flags::check(&node.flags, NO_FLAGS)?;
            Ok(words.clone())
        }
        _ => Err(format!("{} requires at least one argument", node.name)),
    }
}

fn pairs(node: &Node) -> Result<Vec<(String, String)>, String> {
    Flags::check(&node.flags, NO_FLAGS)?;
    match &node.arguments {
        Arguments::Pairs(pairs) if !pairs.is_empty() => {
            if pairs.iter().any(|(name, _)| name.is_empty()) {
                return Err(format!("{} names can not be blank", node.name));
            }
            Ok(pairs.clone())
        }
        _ => Err(format!("{} requires at least one argument", node.name)),
    }
}

fn command(node: &Node) -> Command {
    match &node.arguments {
        Arguments::Json(words) => Command::Exec(words.clone()),
        Arguments::Text(text) if !text.is_empty() => Command::Shell(Some(text.clone())),
        _ => Command::Shell(None),
    }
}

const INSTRUCTIONS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

fn unknown(name: &str) -> String {
    crate::suggest::ignoring_case(format!("unknown instruction: {name}"), name, INSTRUCTIONS)
}

fn plain_command(node: &Node) -> Result<Command, String> {
    Flags::check(&node.flags, NO_FLAGS)?;
    Ok(command(node))
}

fn run(node: &Node) -> Result<Run, String> {
    let flags = Flags::check(&node.flags, RUN_FLAGS)?;
    let (network, security) = (flags.one("network"), flags.one("security"));
    if let Some(mode) = &network
        && node.dialect == Dialect::BuildKit
        && !["default", "none", "host"].contains(&mode.as_str())
    {
        return Err(format!("invalid network mode {}", quote(mode)));
    }
    if let Some(security) = &security
        && !["sandbox", "insecure"].contains(&security.as_str())
    {
        return Err(format!("security {} is not valid", quote(security)));
    }
    // BuildKit gives the shell an empty command where the classic builder gives it none.
    let command = match command(node) {
        Command::Shell(None) if node.dialect == Dialect::BuildKit => Command::Shell(Some(String::new())),
        command => command,
    };
    Ok(Run {
        command,
        heredocs: node.heredocs.clone(),
        network,
        security,
        mounts: flags.all("mount").iter().map(|text| MountFlag::parse(text)).collect::<Result<_, _>>()?,
        devices: flags.all("device"),
    })
}

fn copy(node: &Node, allowed: Allowed) -> Result<Copy, String> {
    let words = match &node.arguments {
        Arguments::Words(words) | Arguments::Json(words) => words.as_slice(),
        _ => &[],
    };
    let Some((destination, sources)) = words.split_last().filter(|(_, rest)| !rest.is_empty()) else {
        return Err(format!(
            "{} requires at least two arguments, but only one was provided. Destination could not be determined",
            node.name
        ));
    };
    let flags = Flags::check(&node.flags, allowed)?;
    let is_heredoc = |word: &String| {
        !node.heredocs.is_empty() && (word == heredoc::APART || heredoc::parse_word(word, node.escape).is_some())
    };
    if is_heredoc(destination) {
        return Err(format!("{} cannot accept a heredoc as a destination", node.name));
    }
    Ok(Copy {
        sources: sources.iter().filter(|word| !is_heredoc(word)).cloned().collect(),
        heredocs: node.heredocs.clone(),
        destination: destination.clone(),
        from: flags.one("from"),
        chown: flags.one("chown"),
        chmod: flags.one("chmod"),
        link: flags.bare("link").unwrap_or_default(),
        parents: flags.bare("parents").unwrap_or_default(),
        excludes: flags.all("exclude"),
        checksum: flags.one("checksum"),
        keep_git_dir: flags.bare("keep-git-dir").unwrap_or_default(),
        unpack: flags.bare("unpack"),
    })
}

fn arg(node: &Node) -> Result<Vec<ArgDeclaration>, String> {
    let words = match &node.arguments {
        Arguments::Words(words) if !words.is_empty() => words,
        _ => return Err("ARG requires at least one argument".to_owned()),
    };
    let mut declarations = Vec::new();
    for word in words {
        let (name, default) = match word.split_once('=') {
            Some((name, default)) => (name, Some(default.to_owned())),
            None => (word.as_str(), None),
        };
        if name.is_empty() {
            return Err("ARG names can not be blank".to_owned());
        }
        declarations.push(ArgDeclaration { name: name.to_owned(), default });
    }
    Flags::check(&node.flags, NO_FLAGS)?;
    Ok(declarations)
}

fn volume(node: &Node) -> Result<Vec<String>, String> {
    let paths: Vec<String> = list(node)?.into_iter().map(|path| path.trim().to_owned()).collect();
    if paths.iter().any(String::is_empty) {
        return Err("VOLUME specified can not be an empty string".to_owned());
    }
    Ok(paths)
}

fn onbuild(node: &Node) -> Result<String, String> {
    Flags::check(&node.flags, NO_FLAGS)?;
    let text = match &node.arguments {
        Arguments::Text(text) if !text.trim().is_empty() => text.trim(),
        _ => return Err("ONBUILD requires at least one argument".to_owned()),
    };
    let trigger = text.split(char::is_whitespace).next().unwrap_or_default().to_uppercase();
    match trigger.as_str() {
        "ONBUILD" => Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned()),
        "MAINTAINER" | "FROM" => Err(format!("{trigger} isn't allowed as an ONBUILD trigger")),
        _ => {
            let mut trigger = text.to_owned();
            for heredoc in &node.heredocs {
                trigger.push('\n');
                trigger.push_str(&heredoc.content);
                trigger.push_str(&heredoc.name);
            }
            Ok(trigger)
        }
    }
}

fn healthcheck(node: &Node) -> Result<Healthcheck, String> {
    let text = match &node.arguments {
        Arguments::Text(text) if !text.is_empty() => text.as_str(),
        _ => return Err("HEALTHCHECK requires at least one argument".to_owned()),
    };
    let (kind, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    let flags = Flags::check(&node.flags, HEALTHCHECK_FLAGS)?;
    let test = match kind.to_uppercase().as_str() {
        "NONE" if rest.is_empty() => Test::None,
        "NONE" => return Err("HEALTHCHECK NONE takes no arguments".to_owned()),
        "CMD" => match words::json_strings(rest)? {
            Some(words) if !words.is_empty() => Test::Command(Command::Exec(words)),
            None if !rest.is_empty() => Test::Command(Command::Shell(Some(rest.to_owned()))),
            _ => return Err("Missing command after HEALTHCHECK CMD".to_owned()),
        },
        other => {
            return Err(format!("Unknown type {} in HEALTHCHECK (try CMD)", quote(other)));
        }
    };
    let interval = |name: &str| duration::interval(name, flags.one(name));
    Ok(Healthcheck {
        test,
        interval_ns: interval("interval")?,
        timeout_ns: interval("timeout")?,
        start_period_ns: interval("start-period")?,
        start_interval_ns: interval("start-interval")?,
        retries: retries(flags.one("retries"))?,
    })
}

fn retries(text: Option<String>) -> Result<i64, String> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(0);
    };
    let count = text.parse::<i32>().map_err(|error| {
        use std::num::IntErrorKind::{NegOverflow, PosOverflow};
        let why = match error.kind() {
            PosOverflow | NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.ParseInt: parsing {}: {why}", quote(&text))
    })?;
    if count < 1 {
        return Err(format!("--retries must be at least 1 (not {count})"));
    }
    Ok(count.into())
}

fn shell(node: &Node) -> Result<Vec<String>, String> {
    Flags::check(&node.flags, NO_FLAGS)?;
    match &node.arguments {
        Arguments::Json(words) if !words.is_empty() => Ok(words.clone()),
        Arguments::Text(text) if !text.is_empty() => Err("SHELL requires the arguments to be in JSON form".to_owned()),
        _ => Err("SHELL requires at least one argument".to_owned()),
    }
}
