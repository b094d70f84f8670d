//! COPY and ADD.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dockerfile::Copy;

use super::share::Begun;
use super::stage::Stage;
use super::steps::Outcome;
use super::{Builder, Progress, told};
use crate::archive;
use crate::context::Context;
use crate::copy::hash::{self, Rules};
use crate::copy::owner;
use crate::copy::sources::Tree as Sources;
use crate::copy::transfer::Transfer;
use crate::failure::{Doing as _, Failure, chain};
use crate::halt;
use crate::image;
use crate::layers::{Made, Unchanged, blocking};
use crate::remote::http;
use crate::rooted::{Owner, Root, clean, is_dir};
use crate::space::Watched;
use crate::tree::Tree;

/// One thing to bring in, found and hashed.
#[derive(Debug)]
struct Item {
    /// Path in the tree that it comes from; empty for text.
    path: PathBuf,
    /// The name that it gets in a folder.
    name: String,
    origin: Origin,
}

impl Item {
    /// What it is called to people.
    fn shown(&self) -> &str {
        self.path.to_str().filter(|path| !path.is_empty()).unwrap_or(&self.name)
    }
}

#[derive(Debug)]
enum Origin {
    /// In the build context or in another image.
    Tree,
    /// Fetched from a URL into a folder of its own.
    Fetched(http::Download),
    /// In the Dockerfile itself.
    Text(String),
}

/// Where files come from: the context's folder, or another image's mounted root.
enum From {
    Context(Arc<Context>),
    Image(Tree),
}

impl From {
    fn root(&self) -> PathBuf {
        match self {
            Self::Context(context) => context.folder.clone(),
            Self::Image(tree) => tree.root(),
        }
    }
}

impl Builder {
    pub(super) async fn files_step(
        &self,
        progress: &Progress,
        stage: &mut Stage,
        name: &'static str,
        copy: Copy,
    ) -> Result<(), Failure> {
        if let Some(flag) = copy.buildkit_flag() {
            return Err(needs_buildkit(flag));
        }
        let failed = |message: String| Failure::user(format!("{name} failed: {message}"));
        let mode = copy.chmod.as_deref().map(parse_mode).transpose().map_err(Failure::User)?;
        let from = self.copy_from(progress, copy.from.as_deref()).await?;
        let downloads = self.downloads(name, &copy).await.map_err(failed)?;
        let (copy, from, items, hashes) = find(copy, from, downloads).await?.map_err(failed)?;
        let many = items.len() > 1;
        if many && !copy.destination.ends_with('/') {
            return Err(Failure::user(format!(
                "When using {name} with more than one source file, the destination must be a directory and end with a /"
            )));
        }
        let chown = copy.chown.as_ref().map(|owner| format!("--chown={owner}")).unwrap_or_default();
        let chmod = copy.chmod.as_ref().map(|mode| format!("--chmod={mode} ")).unwrap_or_default();
        let mut command = image::shell(&stage.config);
        // No blank after --chown: the classic builder writes it so.
        let hash = hash::together(&hashes);
        let read = items.iter().zip(&hashes);
        stage.read = read.map(|(item, hash)| told::input("file", item.shown(), hash)).collect();
        command.push(format!("#(nop) {name} {chown}{chmod}{hash} in {} ", copy.destination));
        let Begun::Mine(claim) = self.begin_step(progress, stage, &command).await? else { return Ok(()) };
        let unwanted = self.unwanted(claim.as_ref());
        let work = Work {
            to: PathBuf::new(),
            destination: destination(&stage.config.working_dir, &copy.destination),
            into_folder: copy.destination.ends_with('/'),
            owner: match (&copy.chown, &from) {
                (Some(chown), _) => Ownership::Named(chown.clone()),
                (None, From::Image(_)) => Ownership::Kept,
                (None, From::Context(_)) => Ownership::Root,
            },
            mode,
            unpack: name == "ADD",
        };
        let copy = async {
            let made = self.copied(stage, work, (from, items)).await?;
            self.record(stage, &command, Outcome { made, claim }).await
        };
        halt::until(unwanted, copy).await
    }

    /// Makes a layer of what is copied.
    async fn copied(
        &self,
        stage: &Stage,
        work: Work,
        (from, items): (From, Vec<Item>),
    ) -> Result<Option<Made>, Failure> {
        let tree = self.mount(stage).await?;
        let work = Work { to: tree.root(), ..work };
        match blocking(move || work.run(&from.root(), &items).map(|()| drop(from))).await {
            Ok(()) => tree.into_layer(&self.layers, Unchanged::NoLayer).await,
            Err(error) => {
                tree.discard().await?;
                Err(error)
            }
        }
    }

