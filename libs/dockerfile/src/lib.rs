//! Dockerfiles: what they say, not what is done about it.
//!
//! This room turns the text of a Dockerfile into typed instructions, expands variables as Docker's
//! shell lexer does, and decides which files of a context a `.dockerignore` leaves out. It is pure:
//! it must not read files, know images or run anything.
//!
//! Entry points: [`Dockerfile::parse_as`], [`parse_instruction_as`] (one ONBUILD trigger),
//! [`parse_changes`] (`commit -c`, `import -c`), [`Lexer`] and [`Ignore`].
//!
//! Invariants: no input makes it panic; every error is the author's mistake (an invalid argument)
//! and its text is what Docker's classic builder or BuildKit prints, as the [`Dialect`] says. Where
//! the classic builder knows less than today's Dockerfiles (heredocs, `${x#p}`), the Dockerfile
//! reference rules.

mod changes;
pub mod csv;
mod dialect;
mod directive;
mod duration;
mod error;
mod expand;
mod flags;
mod glob;
mod graph;
mod heredoc;
mod ignore;
mod instruction;
mod interpret;
mod lines;
mod lint;
mod mount;
mod needs;
mod outline;
mod parse;
mod pattern;
mod quote;
mod scope;
mod suggest;
mod words;

pub use changes::parse_changes;
pub use dialect::Dialect;
pub use directive::Directives;
pub use error::Error;
pub use expand::{Expanded, Lexer, Lookup};
pub use glob::Glob;
pub use graph::{GraphInput, Origin, StageGraph, StageNode, is_step, triggers};
pub use heredoc::Heredoc;
pub use ignore::Ignore;
pub use instruction::{ArgDeclaration, Command, Copy, Healthcheck, Instruction, Kind, Run, Stage, Test};
pub use lines::last_line;
pub use lint::{BaseImage, Checks, Findings, LintInput, Warning, lint};
pub use mount::{Mount, MountFlag, MountType, Sharing};
pub use needs::{follow_paths, ignore_files};
pub use outline::{Outline, OutlineArg, OutlineMount, Target, location, outline, targets};
pub use parse::{Dockerfile, parse_instruction, parse_instruction_as};
pub use quote::{quote, quote_number};
pub use scope::{GlobalArg, Globals, Scope, automatic_args, is_on};

/// Build arguments that need no ARG instruction and never reach the image or its history.
pub const PREDEFINED_ARGS: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];
