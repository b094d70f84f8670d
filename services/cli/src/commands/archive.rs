//! Images and containers as files: save, load, import, export.

use std::io::{IsTerminal, stdin, stdout};
use std::path::{Path, PathBuf};

use clap::Args;
use http::Response;
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;

use crate::engine::{Body, Engine, empty, escape, next_chunk, streamed};
use crate::failure::{Failure, Outcome};
use crate::progress::{self, Sink};
use crate::{output, reference};

#[derive(Args, Debug)]
pub struct Save {
    /// Write to a file, instead of STDOUT
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Save only the given platform variant
    #[arg(long)]
    platform: Option<String>,
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl Save {
    pub async fn run(self, engine: &Engine) -> Outcome {
        refuse_terminal(
            self.output.as_deref(),
            "cowardly refusing to save to a terminal. Use the -o flag or redirect",
        )?;
        let mut call = engine.get("/images/get");
        for image in &self.images {
            call = call.query("names", image);
        }
        let platform = self.platform.as_deref().map(platform_json);
        write_body(call.maybe("platform", platform).send().await?, self.output.as_deref()).await
    }
}

fn platform_json(text: &str) -> String {
    let mut parts = text.split('/');
    let (os, arch) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut platform = serde_json::json!({"os": os, "architecture": arch});
    if let Some(variant) = parts.next() {
        platform["variant"] = variant.into();
    }
    platform.to_string()
}

#[derive(Args, Debug)]
pub struct Export {
    /// Write to a file, instead of STDOUT
    #[arg(short, long)]
    output: Option<PathBuf>,
    container: String,
}

impl Export {
    pub async fn run(self, engine: &Engine) -> Outcome {
        refuse_terminal(
            self.output.as_deref(),
            "cowardly refusing to save to a terminal. Use the -o flag or redirect",
        )?;
        let response = engine.get(format!("/containers/{}/export", escape(&self.container))).send().await?;
        write_body(response, self.output.as_deref()).await
    }
}

pub fn refuse_terminal(file: Option<&Path>, message: &str) -> Outcome {
    if file.is_none() && stdout().is_terminal() { Err(Failure::new(message)) } else { Ok(()) }
}

/// Into a temporary neighbour and one rename, so that a broken stream leaves no half file.
pub async fn write_body(response: Response<Incoming>, file: Option<&Path>) -> Outcome {
    let mut body = response.into_body();
    let Some(path) = file else {
        while let Some(chunk) = next_chunk(&mut body).await? {
            output::write(&chunk);
        }
        return Ok(());
    };
    let failed = |e: std::io::Error| Failure::new(format!("failed to write {}: {e}", path.display()));
    // A device or a pipe is written to as it is.
    if path.exists() && !path.is_file() {
        let mut target = tokio::fs::OpenOptions::new().write(true).open(path).await.map_err(failed)?;
        while let Some(chunk) = next_chunk(&mut body).await? {
            target.write_all(&chunk).await.map_err(failed)?;
        }
        return target.flush().await.map_err(failed);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".tmp-{name}-{}", std::process::id()));
    let written = async {
        let mut target = tokio::fs::File::create(&temporary).await.map_err(failed)?;
        while let Some(chunk) = next_chunk(&mut body).await? {
            target.write_all(&chunk).await.map_err(failed)?;
        }
        target.flush().await.map_err(failed)?;
        tokio::fs::rename(&temporary, path).await.map_err(failed)
    };
    let written = written.await;
    if written.is_err() {
        let _ = tokio::fs::remove_file(&temporary).await;
    }
    written
}

#[derive(Args, Debug)]
pub struct Load {
    /// Read from tar archive file, instead of STDIN
    #[arg(short, long)]
    input: Option<PathBuf>,
    /// Load only the given platform variant
    #[arg(long)]
    platform: Option<String>,
    /// Suppress the load output
    #[arg(short, long)]
    quiet: bool,
}

