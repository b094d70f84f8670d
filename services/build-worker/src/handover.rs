//! Step containers that stay behind go to the node of this machine: what they changed lies in a folder that both know,
//! and a call to the gateway names only the container.

use std::io::BufWriter;
use std::path::{Path, PathBuf};

use model::DiffId;
use snapshots::{Snapshots, UnpackOptions};

use crate::failure::{Doing as _, Failure};

const FOLDER: &str = "handover";
pub const NODE_ID_FILE: &str = "node-id";
/// In a build's folder: what a sweep after a kill has to take back.
const NOTES: &str = "handover";

/// The machine's folder for handing over.
#[derive(Clone, Debug)]
pub struct Handover {
    machine_dir: PathBuf,
}

/// What a container changed, on its way to the node. Removed when dropped, unless the node has taken it.
#[derive(Debug)]
pub struct Offer {
    place: PathBuf,
    note: PathBuf,
}

/// Where a container's changes lie.
pub enum Changes {
    /// In a folder that nobody else needs.
    Upper(PathBuf),
    /// In a layer, which stays as it is.
    Layer(DiffId),
}

impl Handover {
    pub fn new(machine_dir: PathBuf) -> Self {
        Self { machine_dir }
    }

    /// The node of this machine, if there is one.
    pub fn node_id(&self) -> Option<String> {
        std::fs::read_to_string(self.machine_dir.join(NODE_ID_FILE)).ok().filter(|id| !id.is_empty())
    }

    /// Puts changes into the folder; `below` are the layers that they lie on. Blocks.
    pub fn offer(
        &self,
        snapshots: &Snapshots,
        id: &str,
        build: &Path,
        (changes, below): (Changes, &[DiffId]),
    ) -> Result<Offer, Failure> {
        let (folder, notes) = (self.machine_dir.join(FOLDER), build.join(NOTES));
        let offer = Offer { place: folder.join(id), note: notes.join(id) };
        let making = || format!("making {}", offer.place.display());
        std::fs::create_dir_all(&notes).and_then(|()| std::fs::write(&offer.note, "")).doing(making)?;
        std::fs::create_dir_all(&folder).doing(making)?;
        let from = match changes {
            Changes::Upper(upper) if std::fs::rename(&upper, &offer.place).is_ok() => return Ok(offer),
            // Another file system.
            Changes::Upper(upper) => upper,
            Changes::Layer(layer) => snapshots.folder(&layer).map_err(Failure::caused)?,
        };
        std::fs::create_dir(&offer.place).doing(making)?;
        copy(snapshots, &from, below, &offer.place)?;
        Ok(offer)
    }

    /// Takes back what a killed worker's build has offered.
    pub fn sweep(&self, build: &Path) {
        for note in std::fs::read_dir(build.join(NOTES)).into_iter().flatten().flatten() {
            drop(Offer { place: self.machine_dir.join(FOLDER).join(note.file_name()), note: note.path() });
        }
    }
}

/// By way of a tar, which keeps whiteouts, attributes and hard links.
fn copy(snapshots: &Snapshots, from: &Path, below: &[DiffId], to: &Path) -> Result<(), Failure> {
    let (reader, writer) = std::io::pipe().doing(|| "copying a step's changes".to_owned())?;
    let options = UnpackOptions { whiteouts: true, ..UnpackOptions::default() };
    std::thread::scope(|scope| {
        let packing = scope.spawn(|| snapshots.diff(from, below, BufWriter::new(writer)));
        let unpacked = snapshots::unpack(to, Path::new(""), reader, &options).map_err(Failure::caused);
        let packed = packing.join().map_err(|_| Failure::internal("copying a step's changes"))?;
        unpacked.and(packed.map(drop).map_err(Failure::caused))
    })
}

impl Drop for Offer {
    fn drop(&mut self) {
        for removed in [std::fs::remove_dir_all(&self.place), std::fs::remove_file(&self.note)] {
            if let Err(error) = removed
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(%error, place = %self.place.display(), "an offered container's changes stay");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_moved_or_copied_and_taken_back() {
        let temp = tempfile::tempdir().expect("a folder");
        let at = |name: &str| temp.path().join(name);
        let snapshots = Snapshots::open(at("snapshots")).expect("opens");
        let (handover, build) = (Handover::new(at("machine")), at("build"));
        let upper = at("upper");
        std::fs::create_dir_all(upper.join("d")).expect("made");
        std::fs::write(upper.join("d/f"), "x").expect("written");
        copy(&snapshots, &upper, &[], &{
            std::fs::create_dir(at("copy")).expect("made");
            at("copy")
        })
        .expect("copied");
        assert_eq!(std::fs::read(at("copy/d/f")).expect("there"), b"x");
        let offer = handover.offer(&snapshots, "c", &build, (Changes::Upper(upper.clone()), &[])).expect("offered");
        assert!(!upper.exists() && at("machine/handover/c/d/f").exists());
        drop(offer);
        assert!(!at("machine/handover/c").exists(), "taken back");
        let kept = handover.offer(&snapshots, "e", &build, (Changes::Upper(at("copy")), &[])).expect("offered");
        std::mem::forget(kept);
        handover.sweep(&build);
        assert!(!at("machine/handover/e").exists() && !build.join("handover/e").exists(), "swept");
        assert_eq!(handover.node_id(), None);
    }
}
