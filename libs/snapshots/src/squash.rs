//! Several layers as one.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use model::DiffId;

use crate::changes::Below;
use crate::pack::{DiffStat, Packer, beside};
use crate::walk::walk;
use crate::{Error, Snapshots, whiteout};

impl Snapshots {
    /// Writes what the layers `above` change together against the stack `below` (both base first) as one layer's tar;
    /// `tree` is where both are mounted. What one of them made and another removed is not in it, and what they removed
    /// of `below` is. The same layers give the same bytes.
    ///
    /// # Errors
    /// `NotFound` when a layer is not unpacked here.
    pub fn squash(&self, below: &[DiffId], above: &[DiffId], tree: &Path, out: impl Write) -> Result<DiffStat, Error> {
        let mut touched = self.touched(above)?;
        let below = Below::new(self, below)?;
        let mut packer = Packer::new(out);
        let mut folders = HashSet::from([PathBuf::new()]);
        let mut empty = true;
        walk(tree, &mut |node| {
            if node.metadata.is_dir() {
                folders.insert(node.path.clone());
            }
            let Some(hides) = touched.remove(&node.path) else { return Ok(()) };
            empty = false;
            packer.node(&node.path, &node.full, &node.metadata)?;
            if hides && node.metadata.is_dir() && below.has(&node.path)? {
                packer.empty_file(&node.path.join(whiteout::OPAQUE_ENTRY), &node.metadata)?;
            }
            Ok(())
        })?;
        for path in touched.into_keys() {
            // What goes with its folder need not be told.
            let parent = path.parent().unwrap_or(Path::new(""));
            if folders.contains(parent) && below.has(&path)? {
                empty = false;
                packer.whiteout(&beside(&path, whiteout::PREFIX))?;
            }
        }
        let content_bytes = packer.finish()?;
        Ok(DiffStat { content_bytes, empty })
    }

    /// All paths that the layers have anything at, and whether one of them hides there what is below: by an opaque folder,
    /// a whiteout or a file.
    fn touched(&self, layers: &[DiffId]) -> Result<BTreeMap<PathBuf, bool>, Error> {
        let mut touched = BTreeMap::new();
        for layer in layers {
            walk(&self.folder(layer)?, &mut |node| {
                let hides = !node.metadata.is_dir()
                    || whiteout::is_opaque(&node.full).map_err(Error::io("reading attributes of", &node.path))?;
                *touched.entry(node.path).or_insert(false) |= hides;
                Ok(())
            })?;
        }
        Ok(touched)
    }
}
