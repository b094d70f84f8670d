//! `cache`: what `RUN --mount=type=cache` keeps.

use std::io::{IsTerminal as _, stdin};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::archive::{file_body, refuse_terminal, stdin_body, write_body};
use crate::commands::confirm;
use crate::engine::{Engine, escape};
use crate::failure::{Failure, Outcome};
use crate::filters::Filters;
use crate::format::table::{Listing, row};
use crate::reference::short_id;
use crate::{output, units};

#[derive(Subcommand, Debug)]
pub enum Cache {
    /// List cache mounts
    #[command(visible_alias = "list")]
    Ls(List),
    /// Write the files of a cache mount as a tar archive
    Export(Export),
    /// Make a tar archive the content of a cache mount
    Import(Import),
    /// Remove cache mounts that no running build uses
    Prune(Prune),
}

#[derive(Args, Debug)]
pub struct List {
    /// Filter output: id=ID, sharing=shared|private|locked, worker=WORKER, until=TIME, unused-for=DURATION
    #[arg(short, long)]
    filter: Vec<String>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long)]
    format: Option<String>,
    /// Do not shorten keys
    #[arg(long)]
    no_trunc: bool,
    /// Only display keys
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Args, Debug)]
pub struct Export {
    /// Write to a file, instead of STDOUT
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Id of the cache in Dockerfiles, or how its key begins
    cache: String,
}

