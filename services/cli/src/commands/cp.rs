//! `cp`, both ways, with Docker's rules for what a destination means.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use bytes::Bytes;
use clap::Args;
use serde_json::Value;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::archive::stdin_body;
use crate::engine::{Engine, escape, full, next_chunk};
use crate::failure::{Failure, Outcome};
use crate::unpack::{self, Rename};
use crate::{output, units};

#[derive(Args, Debug)]
pub struct Copy {
    /// Archive mode (copy all uid/gid information)
    #[arg(short, long)]
    archive: bool,
    /// Always follow symbol link in SRC_PATH
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Suppress progress output during copy
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "SRC_PATH", allow_hyphen_values = true)]
    source: String,
    #[arg(value_name = "DEST_PATH", allow_hyphen_values = true)]
    target: String,
}

impl Copy {
    pub async fn run(self, engine: &Engine) -> Outcome {
        match (split(&self.source), split(&self.target)) {
            (Some((container, path)), None) => self.copy_out(engine, container, path).await,
            (None, Some((container, path))) => self.copy_in(engine, container, path).await,
            (Some(_), Some(_)) => Err(Failure::new("copying between containers is not supported")),
            (None, None) => Err(Failure::new("must specify at least one container source")),
        }
    }

    fn report(&self, bytes: u64, to: &str) {
        if !self.quiet && io::stderr().is_terminal() {
            output::error(format!("Successfully copied {} to {to}\n", units::size3(bytes as f64)).as_bytes());
        }
    }

    async fn copy_out(&self, engine: &Engine, container: &str, path: &str) -> Outcome {
        let mut path = path.to_owned();
        if self.follow_link
            && let Ok(stat) = stat(engine, container, &path).await
            && let Some(link) = stat["linkTarget"].as_str().filter(|l| !l.is_empty())
        {
            path = link.to_owned();
        }
        let response = engine.get(archive(container)).query("path", &path).send().await?;
        let stat =
            decode_stat(response.headers()).ok_or_else(|| Failure::new("the daemon did not describe the path"))?;
        let mut body = response.into_body();
        if self.target == "-" {
            while let Some(chunk) = next_chunk(&mut body).await? {
                output::write(&chunk);
            }
            return Ok(());
        }
        let source = Item { name: last(&path), is_dir: is_dir(&stat), contents: path.ends_with("/.") || path == "." };
        let (folder, rename) = local_target(&source, Path::new(&self.target))?;
        let stream = futures::stream::unfold(body, |mut body| async move {
            match next_chunk(&mut body).await {
                Ok(chunk) => chunk.map(|c| (Ok(c), body)),
                Err(failure) => Some((Err(io::Error::other(failure.message)), body)),
            }
        });
        let reader = SyncIoBridge::new(StreamReader::new(Box::pin(stream)));
        let owner = self.archive;
        let unpacked = tokio::task::spawn_blocking(move || unpack::unpack(reader, &folder, &rename, owner)).await;
        let bytes = unpacked.map_err(|e| Failure::new(e.to_string()))?.map_err(|e| Failure::new(e.to_string()))?;
        self.report(bytes, &self.target);
        Ok(())
    }

    async fn copy_in(&self, engine: &Engine, container: &str, path: &str) -> Outcome {
        let mut path = path.to_owned();
        let mut found = stat(engine, container, &path).await.ok();
        if let Some(link) = found.as_ref().and_then(|s| s["linkTarget"].as_str()).filter(|l| !l.is_empty()) {
            // The daemon gives the link's target inside the container.
            path = if link.starts_with('/') { link.to_owned() } else { format!("{}/{link}", parent(&path)) };
            found = stat(engine, container, &path).await.ok();
        }
        let target_is_dir = found.as_ref().map(is_dir);
        let (folder, body) = if self.source == "-" {
            if target_is_dir != Some(true) {
                return Err(Failure::new(format!("destination \"{container}:{path}\" must be a directory")));
            }
            (path.clone(), stdin_body())
        } else {
            let (name_in_container, folder) = self.remote_target(&path, target_is_dir)?;
            let packed = unpack::pack(Path::new(&self.source), &name_in_container, self.follow_link)
                .map_err(|e| Failure::new(format!("lstat {}: {}", self.source, super::os_words(&e))))?;
            self.report(packed.len() as u64, &self.target);
            (folder, full(Bytes::from(packed)))
        };
        let call = engine.call(http::Method::PUT, archive(container)).query("path", &folder);
        let call = call.query("noOverwriteDirNonDir", "true").maybe("copyUIDGID", self.archive.then_some("true"));
        call.header("content-type", "application/x-tar").body(body).send().await?;
        Ok(())
    }

