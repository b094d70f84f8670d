//! COPY and ADD.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dockerfile::Ignore;
use proto::step_input::From;

use super::Executor;
use super::chmod::Chmod;
use super::copier::{Copier, Destination, Made, make_dirs};
use super::owner;
use crate::archive;
use crate::context::Context;
use crate::context::trees::LaidOut;
use crate::failure::{Failure, chain};
use crate::graph::files::{Wanted, missing};
use crate::layers::blocking;
use crate::remote::access::Access;
use crate::rooted::{Owner, Root, is_dir};
use crate::space::Watched;
use crate::tree::Tree;

/// Files, ready to be read.
pub enum Files {
    Context(Arc<Context>),
    LaidOut(Arc<LaidOut>),
    Mounted(Tree),
    Inline(Vec<proto::InlineFile>),
}

impl Files {
    /// Their folder; inline ones have none.
    pub fn folder(&self) -> Option<PathBuf> {
        match self {
            Self::Context(context) => Some(context.folder.clone()),
            Self::LaidOut(tree) => Some(tree.folder.clone()),
            Self::Mounted(tree) => Some(tree.root()),
            Self::Inline(_) => None,
        }
    }
}

/// What is copied, and how; what it does blocks.
struct Work {
    to: PathBuf,
    parts: Vec<(Files, proto::CopySource)>,
    copy: proto::CopyOperation,
    on: Ground,
}

/// What a step stands on.
#[derive(Clone, Copy, Debug)]
pub struct Ground {
    /// No layer, so no file that knows a name of a user.
    pub is_empty: bool,
    /// `SOURCE_DATE_EPOCH`.
    pub epoch: Option<i64>,
}

impl Executor {
    /// Brings what a step reads to this machine.
    pub(super) async fn files(&self, input: Option<&proto::StepInput>) -> Result<Files, Failure> {
        match input.and_then(|input| input.from.as_ref()) {
            Some(From::Layers(list)) => self.mount(&list.layers).await.map(Files::Mounted),
            Some(From::Files(files)) => Ok(Files::Inline(files.files.clone())),
            Some(From::Tar(blob)) => self.context(blob).await.map(Files::Context),
            Some(From::Tree(tree)) => self.worker.trees.lay_out(tree).await.map(Files::LaidOut),
            None => Err(Failure::internal("a step reads what no worker knows")),
        }
    }

    /// The build's context; a worker that helps fetches it by itself.
    async fn context(&self, blob: &proto::Descriptor) -> Result<Arc<Context>, Failure> {
        let fetch = || async {
            let options = proto::BuildOptions { context: Some(blob.clone()), graph: true, ..Default::default() };
            if let Some(kept) = self.worker.contexts.find(&crate::context::key(&options)) {
                return Ok(kept);
            }
            let folder = self.worker.machine.step_folder(&self.folder);
            Context::fetch(&self.layers.store, &options, (folder, &Access::default())).await.map(Arc::new)
        };
        self.context.get_or_try_init(fetch).await.cloned()
    }

    pub(super) async fn copy(&self, tree: &Tree, copy: &proto::CopyOperation, on: Ground) -> Result<(), Failure> {
        let mut parts = Vec::new();
        for source in &copy.sources {
            parts.push((self.files(source.from.as_ref()).await?, source.clone()));
        }
        let work = Work { to: tree.root(), parts, copy: copy.clone(), on };
        blocking(move || work.run()).await
    }
}

