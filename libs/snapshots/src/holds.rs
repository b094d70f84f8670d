use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::SystemTime;

use model::DiffId;

use crate::layers::{list, remove_tree};
use crate::{Error, Snapshots};

/// What [`Snapshots::trim`] has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trimmed {
    pub left_bytes: u64,
    pub freed_bytes: u64,
}

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
        let lock = self.gc_lock()?;
        lock.lock_shared().map_err(Error::io("locking", self.root().join("gc.lock")))?;
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
            let lock = self.gc_lock()?;
            lock.lock().map_err(Error::io("locking", self.root().join("gc.lock")))?;
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

    /// Brings what is unpacked here down to `cap_bytes`: layers that nobody holds go, the one held last the longest ago
    /// first. Says what is left and what went, in bytes of content.
    ///
    /// # Errors
    /// What the file system says.
    pub fn trim(&self, cap_bytes: u64) -> Result<Trimmed, Error> {
        let mut layers = self.all()?;
        let mut left_bytes: u64 = layers.iter().map(|layer| layer.content_bytes).sum();
        let mut freed_bytes = 0;
        if left_bytes > cap_bytes {
            let held = self.held()?;
            layers.retain(|layer| !held.contains(layer.diff_id.hex()));
            layers.sort_by_key(|layer| layer.used);
            let mut excess = left_bytes - cap_bytes;
            let mut going = Vec::new();
            for layer in layers {
                if excess == 0 {
                    break;
                }
                excess = excess.saturating_sub(layer.content_bytes);
                going.push(layer);
            }
            let ids: Vec<DiffId> = going.iter().map(|layer| layer.diff_id.clone()).collect();
            // Who holds one meanwhile keeps it.
            let gone: HashSet<DiffId> = self.remove_unheld(&ids)?.into_iter().collect();
            freed_bytes =
                going.iter().filter(|layer| gone.contains(&layer.diff_id)).map(|layer| layer.content_bytes).sum();
            left_bytes -= freed_bytes;
        }
        Ok(Trimmed { left_bytes, freed_bytes })
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
    fn a_cap_takes_what_was_held_longest_ago_and_nothing_that_is_held() {
        let temp = tempfile::tempdir().expect("a folder");
        let snapshots = Snapshots::open(temp.path()).expect("opens");
        let ids: Vec<DiffId> = [1000, 2000, 3000, 4000].into_iter().map(|bytes| layer(&snapshots, bytes)).collect();
        let at = |seconds| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        for (id, used) in ids.iter().zip([40, 10, 20, 30]) {
            File::open(snapshots.id_file(id)).and_then(|file| file.set_modified(at(used))).expect("set");
        }
        snapshots.hold(&ids[1..2], "step").expect("held");
        let there = || ids.iter().map(|id| snapshots.has_layer(id)).collect::<Vec<_>>();
        assert_eq!(snapshots.trim(10_000).expect("trimmed"), Trimmed { left_bytes: 10_000, freed_bytes: 0 });
        assert_eq!(snapshots.trim(9_000).expect("trimmed"), Trimmed { left_bytes: 7_000, freed_bytes: 3_000 });
        assert_eq!(there(), [true, true, false, true], "the one held longest ago that nobody holds");
        assert_eq!(snapshots.trim(0).expect("trimmed"), Trimmed { left_bytes: 2_000, freed_bytes: 5_000 });
        assert_eq!(there(), [false, true, false, false], "what is held stays");
        snapshots.release("step").expect("released");
        assert_eq!(snapshots.trim(0).expect("trimmed"), Trimmed { left_bytes: 0, freed_bytes: 2_000 });
    }
}