    /// `--from`: an earlier stage by number or name, else an image.
    async fn copy_from(&self, progress: &Progress, from: Option<&str>) -> Result<From, Failure> {
        let Some(from) = from else {
            return Ok(From::Context(self.context.clone()));
        };
        let invalid = |why: String| Failure::user(format!("invalid from flag value {from}: {why}"));
        let by_name = progress.stages.named(from, progress.number);
        let stage = match (by_name, from.parse::<usize>()) {
            (Some(number), _) => self.earlier(progress, number).await?,
            (None, Ok(number)) if number == progress.number => {
                return Err(invalid("refers to current build stage".to_owned()));
            }
            (None, Ok(number)) if number < progress.number => self.earlier(progress, number).await?,
            (None, Ok(_)) => return Err(invalid("index out of bounds".to_owned())),
            (None, Err(_)) => {
                self.base_image(from, &self.options.platform).await.map_err(|error| invalid(error.to_string()))?
            }
        };
        Ok(From::Image(self.mount(&stage).await?))
    }

    async fn downloads(&self, name: &str, copy: &Copy) -> Result<Vec<(String, http::Download)>, String> {
        let mut downloads = Vec::new();
        for source in copy.sources.iter().filter(|source| is_url(source)) {
            if name != "ADD" {
                return Err(format!("source can't be a URL for {name}"));
            }
            let folder = self.machine.step_folder(&self.build_id);
            let fetched = tokio::select! {
                () = self.cancel.cancelled() => return Err(Failure::Cancelled.to_string()),
                fetched = http::download(source, folder) => fetched?,
            };
            downloads.push((source.clone(), fetched));
        }
        Ok(downloads)
    }
}

type Found = (Copy, From, Vec<Item>, Vec<String>);

/// Looks for every source, in the order in which they are written, and hashes it.
async fn find(
    copy: Copy,
    from: From,
    mut downloads: Vec<(String, http::Download)>,
) -> Result<Result<Found, String>, Failure> {
    blocking(move || {
        let root = Root::open(&from.root()).map_err(Failure::caused)?;
        let is_context = matches!(from, From::Context(_));
        let tree = Sources { root: &root, is_context };
        let rules = Rules { owners: !is_context && copy.chown.is_none() };
        let (mut items, mut hashes) = (Vec::new(), Vec::new());
        for source in &copy.sources {
            if let Some(at) = downloads.iter().position(|(url, _)| url == source) {
                let (_, download) = downloads.remove(at);
                let hash = hash_of(&Root::open(&download.folder), Path::new(&download.name), rules)?;
                hashes.push(hash::named(hash, &download.name));
                items.push(Item {
                    path: PathBuf::from(&download.name),
                    name: download.name.clone(),
                    origin: Origin::Fetched(download),
                });
                continue;
            }
            let paths = match tree.find(source) {
                Ok(paths) => paths,
                Err(why) => return Ok(Err(why)),
            };
            for path in paths {
                let hash = match &from {
                    From::Context(context) => context.hash(&root, &path),
                    From::Image(_) => hash::of(&root, &path, rules),
                };
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                hashes.push(hash::named(hash.doing(|| format!("reading {}", path.display()))?, &name));
                items.push(Item { path, name, origin: Origin::Tree });
            }
        }
        for heredoc in &copy.heredocs {
            hashes.push(hash::of_text(&heredoc.name, &heredoc.content));
            let origin = Origin::Text(heredoc.content.clone());
            items.push(Item { path: PathBuf::new(), name: heredoc.name.clone(), origin });
        }
        if items.is_empty() {
            return Ok(Err("no source files were specified".to_owned()));
        }
        Ok(Ok((copy, from, items, hashes)))
    })
    .await
}

fn hash_of(root: &std::io::Result<Root>, path: &Path, rules: Rules) -> Result<String, Failure> {
    let root = root.as_ref().map_err(|error| Failure::internal(error.to_string()))?;
    hash::of(root, path, rules).map_err(Failure::caused)
}

enum Ownership {
    Root,
    Kept,
    Named(String),
}

/// The copying itself, which blocks.
struct Work {
    to: PathBuf,
    /// Relative to the image's root.
    destination: PathBuf,
    /// The destination ends with a slash: files go into it under their own names.
    into_folder: bool,
    owner: Ownership,
    mode: Option<u32>,
    unpack: bool,
}

