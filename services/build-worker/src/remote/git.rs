//! Repositories: `url[#ref[:folder]]`, and BuildKit's queries (`?tag=v1&subdir=docs`).

use std::path::{Component, Path, PathBuf};

use tokio::process::Command;

use super::access::Access;
use crate::failure::{Doing as _, Failure};
use crate::layers::blocking;
use crate::rooted::{Place, Root, clean, is_dir};

/// Hex digits of a commit, sha1's and sha256's.
const COMMIT_DIGITS: [usize; 2] = [40, 64];

/// What is wanted of a repository.
#[derive(Debug, PartialEq, Eq)]
pub struct Repository {
    pub url: String,
    /// Branch, tag or commit.
    pub reference: Option<String>,
    /// The folder that is meant.
    pub folder: Option<String>,
    /// The commit that it must be, or the beginning of its digits; empty: any.
    pub checksum: String,
    keep_git_dir: Option<bool>,
    pub submodules: bool,
}

/// A repository's server, as a build may reach it.
pub struct Server<'a> {
    repository: &'a Repository,
    access: &'a Access,
}

/// Whether Docker takes a build's remote for a repository.
pub fn is_git(remote: &str) -> bool {
    remote.starts_with("github.com/") || is_git_url(remote)
}

/// Whether a source of ADD is a repository: the form without a scheme is a file's name there.
fn is_git_url(remote: &str) -> bool {
    let path = remote.split(['#', '?']).next().unwrap_or_default();
    let http = remote.starts_with("http://") || remote.starts_with("https://");
    (http && path.ends_with(".git")) || ["git://", "ssh://", "git@"].iter().any(|start| remote.starts_with(start))
}

impl Repository {
    /// None for what is no repository's URL.
    ///
    /// # Errors
    /// What is wrong with the URL, in BuildKit's words.
    pub fn parse(remote: &str) -> Result<Option<Self>, String> {
        if !is_git(remote) {
            return Ok(None);
        }
        let (whole, fragment) = remote.split_once('#').unwrap_or((remote, ""));
        let (url, query) = whole.split_once('?').unwrap_or((whole, ""));
        let (reference, folder) = fragment.split_once(':').unwrap_or((fragment, ""));
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let url = if url.starts_with("github.com/") { format!("https://{url}") } else { url.to_owned() };
        let (reference, folder) = (some(reference), some(folder));
        let mut parsed = Self { url, reference, folder, checksum: String::new(), keep_git_dir: None, submodules: true };
        parsed.read_query(query)?;
        // Either would be taken for an option.
        let reference = parsed.reference.as_deref().unwrap_or_default();
        if parsed.url.starts_with('-') || reference.starts_with('-') {
            return Err(format!("invalid refspec: {reference}"));
        }
        Ok(Some(parsed))
    }

    fn read_query(&mut self, query: &str) -> Result<(), String> {
        let (mut tag, mut branch) = (None, None);
        let mut seen: Vec<String> = Vec::new();
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            if seen.contains(&key.to_string()) {
                return Err(format!("query {key:?} has multiple values"));
            }
            seen.push(key.to_string());
            if value.is_empty() && !matches!(&*key, "submodules" | "keep-git-dir") {
                return Err(format!("query {key:?} has no value"));
            }
            match &*key {
                "ref" => agree("ref", &mut self.reference, value.into_owned())?,
                "subdir" => agree("subdir", &mut self.folder, value.into_owned())?,
                "tag" => tag = Some(prefixed("refs/tags/", &value)),
                "branch" => branch = Some(prefixed("refs/heads/", &value)),
                "checksum" | "commit" => self.checksum = value.into_owned(),
                "keep-git-dir" => self.keep_git_dir = Some(switch(&key, &value)?),
                "submodules" => self.submodules = switch(&key, &value)?,
                _ => return Err(format!("unexpected query {key:?}")),
            }
        }
        if tag.is_some() && branch.is_some() {
            return Err("branch conflicts with tag".to_owned());
        }
        if let Some(name) = tag.or(branch) {
            agree("ref", &mut self.reference, name)?;
        }
        if !self.checksum.is_empty() && self.reference.is_none() {
            self.reference = Some(self.checksum.clone());
        }
        Ok(())
    }

    /// What the URL says of it counts before what the instruction does.
    pub fn keeps_git_dir(&self, flag: bool) -> bool {
        self.keep_git_dir.unwrap_or(flag)
    }

    fn wanted(&self) -> &str {
        self.reference.as_deref().unwrap_or("HEAD")
    }

    pub fn at<'a>(&'a self, access: &'a Access) -> Server<'a> {
        Server { repository: self, access }
    }

    /// The folder that is meant, in a checked out tree.
    ///
    /// # Errors
    /// `User` for one that is not there, or leads out of the repository.
    pub fn inside(&self, tree: &Path) -> Result<PathBuf, Failure> {
        let Some(folder) = &self.folder else { return Ok(tree.to_owned()) };
        let missing = || Failure::user(format!("error setting git context, {folder} not within git root"));
        if leaves(Path::new(folder)) {
            return Err(missing());
        }
        let root = Root::open(tree).doing(|| "opening the repository".to_owned())?;
        // Links in the repository must not lead the context out of it.
        let path = root.real_path(&clean(Path::new(folder))).map_err(|_| missing())?;
        let stat = root.stat(&path).map_err(|_| missing())?;
        if !is_dir(&stat) {
            return Err(Failure::user(format!("error setting git context, not a directory: {folder}")));
        }
        Ok(tree.join(path))
    }
}

