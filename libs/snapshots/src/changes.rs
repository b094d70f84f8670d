use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use model::DiffId;

use crate::walk::walk;
use crate::{Error, Snapshots, whiteout};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Modified,
    Added,
    Deleted,
}

/// One line of `docker diff`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub kind: ChangeKind,
    /// Absolute inside the container.
    pub path: PathBuf,
}

impl Snapshots {
    /// What `upper` changed against the stack `lowers` (base first), in the order of names.
    ///
    /// # Errors
    /// `NotFound` when a lower layer is not unpacked here.
    pub fn changes(&self, upper: &Path, lowers: &[DiffId]) -> Result<Vec<Change>, Error> {
        let below = Below::new(self, lowers)?;
        let mut changes = Vec::new();
        walk(upper, &mut |node| {
            let known = below.has(&node.path)?;
            let kind = match (whiteout::is_whiteout(&node.metadata), known) {
                (true, true) => ChangeKind::Deleted,
                // Made and removed again in the container: nothing was changed.
                (true, false) => return Ok(()),
                (false, true) => ChangeKind::Modified,
                (false, false) => ChangeKind::Added,
            };
            changes.push(Change { kind, path: Path::new("/").join(&node.path) });
            Ok(())
        })?;
        Ok(changes)
    }
}

/// The stack below an upper folder, for the question what it shows at a path.
pub struct Below {
    /// Folders of the layers, top first.
    layers: Vec<PathBuf>,
}

impl Below {
    pub fn new(snapshots: &Snapshots, lowers: &[DiffId]) -> Result<Self, Error> {
        let layers = lowers.iter().rev().map(|layer| snapshots.folder(layer)).collect::<Result<_, _>>()?;
        Ok(Self { layers })
    }

    /// The stack shows something at `path`.
    pub fn has(&self, path: &Path) -> Result<bool, Error> {
        for layer in &self.layers {
            match look(layer, path).map_err(Error::io("reading", layer.join(path)))? {
                Look::There => return Ok(true),
                Look::Hidden => return Ok(false),
                Look::Below => {}
            }
        }
        Ok(false)
    }
}

enum Look {
    There,
    /// This layer hides what the ones below have.
    Hidden,
    Below,
}

fn look(layer: &Path, path: &Path) -> io::Result<Look> {
    let mut here = layer.to_owned();
    let mut opaque = false;
    for part in path {
        here.push(part);
        let metadata = match fs::symlink_metadata(&here) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(if opaque { Look::Hidden } else { Look::Below });
            }
            // A part of the way is no folder here, so it hides the folders below.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(Look::Hidden),
            Err(error) => return Err(error),
        };
        if whiteout::is_whiteout(&metadata) {
            return Ok(Look::Hidden);
        }
        if metadata.is_symlink() && here != layer.join(path) {
            return Ok(Look::Hidden);
        }
        opaque |= metadata.is_dir() && whiteout::is_opaque(&here)?;
    }
    Ok(Look::There)
}