impl Work {
    fn run(&self, from: &Path, items: &[Item]) -> Result<(), Failure> {
        let open = |path: &Path| Root::open(path).map_err(Failure::caused);
        let (from, to) = (open(from)?, open(&self.to)?);
        let owner = match &self.owner {
            Ownership::Root => Some(Owner::ROOT),
            Ownership::Kept => None,
            Ownership::Named(name) => Some(owner::parse(name, &to).map_err(Failure::User)?),
        };
        for item in items {
            match &item.origin {
                Origin::Tree => self.item(
                    item,
                    &Transfer { from: &from, to: &to, owner, disk: &self.to, mode: self.mode },
                    self.unpack,
                )?,
                Origin::Fetched(download) => {
                    let fetched = open(&download.folder)?;
                    // What comes from a URL is not unpacked, and private unless said otherwise.
                    let mode = self.mode.or(Some(0o600));
                    self.item(item, &Transfer { from: &fetched, to: &to, owner, disk: &self.to, mode }, false)?;
                }
                Origin::Text(content) => {
                    let transfer = Transfer { from: &from, to: &to, owner, disk: &self.to, mode: self.mode };
                    let target = self.target(&to, &item.name);
                    transfer.text(content, &target).map_err(|error| failed(&target, error))?;
                }
            }
        }
        Ok(())
    }

    fn item(&self, item: &Item, transfer: &Transfer, unpack: bool) -> Result<(), Failure> {
        let reading = |error| failed(&item.path, error);
        let stat = transfer.from.stat(&item.path).map_err(reading)?;
        if is_dir(&stat) {
            return transfer
                .folder(&item.path, &self.destination)
                .map_err(|error| failed_doing("failed to copy directory: mkdir ", &self.destination, error));
        }
        let archive = match unpack {
            true => archive::open(transfer.from, &item.path).map_err(reading)?,
            false => None,
        };
        if let Some(file) = archive {
            transfer.to.make_dirs(&self.destination).map_err(|error| failed(&self.destination, error))?;
            let tar = archive::decompress(std::io::BufReader::new(file)).map_err(reading)?;
            let tar = Watched::new(tar, &self.to);
            let options = snapshots::UnpackOptions::default();
            return snapshots::unpack(&self.to, &self.destination, tar, &options).map(drop).map_err(|error| {
                Failure::user(format!("failed to copy files: Error processing tar file: {}", chain(&error)))
            });
        }
        let target = self.target(transfer.to, &item.name);
        transfer.file(&item.path, &target).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotADirectory => {
                let parent = target.parent().unwrap_or(Path::new(""));
                failed_doing("failed to create new directory: mkdir ", parent, error)
            }
            _ => failed(&target, error),
        })
    }

    /// Where a file goes: into a folder under its name, else to exactly the path that is written.
    fn target(&self, to: &Root, name: &str) -> PathBuf {
        let is_folder = to.stat(&self.destination).is_ok_and(|stat| is_dir(&stat));
        if self.into_folder || is_folder {
            return self.destination.join(name);
        }
        // A link there leads on, unlike one inside a folder, which is replaced.
        match to.resolve_missing(&self.destination) {
            Ok(path) => path,
            Err(_) => self.destination.clone(),
        }
    }
}

fn failed(path: &Path, error: std::io::Error) -> Failure {
    failed_doing("", path, error)
}

fn failed_doing(what: &str, path: &Path, error: std::io::Error) -> Failure {
    let why = match error.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_lowercase(),
        None => error.to_string(),
    };
    Failure::user(format!("failed to copy files: {what}{}: {why}", Path::new("/").join(path).display()))
}

pub(super) fn needs_buildkit(option: &str) -> Failure {
    Failure::user(format!(
        "the --{option} option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build images with BuildKit enabled"
    ))
}

fn is_url(word: &str) -> bool {
    word.starts_with("http://") || word.starts_with("https://")
}

fn destination(working_dir: &str, written: &str) -> PathBuf {
    clean(&Path::new(working_dir).join(written))
}

fn parse_mode(mode: &str) -> Result<u32, String> {
    let invalid = || format!("invalid chmod parameter: '{mode}'. it should be octal string and between 0 and 07777");
    u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o7777).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(parse_mode("0755"), Ok(0o755));
        for wrong in ["u+x", "99", "17777", ""] {
            assert!(parse_mode(wrong).is_err(), "{wrong}");
        }
        assert_eq!(destination("/w", "./"), Path::new("w"));
        assert_eq!(destination("/w", "/d/"), Path::new("d"));
        assert_eq!(destination("", "d"), Path::new("d"));
    }
}
