//! What a Dockerfile or a build names by URL: files by http(s), and git repositories.
//!
//! For the graph builder each becomes a layer like any other ([`Remotes::fetch`]): `ADD https://h/f /d/` is then a copy out
//! of that layer, its key is made of the content, and a worker that runs the step needs no network. What was fetched is
//! remembered with what tells whether it is still the same: a file's entity tag, a repository's commit.

pub mod access;
pub mod git;
pub mod http;

use std::path::{Path, PathBuf};

use model::Digest;
use serde::{Deserialize, Serialize};

use crate::archive;
use crate::failure::{Doing as _, Failure, chain};
use crate::layers::{Layers, Unchanged, blocking};
use crate::recorder::Upload;
use crate::space::Watched;
use access::Access;
use git::Repository;

/// A file that has no name in its URL, as BuildKit calls it.
const UNNAMED: &str = "__unnamed__";

/// Fetches for one build.
pub struct Remotes<'a> {
    pub layers: &'a Layers,
    /// A folder that is not there yet, on the disk of the layers.
    pub folder: PathBuf,
    pub archives: Archives,
    /// Shown to a repository's server.
    pub access: Access,
}

/// What becomes of a file that is an archive, and of a repository's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Archives {
    /// The file is one, as ADD has it; of a repository all is kept.
    Kept,
    /// It is a whole context, as the repository's folder is one.
    Unpacked,
}

/// What a URL gave.
pub struct Fetched {
    pub layer: proto::Layer,
    /// None when the layer was fetched before.
    pub upload: Option<Upload>,
    /// Path in the layer: a file for http(s), a folder whose content is meant for git.
    pub source: String,
    /// For the next time, [`proto::StepRecord::value_json`] under [`key`].
    pub value_json: String,
}

/// What is remembered of a URL.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Remembered {
    #[serde(default, skip_serializing_if = "http::Validators::are_none")]
    validators: http::Validators,
    /// Of the file's content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    /// The repository's commit.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    commit: String,
}

/// Under what a fetched URL is remembered. What is wanted of it, but not what may come of it, goes into the key.
pub fn key(file: &proto::RemoteFile, archives: Archives) -> String {
    let words = match Repository::parse(&file.url) {
        Ok(Some(repository)) => {
            let keep = repository.keeps_git_dir(file.keep_git_dir);
            let folder = repository.folder.filter(|_| archives == Archives::Unpacked);
            format!(
                "git\n{}\n{:?}\n{keep}\n{}\n{folder:?}",
                repository.url, repository.reference, repository.submodules
            )
        }
        _ => format!("http\n{}\n{}\n{archives:?}", file.url, name_of(file)),
    };
    format!("remote:{}", Digest::of(words.as_bytes()).hex())
}