impl Work {
    fn run(&self) -> Result<(), Failure> {
        let to = Root::open(&self.to).map_err(Failure::caused)?;
        let chmod = (!self.copy.chmod.is_empty()).then(|| Chmod::parse(&self.copy.chmod)).transpose();
        let chmod = chmod.map_err(Failure::User)?;
        let owner = owner::of(&to, &self.copy.chown);
        if self.on.is_empty && owner::is_named(&self.copy.chown) {
            return Err(Failure::user(format!("no such user or group in an empty image: {}", self.copy.chown)));
        }
        let destination = Destination::new(&self.copy.cwd, &self.copy.destination);
        for (files, source) in &self.parts {
            let folder = files.folder().unwrap_or_else(|| self.to.clone());
            let from = Root::open(&folder).map_err(Failure::caused)?;
            let excludes = (!self.copy.excludes.is_empty()).then(|| Ignore::parse(&self.copy.excludes.join("\n")));
            // What a client sent belongs to root, whoever owned it there.
            let of_client = matches!(files, Files::Context(_) | Files::LaidOut(_)).then_some(Owner::ROOT);
            let copier = Copier {
                from: &from,
                to: &to,
                owner: owner.or(of_client),
                chmod: chmod.clone(),
                excludes,
                epoch: self.on.epoch,
                disk: &self.to,
                linked: RefCell::default(),
            };
            if let Files::Inline(inline) = files {
                for file in inline {
                    let copied = copier.content(&file.name, &file.content, &destination);
                    copied.map_err(|error| failed(Path::new(&file.name), &error))?;
                }
            }
            for word in &source.paths {
                self.word(&copier, source, word, &destination)?;
            }
        }
        Ok(())
    }

    fn word(&self, copier: &Copier, source: &proto::CopySource, word: &str, to: &Destination) -> Result<(), Failure> {
        let wanted = Wanted::new(word, self.copy.parents);
        let found = wanted.find(copier.from).map_err(|error| failed(Path::new(word), &error))?;
        for path in found.ok_or_else(|| missing(word))? {
            let copied = match &wanted.inside {
                Some(inside) => copier.parents(&path, inside, to),
                None if source.unpack && self.unpacked(copier, &path, to)? => Ok(()),
                None => copier.source(&path, to),
            };
            copied.map_err(|error| failed(&self.reached(copier.to, &path, to), &error))?;
        }
        Ok(())
    }

    /// What was to be written, for an error: below the destination where that is a folder.
    fn reached(&self, root: &Root, path: &Path, to: &Destination) -> PathBuf {
        let there = root.stat(&to.path).is_ok_and(|stat| is_dir(&stat));
        match path.file_name().filter(|_| there || to.is_folder) {
            Some(name) => to.path.join(name),
            None => to.path.clone(),
        }
    }

    /// Unpacks a source that is an archive; says whether it was one.
    fn unpacked(&self, copier: &Copier, path: &Path, to: &Destination) -> Result<bool, Failure> {
        let reading = |error: io::Error| failed(path, &error);
        let Some(file) = archive::open(copier.from, path).map_err(reading)? else { return Ok(false) };
        // A mode is not for what archives hold, nor for the folder that they are unpacked in.
        let made = Made { owner: copier.owner, mode: None, epoch: self.on.epoch };
        make_dirs(copier.to, &to.path, &made).map_err(|error| failed(&to.path, &error))?;
        let tar = archive::decompress(io::BufReader::new(file)).map_err(reading)?;
        // What an archive holds keeps its owners, unless others are asked for.
        let owner = copier.owner.filter(|_| !self.copy.chown.is_empty()).map(|owner| (owner.uid, owner.gid));
        let options = snapshots::UnpackOptions { owner, ..snapshots::UnpackOptions::default() };
        let unpacked = snapshots::unpack(&self.to, &to.path, Watched::new(tar, &self.to), &options);
        unpacked
            .map(|_| true)
            .map_err(|error| Failure::user(format!("failed to unpack /{}: {}", path.display(), chain(&error))))
    }
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    let path = Path::new("/").join(path);
    match error.raw_os_error().map(nix::errno::Errno::from_raw) {
        Some(nix::errno::Errno::EISDIR) => {
            Failure::user(format!("cannot replace to directory {} with file", path.display()))
        }
        Some(nix::errno::Errno::ENOTDIR) => Failure::user(format!("cannot copy to non-directory: {}", path.display())),
        _ => Failure::user(format!("failed to copy to {}: {}", path.display(), why(error))),
    }
}

/// An error as the operating system words it.
pub fn why(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_lowercase(),
        None => error.to_string(),
    }
}