impl Server<'_> {
    /// The commit that the reference means now, all of its digits. `near` is a folder in which git may run.
    ///
    /// # Errors
    /// `User` when the repository cannot be reached or has no such reference.
    pub async fn commit(&self, near: &Path) -> Result<String, Failure> {
        let wanted = self.repository.wanted();
        if is_commit(wanted) {
            return Ok(wanted.to_owned());
        }
        let folder = near.parent().unwrap_or(Path::new("/"));
        // Of an annotated tag the commit is meant, which the name with ^{} shows.
        let peeled = format!("{wanted}^{{}}");
        let listed = self.git(folder, &["ls-remote", "--", &self.repository.url, wanted, &peeled]).await?;
        let found = choose(&listed, wanted);
        found.ok_or_else(|| Failure::user(format!("repository does not contain ref {wanted}, output: {listed:?}")))
    }

    /// Checks a commit out into a folder; every entry gets the commit's time, so that it is the same tree each time.
    ///
    /// # Errors
    /// `User` with what git says.
    pub async fn check_out(&self, into: &Path, commit: &str, keep_git_dir: bool) -> Result<(), Failure> {
        self.fetch(into, commit).await?;
        let time = self.git(into, &["log", "-1", "--format=%ct", "HEAD"]).await?;
        if !keep_git_dir {
            std::fs::remove_dir_all(into.join(".git")).doing(|| "removing .git".to_owned())?;
        }
        let (folder, seconds) = (into.to_owned(), time.trim().parse().unwrap_or(0));
        blocking(move || {
            let root = Root::open(&folder).doing(|| "opening the repository".to_owned())?;
            let top = root.dir(Path::new("")).doing(|| "opening the repository".to_owned())?;
            set_times(&Place { dir: top.into(), name: ".".into() }, seconds).doing(|| "setting times".to_owned())
        })
        .await
    }

    async fn fetch(&self, into: &Path, reference: &str) -> Result<(), Failure> {
        self.git(into, &["init", "--quiet", "--template="]).await?;
        self.git(into, &["remote", "add", "origin", &self.repository.url]).await?;
        // A server may refuse a shallow fetch, or one by commit; then all of it is fetched.
        let shallow = self.git(into, &["fetch", "--quiet", "--depth", "1", "origin", reference]).await;
        let head = if shallow.is_ok() || self.git(into, &["fetch", "--quiet", "origin", reference]).await.is_ok() {
            "FETCH_HEAD"
        } else {
            self.git(into, &["fetch", "--quiet", "--tags", "origin"]).await?;
            reference
        };
        if self.git(into, &["checkout", "--quiet", "--detach", head, "--"]).await.is_err() {
            let branch = format!("origin/{reference}");
            self.git(into, &["checkout", "--quiet", "--detach", &branch, "--"]).await?;
        }
        if self.repository.submodules {
            self.git(into, &["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"]).await?;
        }
        Ok(())
    }

    /// Runs git on the repository.
    async fn git(&self, folder: &Path, words: &[&str]) -> Result<String, Failure> {
        git(folder, words, self.access).await
    }
}

/// Checks a build's remote out into `into`; gives the folder that is the context.
pub async fn check_out(remote: &str, into: &Path, access: &Access) -> Result<PathBuf, Failure> {
    let repository = Repository::parse(remote).map_err(Failure::User)?;
    let repository = repository.ok_or_else(|| Failure::internal("a remote that is no repository"))?;
    repository.at(access).fetch(into, repository.wanted()).await?;
    std::fs::remove_dir_all(into.join(".git")).doing(|| "removing .git".to_owned())?;
    repository.inside(into)
}

/// What is said twice must be the same.
fn agree(what: &str, place: &mut Option<String>, value: String) -> Result<(), String> {
    match place {
        Some(old) if *old != value => Err(format!("{what} conflicts: {old:?} vs {value:?}")),
        _ => {
            *place = Some(value);
            Ok(())
        }
    }
}

fn prefixed(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

/// The name alone means yes; else the words that Go's strconv.ParseBool takes.
fn switch(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "" => Ok(true),
        _ => contexts::parse_bool(value).ok_or_else(|| format!("invalid {key} value: {value:?}")),
    }
}

pub fn is_commit(text: &str) -> bool {
    COMMIT_DIGITS.contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The commit of a reference in what `git ls-remote` lists: a branch before a tag of the same name, as checkout has it,
/// and at last whatever ends with it ("pull/1/head").
fn choose(listed: &str, wanted: &str) -> Option<String> {
    let rows: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once('\t')).collect();
    let names = [
        format!("refs/heads/{wanted}"),
        format!("refs/tags/{wanted}^{{}}"),
        format!("refs/tags/{wanted}"),
        format!("{wanted}^{{}}"),
        wanted.to_owned(),
    ];
    let named = names.iter().find_map(|name| rows.iter().find(|(_, row)| row == name));
    let end = format!("/{wanted}");
    let commit = named.or_else(|| rows.iter().find(|(_, row)| row.ends_with(&end)))?.0;
    is_commit(commit).then(|| commit.to_owned())
}

/// Whether a path goes above where it starts, by its words alone.
pub fn leaves(path: &Path) -> bool {
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

fn set_times(folder: &Place, seconds: i64) -> std::io::Result<()> {
    for child in folder.children()? {
        let Some(stat) = child.stat()? else { continue };
        if is_dir(&stat) {
            set_times(&child, seconds)?;
        }
        child.set_times(seconds, 0)?;
    }
    Ok(())
}

/// Runs git without anything of this machine's or the repository's that could run programs; gives what it prints.
async fn git(folder: &Path, words: &[&str], access: &Access) -> Result<String, Failure> {
    let mut command = Command::new("git");
    access.give(&mut command);
    let output = command
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
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = access.hide(&String::from_utf8_lossy(&output.stderr));
    Err(Failure::user(format!("unable to prepare context: git {}: {}", words[0], said.trim())))
}
