use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::SystemTime;

use model::DiffId;

use crate::layers::{list, remove_tree};
use crate::{Error, Snapshots};

/// What is unpacked, in bytes of content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacking {
    pub layers: u64,
    pub bytes: u64,
    /// Of layers that somebody holds.
    pub held_bytes: u64,
}

struct Unpacked {
    diff_id: DiffId,
    content_bytes: u64,
    /// When it was held last.
    used: SystemTime,
}

impl Snapshots {
    /// Notes that `owner`, a container or a build step, uses these layers, until [`Snapshots::release`]. It outlives this
    /// process. To be called before it is asked whether the layers are there, or they may be removed in between.
    ///
    /// # Errors
    /// `InvalidArgument` for an owner that is no plain name.
    pub fn hold(&self, layers: &[DiffId], owner: &str) -> Result<(), Error> {
        let path = self.ref_file(owner)?;
        let draft = path.with_extension(format!("{}.new", std::process::id()));
        let text: String = layers.iter().map(|layer| format!("{}\n", layer.hex())).collect();
        let _lock = self.gc_shared()?;
        fs::write(&draft, text).and_then(|()| fs::rename(&draft, &path)).map_err(Error::io("writing", path))?;
        let now = SystemTime::now();
        for layer in layers {
            // The time of a layer's record says when it was held last; a layer that is not here has none.
            if let Ok(record) = File::open(self.id_file(layer)) {
                let _ = record.set_modified(now);
            }
        }
        Ok(())
    }

