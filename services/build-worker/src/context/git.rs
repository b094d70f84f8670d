//! A repository as build context: `url[#ref[:folder]]`.

use std::path::{Component, Path, PathBuf};

use tokio::process::Command;

use crate::failure::{Doing as _, Failure};
use crate::rooted::{Root, clean, is_dir};

#[derive(Debug, PartialEq, Eq)]
struct Repository {
    url: String,
    reference: Option<String>,
    folder: Option<String>,
}

/// Whether Docker takes a remote for a repository.
pub fn is_git(remote: &str) -> bool {
    let path = remote.split('#').next().unwrap_or_default();
    let http = remote.starts_with("http://") || remote.starts_with("https://");
    (http && path.ends_with(".git")) || ["git://", "github.com/", "git@"].iter().any(|start| remote.starts_with(start))
}

fn parse(remote: &str) -> Result<Repository, Failure> {
    let (url, fragment) = remote.split_once('#').unwrap_or((remote, ""));
    let (reference, folder) = fragment.split_once(':').unwrap_or((fragment, ""));
    let url = match url.starts_with("github.com/") {
        true => format!("https://{url}"),
        false => url.to_owned(),
    };
    // Either would be taken for an option.
    if url.starts_with('-') || reference.starts_with('-') {
        return Err(Failure::user(format!("invalid refspec: {reference}")));
    }
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Ok(Repository { url, reference: some(reference), folder: some(folder) })
}

/// Checks out into `into`; gives the folder that is the context.
pub async fn check_out(remote: &str, into: &Path) -> Result<PathBuf, Failure> {
    let repository = parse(remote)?;
    git(into, &["init", "--quiet", "--template="]).await?;
    git(into, &["remote", "add", "origin", &repository.url]).await?;
    let reference = repository.reference.as_deref().unwrap_or("HEAD");
    // A server may refuse a shallow fetch, or one by commit; then all of it is fetched.
    let shallow = git(into, &["fetch", "--quiet", "--depth", "1", "origin", reference]).await;
    let head = if shallow.is_ok() || git(into, &["fetch", "--quiet", "origin", reference]).await.is_ok() {
        "FETCH_HEAD"
    } else {
        git(into, &["fetch", "--quiet", "--tags", "origin"]).await?;
        reference
    };
    if git(into, &["checkout", "--quiet", "--detach", head, "--"]).await.is_err() {
        let branch = format!("origin/{reference}");
        git(into, &["checkout", "--quiet", "--detach", &branch, "--"]).await?;
    }
    git(into, &["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"]).await?;
    std::fs::remove_dir_all(into.join(".git")).doing(|| "removing .git".to_owned())?;
    let Some(folder) = repository.folder else {
        return Ok(into.to_owned());
    };
    let missing = || Failure::user(format!("error setting git context, {folder} not within git root"));
    if leaves(Path::new(&folder)) {
        return Err(missing());
    }
    let root = Root::open(into).doing(|| "opening the repository".to_owned())?;
    // Links in the repository must not lead the context out of it.
    let path = root.real_path(&clean(Path::new(&folder))).map_err(|_| missing())?;
    let stat = root.stat(&path).map_err(|_| missing())?;
    if !is_dir(&stat) {
        return Err(Failure::user(format!("error setting git context, not a directory: {folder}")));
    }
    Ok(into.join(path))
}

/// Whether a path goes above where it starts, by its words alone.
fn leaves(path: &Path) -> bool {
    let mut depth = 0_i32;
    path.components().any(|component| {
        depth += match component {
            Component::ParentDir => -1,
            Component::Normal(_) => 1,
            _ => 0,
        };
        depth < 0
    })
}

async fn git(folder: &Path, words: &[&str]) -> Result<(), Failure> {
    let output = Command::new("git")
        .args(["-c", "core.hooksPath=/dev/null", "-c", "protocol.file.allow=never", "-c", "protocol.ext.allow=never"])
        .args(words)
        .current_dir(folder)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| Failure::user(format!("git is needed for this context: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::user(format!("unable to prepare context: git {}: {}", words[0], said.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remotes() {
        for yes in ["git://h/r", "github.com/a/b", "git@h:a/b.git", "https://h/a.git", "http://h/a.git#main:sub"] {
            assert!(is_git(yes), "{yes}");
        }
        for no in ["https://h/Dockerfile", "http://h/a.git/x", "ftp://h/a.git"] {
            assert!(!is_git(no), "{no}");
        }
        let expected = Repository {
            url: "https://github.com/a/b".into(),
            reference: Some("v1".into()),
            folder: Some("sub/dir".into()),
        };
        assert_eq!(parse("github.com/a/b#v1:sub/dir").expect("parsed"), expected);
        assert_eq!(parse("git://h/r#:sub").expect("parsed").reference, None);
        for (path, outside) in [("a/../b", false), ("/a", false), ("..", true), ("a/../../b", true)] {
            assert_eq!(leaves(Path::new(path)), outside, "{path}");
        }
        assert!(parse("git://h/r#--upload-pack=x").is_err());
    }
}
