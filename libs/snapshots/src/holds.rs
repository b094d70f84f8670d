use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use model::DiffId;

use crate::layers::{list, remove_tree};
use crate::{Error, Snapshots};

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
        fs::write(&draft, text).and_then(|()| fs::rename(&draft, &path)).map_err(Error::io("writing", path))
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
