//! Reading the command line, with Docker's habits: `--flag=false` for every switch, `-h`
//! free for host names, errors on one line with a hint.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches};

use crate::commands::tree::Cli;
use crate::failure::{Failure, Outcome};
use crate::output;

/// The command tree as clap shall see it.
pub fn command() -> Command {
    docker_like(Cli::command())
}

/// Parses, or explains. Help is printed and ends with code 0.
pub fn parse(arguments: Vec<String>) -> Outcome<Cli> {
    let matches = command().try_get_matches_from(&arguments);
    matches.and_then(|m| Cli::from_arg_matches(&m)).map_err(|error| failure(&error, &arguments))
}

fn docker_like(command: Command) -> Command {
    let command = command.disable_help_flag(true).disable_help_subcommand(true).args_override_self(true);
    let command = command.mut_args(|arg| match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_value("false")
            .default_missing_value("true")
            .value_parser(clap::builder::BoolishValueParser::new())
            .value_name("bool")
            .hide_default_value(true)
            .hide_possible_values(true),
        _ => arg,
    });
    let command = command.arg(Arg::new("help").long("help").action(ArgAction::Help).help("Print usage"));
    command.mut_subcommands(docker_like)
}

fn failure(error: &clap::Error, arguments: &[String]) -> Failure {
    if matches!(error.kind(), ErrorKind::DisplayHelp) {
        output::write(error.render().to_string().as_bytes());
        return Failure::exit(0);
    }
    if matches!(error.kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand) {
        output::error(error.render().to_string().as_bytes());
        return Failure::exit(1);
    }
    let path = command_path(arguments);
    let subject = path.join(" ");
    let value = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(" "),
        _ => String::new(),
    };
    let given = value(ContextKind::InvalidArg);
    let message = match error.kind() {
        ErrorKind::UnknownArgument if given.starts_with("--") => {
            format!("unknown flag: {}", given.split('=').next().unwrap_or_default())
        }
        ErrorKind::UnknownArgument if given.starts_with('-') => {
            format!("unknown shorthand flag: '{}' in {given}", given.chars().nth(1).unwrap_or('-'))
        }
        ErrorKind::UnknownArgument => format!("boxyard: '{subject}' accepts no more arguments: {given}"),
        ErrorKind::InvalidSubcommand => {
            let name = value(ContextKind::InvalidSubcommand);
            format!("boxyard: unknown command: {subject} {name}")
        }
        ErrorKind::MissingRequiredArgument | ErrorKind::TooFewValues => {
            format!("boxyard: '{subject}' requires at least 1 argument")
        }
        ErrorKind::InvalidValue if value(ContextKind::InvalidValue).is_empty() => {
            format!("flag needs an argument: {}", given.split(' ').next().unwrap_or_default())
        }
        _ => {
            let text = error.render().to_string();
            text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
        }
    };
    // A wrong flag is 125 as with Docker; a wrong command or number of arguments is 1.
    let code = if message.starts_with("boxyard: ") { 1 } else { 125 };
    Failure::new(message).code(code).hint(format!("Run '{subject} --help' for more information"))
}

/// The words of the command line that name a command.
fn command_path(arguments: &[String]) -> Vec<String> {
    let mut path = vec!["boxyard".to_owned()];
    let mut current = command();
    let mut skip = false;
    for word in arguments.iter().skip(1) {
        if skip || word.starts_with('-') {
            skip = !skip && ["-H", "--host", "--tlscacert", "--tlscert", "--tlskey"].contains(&word.as_str());
            continue;
        }
        let Some(next) = current.find_subcommand(word).cloned() else { break };
        path.push(word.clone());
        current = next;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Result<(), (&str, i32)>) {
        let arguments = line.split(' ').map(str::to_owned).collect();
        let got = parse(arguments).map(|_| ());
        let got = got.as_ref().map(|_| ()).map_err(|f| (f.message.as_str(), f.code));
        assert_eq!(got, expected, "{line}");
    }

    #[test]
    fn docker_habits() {
        check("boxyard run -it --rm=false -h box busybox sh -c --foo", Ok(()));
        check("boxyard run -dit -e A=B -v /a:/b busybox -e", Ok(()));
        check("boxyard -H tcp://a:1 ps -aq --no-trunc=true", Ok(()));
        check("boxyard --tlsverify --tlscacert ca ps", Ok(()));
        check("boxyard --tls=true --tlsverify=false --tlscert=c --tlskey k ps", Ok(()));
        check("boxyard --tlskey k ps --foo", Err(("unknown flag: --foo", 125)));
        check("boxyard exec -it c ls -l", Ok(()));
        check("boxyard container ls --last 3", Ok(()));
        check("boxyard stop -t -1 a b", Ok(()));
        check("boxyard run --foo x", Err(("unknown flag: --foo", 125)));
        check("boxyard rm --foo", Err(("unknown flag: --foo", 125)));
        check("boxyard run", Err(("boxyard: 'boxyard run' requires at least 1 argument", 1)));
        check("boxyard build -t x .", Ok(()));
        check("boxyard build ls -n 3", Ok(()));
        check("boxyard build logs -f abc", Ok(()));
        check("boxyard build ./ls", Ok(()));
        check("boxyard build", Err(("boxyard: 'boxyard build' requires at least 1 argument", 1)));
        check("boxyard foo", Err(("boxyard: unknown command: boxyard foo", 1)));
    }

    #[test]
    fn the_tree_is_sound() {
        command().debug_assert();
    }
}