#[derive(Args, Debug)]
pub struct Import {
    /// Who may have it at once: shared, locked, or private (a cache apart from the other two)
    #[arg(long, default_value = "shared")]
    sharing: String,
    /// Id of the cache in Dockerfiles; without one there, the mount's target
    id: String,
    /// The archive, instead of STDIN
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct Prune {
    /// Also remove caches that were used in the last week
    #[arg(short, long)]
    all: bool,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Provide filter values (e.g. "unused-for=24h", "id=...", "sharing=private")
    #[arg(long)]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
    /// Remove only these, whenever they were used
    #[arg(value_name = "CACHE")]
    caches: Vec<String>,
}

const HEADERS: &[(&str, &str)] = &[
    ("Key", "KEY"),
    ("ID", "CACHE ID"),
    ("Sharing", "SHARING"),
    ("Size", "SIZE"),
    ("Files", "FILES"),
    ("LastUsed", "LAST USED"),
    ("Workers", "WORKERS"),
    ("StoredSize", "STORED"),
    ("Created", "CREATED"),
    ("Description", "DESCRIPTION"),
];

impl Cache {
    pub async fn run(self, engine: &Engine) -> Outcome {
        match self {
            Self::Ls(command) => command.run(engine).await,
            Self::Export(command) => command.run(engine).await,
            Self::Import(command) => command.run(engine).await,
            Self::Prune(command) => command.run(engine).await,
        }
    }
}

impl List {
    async fn run(self, engine: &Engine) -> Outcome {
        let filters = Filters::parse(&self.filter)?;
        let caches = engine.get("/boxyard/v1/caches").maybe("filters", filters.query()).value().await?;
        let rows: Vec<Value> =
            caches["items"].as_array().into_iter().flatten().map(|cache| shown(cache, self.no_trunc)).collect();
        if self.quiet && self.format.is_none() {
            rows.iter().filter_map(|row| row["Key"].as_str()).for_each(output::line);
            return Ok(());
        }
        let default = "{{.Key}}\t{{.ID}}\t{{.Sharing}}\t{{.Size}}\t{{.Files}}\t{{.LastUsed}}\t{{.Workers}}".to_owned();
        Listing { kind: "cacheContext", default, headers: HEADERS, rows }.print(self.format.as_deref())
    }
}

fn shown(cache: &Value, whole: bool) -> Value {
    let key = cache["key"].as_str().unwrap_or_default();
    let size = |name: &str| units::size(cache[name].as_f64().unwrap_or(0.0)).into();
    let ago = |name: &str| units::ago(units::unix_seconds(cache[name].as_str().unwrap_or_default())).into();
    let workers = cache["workers"].as_array().into_iter().flatten().filter_map(copy);
    let fields = [
        ("Key", if whole { key } else { short_id(key) }.into()),
        ("ID", cache["id"].clone()),
        ("Sharing", cache["sharing"].clone()),
        ("Size", size("bytes")),
        ("Files", cache["files"].as_u64().unwrap_or(0).to_string().into()),
        ("LastUsed", ago("last_used_at")),
        ("Workers", workers.collect::<Vec<_>>().join(",").into()),
        ("StoredSize", size("stored_bytes")),
        ("Created", ago("created_at")),
        ("Description", cache["description"].clone()),
    ];
    row(&fields, None)
}

/// A worker that has a copy: `w1`, `w1*` while a step has it, `(w1)` where it is not what is stored.
fn copy(copy: &Value) -> Option<String> {
    let worker = copy["worker"].as_str()?;
    Some(match (copy["in_use"] == true, copy["current"] == true) {
        (true, _) => format!("{worker}*"),
        (false, true) => worker.to_owned(),
        (false, false) => format!("({worker})"),
    })
}

impl Export {
    async fn run(self, engine: &Engine) -> Outcome {
        let why = "cowardly refusing to export to a terminal. Use the -o flag or redirect";
        let file = self.output.filter(|file| file != Path::new("-"));
        refuse_terminal(file.as_deref(), why)?;
        // An id may be a path.
        let cache = escape(&self.cache).replace('/', "%2F");
        let response = engine.get(format!("/boxyard/v1/caches/{cache}/content")).send().await?;
        write_body(response, file.as_deref()).await
    }
}

impl Import {
    async fn run(self, engine: &Engine) -> Outcome {
        let body = match self.file.as_deref().filter(|file| *file != Path::new("-")) {
            Some(path) => file_body(path).await?,
            None if stdin().is_terminal() => {
                return Err(Failure::new("requested import from stdin, but stdin is empty"));
            }
            None => stdin_body(),
        };
        let call = engine.post("/boxyard/v1/caches").query("id", &self.id).query("sharing", &self.sharing);
        let cache = call.header("content-type", "application/x-tar").body(body).value().await?;
        output::line(cache["key"].as_str().unwrap_or_default());
        Ok(())
    }
}

impl Prune {
    async fn run(self, engine: &Engine) -> Outcome {
        let filters = Filters::parse(&self.filter)?;
        let warning = match (self.all, self.caches.is_empty() && self.filter.is_empty()) {
            (true, true) => "WARNING! This will remove all cache mounts that no running build uses.",
            (false, true) => "WARNING! This will remove the cache mounts that no step has used for a week.",
            (_, false) => {
                "WARNING! This will remove the cache mounts that you name, as far as no running build uses them."
            }
        };
        if !self.force && !self.dry_run && !confirm(warning)? {
            return Ok(());
        }
        let mut call =
            engine.call(http::Method::DELETE, "/boxyard/v1/caches").flag("all", self.all).flag("dry-run", self.dry_run);
        for cache in &self.caches {
            call = call.query("name", cache);
        }
        let report = call.maybe("filters", filters.query()).value().await?;
        for cache in report["items"].as_array().into_iter().flatten() {
            let (key, id) = (cache["key"].as_str().unwrap_or_default(), cache["id"].as_str().unwrap_or_default());
            output::line(format!("{key} {id}"));
        }
        let head = if self.dry_run { "Total that would be reclaimed:" } else { "Total:" };
        output::line(format!("{head} {}", units::size(report["bytes"].as_f64().unwrap_or(0.0))));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_copy_tells_its_state() {
        for (in_use, current, wanted) in [(true, true, "w*"), (false, true, "w"), (false, false, "(w)")] {
            let told = copy(&json!({"worker": "w", "in_use": in_use, "current": current}));
            assert_eq!(told.as_deref(), Some(wanted));
        }
    }
}
