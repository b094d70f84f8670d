//! `boxyard build`: with a context it builds; with one of these words it looks at builds by their ids. A context that is called
//! like a word is written `./ls`.

pub mod explain;
pub mod list;
pub mod logs;
pub mod prune;
pub mod shell;

use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand};

use super::build::Build;
use crate::engine::Engine;
use crate::failure::Outcome;

/// A build, or a look at builds.
#[derive(Debug)]
pub enum BuildCommand {
    Build(Box<Build>),
    Manage(Manage),
}

#[derive(Subcommand, Debug)]
pub enum Manage {
    /// Follow a build that is not over until its end, and end as it does
    Attach(logs::Attach),
    /// End builds that are not over
    Cancel(list::Cancel),
    /// Say why each step of a build ran
    Explain(explain::Explain),
    /// Display detailed information on one or more builds
    Inspect(list::Inspect),
    /// Fetch the log of a build
    Logs(logs::Logs),
    /// List builds
    #[command(visible_alias = "list")]
    Ls(list::List),
    /// Remove results of build steps
    Prune(prune::Prune),
    /// Forget builds that are over, with their logs
    #[command(visible_alias = "remove")]
    Rm(list::Remove),
    /// Look at the file system of a step, as the step saw it or as its failed command left it
    Shell(shell::Shell),
}

impl BuildCommand {
    pub async fn run(self, engine: &Engine) -> Outcome {
        match self {
            Self::Build(build) => build.run(engine).await,
            Self::Manage(Manage::Attach(c)) => c.run(engine).await,
            Self::Manage(Manage::Cancel(c)) => c.run(engine).await,
            Self::Manage(Manage::Explain(c)) => c.run(engine).await,
            Self::Manage(Manage::Inspect(c)) => c.run(engine).await,
            Self::Manage(Manage::Logs(c)) => c.run(engine).await,
            Self::Manage(Manage::Ls(c)) => c.run(engine).await,
            Self::Manage(Manage::Prune(c)) => c.run(engine).await,
            Self::Manage(Manage::Rm(c)) => c.run(engine).await,
            Self::Manage(Manage::Shell(c)) => c.run(engine).await,
        }
    }
}

impl FromArgMatches for BuildCommand {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        match matches.subcommand() {
            Some(_) => Manage::from_arg_matches(matches).map(Self::Manage),
            None => Build::from_arg_matches(matches).map(|build| Self::Build(Box::new(build))),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for BuildCommand {
    fn augment_args(command: Command) -> Command {
        let command = Manage::augment_subcommands(Build::augment_args(command));
        // What derives a required subcommand is meant for a command that has nothing else.
        command
            .subcommand_required(false)
            .arg_required_else_help(false)
            .subcommand_negates_reqs(true)
            .args_conflicts_with_subcommands(true)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