    /// Forgets what `owner` held; nothing happens when it held nothing.
    ///
    /// # Errors
    /// `InvalidArgument` for an owner that is no plain name.
    pub fn release(&self, owner: &str) -> Result<(), Error> {
        let path = self.ref_file(owner)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("removing", path)(error)),
            _ => Ok(()),
        }
    }

    /// Removes those of `layers` that nobody holds; returns them.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove_unheld(&self, layers: &[DiffId]) -> Result<Vec<DiffId>, Error> {
        let mut removed = Vec::new();
        let mut trash = Vec::new();
        {
            // Who holds or publishes waits for this lock, so that nothing gains a holder while it is taken away.
            let _lock = self.gc_alone()?;
            let held = self.held()?;
            for layer in layers.iter().filter(|layer| !held.contains(layer.hex())) {
                let Ok(folder) = self.folder(layer) else { continue };
                let name = self.id_file(layer);
                fs::remove_file(&name).map_err(Error::io("removing", name))?;
                trash.push(folder);
                removed.push(layer.clone());
            }
        }
        trash.iter().for_each(|folder| remove_tree(folder));
        Ok(removed)
    }

    /// Layers that nobody holds: their bytes of content, and when they were held last.
    ///
    /// # Errors
    /// What the file system says.
    pub fn unheld(&self) -> Result<Vec<(DiffId, u64, SystemTime)>, Error> {
        let held = self.held()?;
        let layers = self.all()?.into_iter().filter(|layer| !held.contains(layer.diff_id.hex()));
        Ok(layers.map(|layer| (layer.diff_id, layer.content_bytes, layer.used)).collect())
    }

    /// The folder in which a file appears for each layer that is unpacked.
    pub fn records(&self) -> PathBuf {
        self.root().join("ids")
    }

    /// What is unpacked here.
    ///
    /// # Errors
    /// What the file system says.
    pub fn unpacking(&self) -> Result<Unpacking, Error> {
        let held = self.held()?;
        let mut sum = Unpacking::default();
        for layer in self.all()? {
            sum.layers += 1;
            sum.bytes += layer.content_bytes;
            sum.held_bytes += if held.contains(layer.diff_id.hex()) { layer.content_bytes } else { 0 };
        }
        Ok(sum)
    }

    /// Sum of the unpacked layers' content.
    ///
    /// # Errors
    /// What the file system says.
    pub fn bytes(&self) -> Result<u64, Error> {
        Ok(self.all()?.iter().map(|layer| layer.content_bytes).sum())
    }

    /// Bytes of a layer's content and who holds it, by name; none where it is not unpacked here.
    ///
    /// # Errors
    /// What the file system says.
    pub fn copy(&self, layer: &DiffId) -> Result<Option<(u64, Vec<String>)>, Error> {
        let Ok(stat) = self.stat(layer) else { return Ok(None) };
        Ok(Some((stat.content_bytes, self.holders(layer)?)))
    }

    /// Who holds a layer, by name.
    ///
    /// # Errors
    /// What the file system says.
    pub fn holders(&self, layer: &DiffId) -> Result<Vec<String>, Error> {
        let mut holders = Vec::new();
        for path in list(&self.root().join("refs"))? {
            let text = fs::read_to_string(&path).unwrap_or_default();
            if text.lines().any(|line| line == layer.hex()) {
                holders.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
            }
        }
        holders.sort();
        Ok(holders)
    }

    /// Names the folder: the host, and which folder of it. The same for all processes that share it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn place(&self) -> Result<String, Error> {
        let found = fs::metadata(self.root()).map_err(Error::io("looking at", self.root()))?;
        let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(format!("{host}:{}:{}", found.dev(), found.ino()))
    }

    fn all(&self) -> Result<Vec<Unpacked>, Error> {
        let mut layers = Vec::new();
        for path in list(&self.root().join("ids"))? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Ok(diff_id) = format!("sha256:{name}").parse::<DiffId>() else { continue };
            // One that goes meanwhile is none.
            let (Ok(stat), Ok(used)) = (self.stat(&diff_id), fs::metadata(&path).and_then(|file| file.modified()))
            else {
                continue;
            };
            layers.push(Unpacked { diff_id, content_bytes: stat.content_bytes, used });
        }
        Ok(layers)
    }

    fn held(&self) -> Result<HashSet<String>, Error> {
        let mut held = HashSet::new();
        for path in list(&self.root().join("refs"))? {
            match fs::read_to_string(&path) {
                Ok(text) => held.extend(text.lines().map(str::to_owned)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("reading", path)(error)),
            }
        }
        Ok(held)
    }

    fn ref_file(&self, owner: &str) -> Result<PathBuf, Error> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if owner.is_empty() || owner.len() > 200 || !owner.bytes().all(plain) {
            return Err(Error::Owner(owner.to_owned()));
        }
        Ok(self.root().join("refs").join(owner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A layer with one file of this many bytes.
    fn layer(snapshots: &Snapshots, bytes: usize) -> DiffId {
        let upper = snapshots.root().join("t").join(format!("upper-{bytes}"));
        fs::create_dir(&upper).expect("made");
        fs::write(upper.join("file"), vec![b'x'; bytes]).expect("written");
        let id = DiffId::new(model::Digest::of(bytes.to_string().as_bytes()));
        snapshots.adopt(&upper, &id, bytes as u64).expect("adopted");
        id
    }

    #[test]
    fn what_nobody_holds_is_known_by_its_last_use() {
        let temp = tempfile::tempdir().expect("a folder");
        let snapshots = Snapshots::open(temp.path()).expect("opens");
        let ids: Vec<DiffId> = [1000, 2000, 3000, 4000].into_iter().map(|bytes| layer(&snapshots, bytes)).collect();
        let at = |seconds| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        for (id, used) in ids.iter().zip([40, 10, 20, 30]) {
            File::open(snapshots.id_file(id)).and_then(|file| file.set_modified(at(used))).expect("set");
        }
        snapshots.hold(&ids[1..2], "step").expect("held");
        let unheld = || {
            let mut layers = snapshots.unheld().expect("read");
            layers.sort_by_key(|(_, _, used)| *used);
            layers.into_iter().map(|(id, bytes, _)| (id, bytes)).collect::<Vec<_>>()
        };
        let wanted = [(ids[2].clone(), 3000), (ids[3].clone(), 4000), (ids[0].clone(), 1000)];
        assert_eq!(unheld(), wanted, "the one held longest ago first, and none that is held");
        assert_eq!(snapshots.remove_unheld(&ids[..3]).expect("removed"), [ids[0].clone(), ids[2].clone()]);
        assert!(snapshots.has_layer(&ids[1]) && snapshots.has_layer(&ids[3]) && !snapshots.has_layer(&ids[0]));
        assert_eq!(snapshots.remove_unheld(&ids[3..]).expect("removed").len(), 1);
        assert_eq!(snapshots.holders(&ids[1]).expect("read"), ["step"]);
        assert_eq!(snapshots.holders(&ids[0]).expect("read"), Vec::<String>::new());
        let sum = Unpacking { layers: 1, bytes: 2_000, held_bytes: 2_000 };
        assert_eq!(snapshots.unpacking().expect("read"), sum);
        snapshots.release("step").expect("released");
        assert_eq!(unheld(), [(ids[1].clone(), 2000)]);
    }
}
