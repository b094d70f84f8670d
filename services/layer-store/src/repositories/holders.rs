//! Which repositories show a blob, and why.

use std::collections::HashSet;
use std::io;

use blobs::Blobs;
use model::Digest;

use super::{Repositories, digests, garbage, names_in};

/// A repository that shows a blob.
#[derive(Debug, PartialEq, Eq)]
pub struct Holder {
    pub name: String,
    /// Manifests that are the blob or name it. None: it was pushed and its link goes in a while.
    pub manifests: Vec<Digest>,
    /// Tags of these.
    pub tags: Vec<String>,
}

impl Repositories {
    /// The repositories that show a blob, in the order of their names. Reads the manifests of each of them; blocks.
    pub fn holders(&self, blobs: &Blobs, digest: &Digest) -> io::Result<Vec<Holder>> {
        let mut holders = Vec::new();
        for folder in names_in(&self.root)? {
            let path = self.root.join(&folder);
            let is_manifest = path.join("manifests").join(digest.hex()).exists();
            if !is_manifest && !path.join("blobs").join(digest.hex()).exists() {
                continue;
            }
            let mut manifests = digests(&names_in(&path.join("manifests"))?);
            manifests.retain(|manifest| {
                manifest == digest || garbage::named_by(blobs, std::slice::from_ref(manifest)).contains(digest)
            });
            let mut tags = names_in(&path.join("tags"))?;
            tags.retain(|tag| {
                let target = std::fs::read_to_string(path.join("tags").join(tag));
                target.ok().and_then(|text| text.parse().ok()).is_some_and(|target| manifests.contains(&target))
            });
            holders.push(Holder { name: folder.replace('+', "/"), manifests, tags });
        }
        holders.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(holders)
    }

    /// All that some repository shows.
    pub fn shown(&self) -> io::Result<HashSet<Digest>> {
        let mut shown = HashSet::new();
        for folder in names_in(&self.root)? {
            for kind in ["blobs", "manifests"] {
                shown.extend(digests(&names_in(&self.root.join(&folder).join(kind))?));
            }
        }
        Ok(shown)
    }
}
