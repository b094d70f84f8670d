//! The `boxyard` command: a client of the Docker Engine API, and the supervisor that starts
//! a whole Boxyard on one machine. It never opens the bus or the database.

#![recursion_limit = "512"]

mod attachables;
mod commands;
mod content_trust;
mod context;
mod create;
mod credentials;
mod draft;
mod engine;
mod failure;
mod filters;
mod format;
mod host;
mod layout;
mod output;
mod progress;
mod reference;
mod regular;
mod session;
mod solve;
mod terminal;
mod tls;
mod units;
mod unpack;
mod up;
mod usage;

use failure::Outcome;

fn main() {
    let code = match run() {
        Ok(()) => 0,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("{}", failure.message);
                if let Some(hint) = &failure.hint {
                    eprintln!("{hint}");
                }
            }
            failure.code
        }
    };
    // A blocked read of stdin must not hold the process.
    std::process::exit(code);
}

fn run() -> Outcome {
    let mut arguments: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    if matches!(arguments.get(1).map(String::as_str), Some("-v" | "--version")) {
        output::line(format!("Boxyard version {}", env!("CARGO_PKG_VERSION")));
        return Ok(());
    }
    if arguments.len() == 1 {
        arguments.push("--help".into());
    }
    let cli = usage::parse(arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let engine = engine::Engine::new(host::Host::resolve(cli.host.as_deref(), cli.tls.are_on())?, cli.tls);
        cli.command.run(&engine).await
    });
    // A thread may still wait for a key on stdin; dropping the runtime would wait with it.
    runtime.shutdown_background();
    outcome
}