impl Remotes<'_> {
    /// Fetches a file or a repository, unless it is still as `known` says, whose layer the caller has pinned.
    ///
    /// # Errors
    /// `User` in BuildKit's words: for what is not there, and for content that is not the one of its checksum.
    pub async fn fetch(&self, file: &proto::RemoteFile, known: Option<&proto::StepRecord>) -> Result<Fetched, Failure> {
        let known = known.and_then(|record| {
            let remembered: Remembered = serde_json::from_str(&record.value_json).ok()?;
            Some((remembered, record.layers.first()?))
        });
        match Repository::parse(&file.url).map_err(Failure::User)? {
            Some(repository) => self.repository(&repository, file, known).await,
            None => self.file(file, known).await,
        }
    }

    async fn file(
        &self,
        file: &proto::RemoteFile,
        known: Option<(Remembered, &proto::Layer)>,
    ) -> Result<Fetched, Failure> {
        let name = name_of(file);
        let checksum = match file.checksum.as_str() {
            "" => None,
            text => Some(text.parse::<Digest>().map_err(|error| Failure::user(error.to_string()))?),
        };
        let source = match self.archives {
            Archives::Kept => format!("/{name}"),
            Archives::Unpacked => "/".to_owned(),
        };
        if let Some((remembered, layer)) = &known
            && checksum.is_some()
            && remembered.digest == checksum
        {
            return found(remembered, layer, source);
        }
        let asked = http::Wanted {
            url: &file.url,
            name: &name,
            known: known.as_ref().map(|(remembered, _)| &remembered.validators),
        };
        let answer = http::get(&asked, self.folder.clone()).await;
        let download = match (answer.map_err(|error| Failure::user(error.as_buildkit()))?, known) {
            (http::Answer::New(download), _) => download,
            (http::Answer::Unchanged, Some((remembered, layer))) => {
                check(&checksum, remembered.digest.as_ref())?;
                return found(&remembered, layer, source);
            }
            (http::Answer::Unchanged, None) => return Err(Failure::user("invalid response status 304")),
        };
        check(&checksum, Some(&download.digest))?;
        let remembered =
            Remembered { validators: download.validators, digest: Some(download.digest), ..Remembered::default() };
        let folder = match self.archives {
            Archives::Kept => download.folder,
            Archives::Unpacked => unpacked(download.folder, name).await?,
        };
        self.adopt(folder, &remembered, source).await
    }

    async fn repository(
        &self,
        repository: &Repository,
        file: &proto::RemoteFile,
        known: Option<(Remembered, &proto::Layer)>,
    ) -> Result<Fetched, Failure> {
        let source = match self.archives {
            Archives::Kept => format!("/{}", repository.folder.as_deref().unwrap_or_default().trim_matches('/')),
            Archives::Unpacked => "/".to_owned(),
        };
        if git::leaves(Path::new(source.trim_start_matches('/'))) {
            return Err(Failure::user(format!("invalid subdir {source:?}: it leaves the repository")));
        }
        let near = self.folder.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(near).doing(|| format!("making {}", near.display()))?;
        let server = repository.at(&self.access);
        let commit = server.commit(&self.folder).await?;
        let wanted = if file.checksum.is_empty() { &repository.checksum } else { &file.checksum };
        if !wanted.is_empty() && !commit.starts_with(wanted.as_str()) {
            return Err(Failure::user(format!("expected checksum to match {wanted}, got {commit}")));
        }
        if let Some((remembered, layer)) = &known
            && remembered.commit == commit
        {
            return found(remembered, layer, source);
        }
        let into = self.folder.clone();
        std::fs::create_dir_all(&into).doing(|| format!("making {}", into.display()))?;
        server.check_out(&into, &commit, repository.keeps_git_dir(file.keep_git_dir)).await?;
        let into = if self.archives == Archives::Unpacked { repository.inside(&into)? } else { into };
        self.adopt(into, &Remembered { commit, ..Remembered::default() }, source).await
    }

    /// Makes a folder of this build the only layer of what was fetched.
    async fn adopt(&self, folder: PathBuf, remembered: &Remembered, source: String) -> Result<Fetched, Failure> {
        let made = self.layers.adopt(folder, Vec::new(), Unchanged::EmptyLayer).await?;
        let made = made.ok_or_else(|| Failure::internal("what was fetched made no layer"))?;
        let value_json = value(remembered)?;
        Ok(Fetched { layer: made.layer, upload: Some(made.upload), source, value_json })
    }
}

/// The content of an archive that lies alone in its folder; another file is a context of one file.
async fn unpacked(folder: PathBuf, name: String) -> Result<PathBuf, Failure> {
    blocking(move || {
        let file = folder.join(&name);
        let opening = || format!("opening {}", file.display());
        let mut content = std::fs::File::open(&file).doing(opening)?;
        if !archive::is_archive(&mut content).doing(opening)? {
            return Ok(folder);
        }
        let into = folder.with_extension("unpacked");
        std::fs::create_dir_all(&into).doing(|| format!("making {}", into.display()))?;
        let tar = archive::decompress(std::io::BufReader::new(content)).doing(opening)?;
        let options = snapshots::UnpackOptions { owner: Some((0, 0)), ..snapshots::UnpackOptions::default() };
        snapshots::unpack(&into, Path::new(""), Watched::new(tar, &into), &options)
            .map_err(|error| Failure::user(format!("unpacking {name}: {}", chain(&error))))?;
        std::fs::remove_file(&file).doing(opening)?;
        Ok(into)
    })
    .await
}

fn found(remembered: &Remembered, layer: &proto::Layer, source: String) -> Result<Fetched, Failure> {
    Ok(Fetched { layer: layer.clone(), upload: None, source, value_json: value(remembered)? })
}

fn value(remembered: &Remembered) -> Result<String, Failure> {
    serde_json::to_string(remembered).map_err(Failure::caused)
}

fn check(wanted: &Option<Digest>, got: Option<&Digest>) -> Result<(), Failure> {
    match (wanted, got) {
        (Some(wanted), got) if got != Some(wanted) => {
            let got = got.map(Digest::to_string).unwrap_or_default();
            Err(Failure::user(format!("digest mismatch {got}: {wanted}")))
        }
        _ => Ok(()),
    }
}

/// What the file is called in its layer: as asked, else as its URL ends.
fn name_of(file: &proto::RemoteFile) -> String {
    match file.name.as_str() {
        "" => http::file_name(&file.url).unwrap_or_else(|| UNNAMED.to_owned()),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests;