    /// The name that the source gets, and the container's folder that it goes into.
    fn remote_target(&self, path: &str, target_is_dir: Option<bool>) -> Outcome<(String, String)> {
        let local = Path::new(&self.source);
        let metadata =
            if self.follow_link || self.source.ends_with('/') { local.metadata() } else { local.symlink_metadata() };
        let metadata = metadata.map_err(|e| Failure::new(format!("lstat {}: {}", self.source, super::os_words(&e))))?;
        let contents = self.source.ends_with("/.") || self.source == ".";
        match target_is_dir {
            Some(true) if contents => Ok((String::new(), path.to_owned())),
            Some(true) => Ok((local_name(local)?, path.to_owned())),
            Some(false) if metadata.is_dir() => Err(Failure::new("cannot copy directory")),
            None if path.ends_with('/') && !metadata.is_dir() => Err(Failure::new("no such directory")),
            _ => Ok((last(path), parent(path))),
        }
    }
}

/// What is copied out of a container.
struct Item {
    name: String,
    is_dir: bool,
    /// `/.` at the end: what is in the folder, not the folder.
    contents: bool,
}

fn local_target(source: &Item, target: &Path) -> Outcome<(PathBuf, Rename)> {
    let text = target.to_string_lossy();
    let rename = |to: String| Rename { from: source.name.clone(), to };
    let above = || {
        let parent = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match parent.is_dir() {
            true => Ok(parent.to_owned()),
            false => Err(Failure::new(format!(
                "invalid output path: directory {:?} does not exist",
                parent.display().to_string()
            ))),
        }
    };
    match target.metadata() {
        Ok(found) if found.is_dir() && source.contents => Ok((target.to_owned(), rename(String::new()))),
        Ok(found) if found.is_dir() => Ok((target.to_owned(), rename(source.name.clone()))),
        Ok(_) if source.is_dir => Err(Failure::new("cannot copy directory")),
        Err(_) if text.ends_with('/') && !source.is_dir => Err(Failure::new("no such directory")),
        _ => Ok((above()?, rename(last(&text)))),
    }
}

fn local_name(path: &Path) -> Outcome<String> {
    let path = if path.file_name().is_none() { std::fs::canonicalize(path)? } else { path.to_owned() };
    Ok(path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned()))
}

/// `container:path`; a path that begins with `/` or `.` is local.
fn split(text: &str) -> Option<(&str, &str)> {
    if text.starts_with(['/', '.']) || text == "-" {
        return None;
    }
    text.split_once(':').filter(|(container, _)| !container.is_empty())
}

fn last(path: &str) -> String {
    let path = path.trim_end_matches('/').trim_end_matches("/.");
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

fn parent(path: &str) -> String {
    match path.trim_end_matches('/').rsplit_once('/') {
        Some((parent, _)) if !parent.is_empty() => parent.to_owned(),
        _ => "/".to_owned(),
    }
}

fn archive(container: &str) -> String {
    format!("/containers/{}/archive", escape(container))
}

async fn stat(engine: &Engine, container: &str, path: &str) -> Outcome<Value> {
    let response = engine.call(http::Method::HEAD, archive(container)).query("path", path).send().await?;
    decode_stat(response.headers()).ok_or_else(|| Failure::new("the daemon did not describe the path"))
}

fn decode_stat(headers: &http::HeaderMap) -> Option<Value> {
    let text = headers.get("x-docker-container-path-stat")?;
    let json = base64::engine::general_purpose::STANDARD.decode(text.as_bytes()).ok()?;
    serde_json::from_slice(&json).ok()
}

/// Go's `os.ModeDir` is the top bit.
fn is_dir(stat: &Value) -> bool {
    stat["mode"].as_u64().is_some_and(|mode| mode & (1 << 31) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(split("c:/a"), Some(("c", "/a")));
        assert_eq!(split("./c:/a"), None);
        assert_eq!(split("-"), None);
        assert_eq!((last("/a/b/"), parent("/a/b/")), ("b".into(), "/a".into()));
        assert_eq!((last("/a"), parent("/a")), ("a".into(), "/".into()));
        assert_eq!(last("/a/."), "a");
    }
}