impl Load {
    pub async fn run(self, engine: &Engine) -> Outcome {
        if self.input.is_none() && stdin().is_terminal() {
            return Err(Failure::new("requested load from stdin, but stdin is empty"));
        }
        let body = match &self.input {
            Some(path) => file_body(path).await?,
            None => stdin_body(),
        };
        let quiet = self.quiet || !stdout().is_terminal();
        let call = engine.post("/images/load").query("quiet", if quiet { "1" } else { "0" });
        let call = call.maybe("platform", self.platform.as_deref().map(platform_json));
        let response = call.header("content-type", "application/x-tar").body(body).send().await?;
        let json =
            response.headers().get("content-type").is_some_and(|t| t.as_bytes().starts_with(b"application/json"));
        match json {
            true => progress::show(response.into_body(), Sink::Stdout, |_| {}).await.map(drop),
            false => write_body(response, None).await,
        }
    }
}

#[derive(Args, Debug)]
pub struct Import {
    /// Apply Dockerfile instruction to the created image
    #[arg(short, long)]
    change: Vec<String>,
    /// Set commit message for imported image
    #[arg(short, long)]
    message: Option<String>,
    /// Set platform if server is multi-platform capable
    #[arg(long)]
    platform: Option<String>,
    #[arg(value_name = "file|URL|-")]
    source: String,
    #[arg(value_name = "REPOSITORY[:TAG]")]
    repository: Option<String>,
}

impl Import {
    pub async fn run(self, engine: &Engine) -> Outcome {
        let remote = self.source.starts_with("http://") || self.source.starts_with("https://");
        let (source, body) = match self.source.as_str() {
            "-" => ("-", stdin_body()),
            url if remote => (url, empty()),
            path => ("-", file_body(Path::new(path)).await?),
        };
        let mut call = engine.post("/images/create").query("fromSrc", source);
        call = call.query("repo", self.repository.as_deref().unwrap_or_default());
        call = call.maybe("message", self.message.as_deref()).maybe("platform", self.platform.as_deref());
        for change in &self.change {
            call = call.query("changes", change);
        }
        let response = call.header("content-type", "application/x-tar").body(body).send().await?;
        progress::show(response.into_body(), Sink::Stdout, |_| {}).await.map(drop)
    }
}

pub async fn file_body(path: &Path) -> Outcome<Body> {
    let file = tokio::fs::File::open(path).await;
    let file = file.map_err(|e| Failure::new(format!("open {}: {}", path.display(), super::os_words(&e))))?;
    Ok(streamed(ReaderStream::with_capacity(file, 256 * 1024)))
}

pub fn stdin_body() -> Body {
    streamed(ReaderStream::with_capacity(tokio::io::stdin(), 64 * 1024))
}

#[derive(Args, Debug)]
pub struct Commit {
    /// Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")
    #[arg(short, long)]
    author: Option<String>,
    /// Apply Dockerfile instruction to the created image
    #[arg(short, long)]
    change: Vec<String>,
    /// Commit message
    #[arg(short, long)]
    message: Option<String>,
    /// Pause container during commit
    #[arg(short, long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pause: bool,
    container: String,
    #[arg(value_name = "REPOSITORY[:TAG]")]
    repository: Option<String>,
}

impl Commit {
    pub async fn run(self, engine: &Engine) -> Outcome {
        let mut call = engine.post("/commit").query("container", &self.container);
        if let Some(repository) = self.repository.as_deref().filter(|r| !r.is_empty()) {
            let (name, tag) = reference::split(repository);
            call = call.query("repo", name).query("tag", tag);
        }
        call = call.query("comment", self.message.as_deref().unwrap_or_default());
        call = call.query("author", self.author.as_deref().unwrap_or_default());
        for change in &self.change {
            call = call.query("changes", change);
        }
        let call = call.query("pause", if self.pause { "1" } else { "0" });
        let made = call.json(&serde_json::json!({})).value().await?;
        output::line(made["Id"].as_str().unwrap_or_default());
        Ok(())
    }
}
