//! Heredocs of RUN.

use std::path::Path;

use dockerfile::{Command, Heredoc};

/// A heredoc that names its own interpreter (`#!`): a file in the container, run as it is.
pub struct Script {
    pub name: String,
    pub content: String,
}

impl Script {
    /// Where BuildKit puts it as well.
    pub fn target(&self) -> String {
        format!("/dev/pipes/{}", self.name)
    }
}

/// Whether a RUN is nothing but one heredoc.
pub fn only_heredoc<'a>(command: &Command, heredocs: &'a [Heredoc]) -> Option<&'a Heredoc> {
    match (command, heredocs) {
        (Command::Shell(Some(line)), [only])
            if line.trim_start().strip_prefix("<<").is_some_and(|word| !word.trim().contains(char::is_whitespace)) =>
        {
            Some(only)
        }
        _ => None,
    }
}

pub fn script(command: &Command, heredocs: &[Heredoc]) -> Option<Script> {
    let only = only_heredoc(command, heredocs).filter(|heredoc| heredoc.content.starts_with("#!"))?;
    Some(Script { name: only.name.clone(), content: only.content.clone() })
}

/// A RUN that is nothing but a heredoc runs its content; else the shell reads the heredocs itself.
pub fn with_heredocs(command: Command, heredocs: &[Heredoc]) -> Command {
    if let Some(only) = only_heredoc(&command, heredocs) {
        return Command::Shell(Some(only.content.clone()));
    }
    match command {
        Command::Shell(Some(mut line)) => {
            for heredoc in heredocs {
                line.push_str(&format!("\n{}{}", heredoc.content, heredoc.name));
            }
            Command::Shell(Some(line))
        }
        other => other,
    }
}

/// Writes what is run as it is.
pub fn write_script(path: &Path, content: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, content)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heredoc(content: &str) -> Heredoc {
        Heredoc { name: "EOF".into(), content: content.into(), expand: true, strip_tabs: false, descriptor: 0 }
    }

    #[test]
    fn heredocs_of_run() {
        let shell = |text: &str| Command::Shell(Some(text.to_owned()));
        for (line, heredocs, expected) in [
            ("<<EOF", vec![heredoc("a\nb\n")], "a\nb\n"),
            ("cat <<EOF > /x", vec![heredoc("a\n")], "cat <<EOF > /x\na\nEOF"),
            ("echo", vec![], "echo"),
        ] {
            assert!(script(&shell(line), &heredocs).is_none());
            assert_eq!(with_heredocs(shell(line), &heredocs), shell(expected));
        }
        let own = script(&shell("<<EOF"), &[heredoc("#!/bin/python\n")]).expect("a script");
        assert_eq!(own.target(), "/dev/pipes/EOF");
    }
}
