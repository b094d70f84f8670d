use std::collections::HashSet;
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use blobs::Blobs;
use model::Digest;

use super::{Repositories, digests, names_in, removed};
use crate::manifest::Manifest;

impl Repositories {
    /// Removes links to blobs that no manifest of their repository names, once they are older than `grace`; also
    /// repositories that hold nothing any more. Says which blobs lost a link. Blocks; holds up pushes of manifests
    /// only where there is something to remove.
    pub fn remove_unnamed(&self, blobs: &Blobs, grace: Duration) -> io::Result<Vec<Digest>> {
        let mut freed = Vec::new();
        for folder in names_in(&self.root)? {
            let folder = self.root.join(folder);
            let old = old_links(&folder, grace)?;
            if old.is_empty() && !is_empty(&folder) {
                continue;
            }
            let manifests = names_in(&folder.join("manifests"))?;
            let named = named_by(blobs, &digests(&manifests));
            let unnamed: Vec<Digest> = old.into_iter().filter(|digest| !named.contains(digest)).collect();
            if unnamed.is_empty() && !is_empty(&folder) {
                continue;
            }
            let _nobody_adds = self.adding.blocking_write();
            // A manifest may have come meanwhile, and somebody may have pushed a blob again.
            let known: HashSet<String> = manifests.into_iter().collect();
            let mut new = names_in(&folder.join("manifests"))?;
            new.retain(|name| !known.contains(name));
            let named = named_by(blobs, &digests(&new));
            let still_old: HashSet<Digest> = old_links(&folder, grace)?.into_iter().collect();
            for digest in unnamed.into_iter().filter(|digest| !named.contains(digest) && still_old.contains(digest)) {
                removed(&folder.join("blobs").join(digest.hex()))?;
                freed.push(digest);
            }
            remove_if_empty(&folder);
        }
        Ok(freed)
    }
}

fn old_links(folder: &Path, grace: Duration) -> io::Result<Vec<Digest>> {
    let mut links = digests(&names_in(&folder.join("blobs"))?);
    links.retain(|digest| {
        let modified = fs::metadata(folder.join("blobs").join(digest.hex())).and_then(|link| link.modified());
        modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age >= grace))
    });
    Ok(links)
}

/// Blobs that these manifests name. One that cannot be read names nothing.
pub(super) fn named_by(blobs: &Blobs, manifests: &[Digest]) -> HashSet<Digest> {
    let mut named = HashSet::new();
    for digest in manifests {
        let mut bytes = Vec::new();
        let Ok((mut file, _)) = blobs.read(digest) else { continue };
        if file.read_to_end(&mut bytes).is_err() {
            continue;
        }
        let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else { continue };
        named.extend(manifest.blobs().cloned());
    }
    named
}

fn is_empty(folder: &Path) -> bool {
    ["blobs", "manifests", "tags"].iter().all(|kind| names_in(&folder.join(kind)).is_ok_and(|names| names.is_empty()))
}

/// A repository without anything is no repository; folders that hold something stay by themselves.
fn remove_if_empty(folder: &Path) {
    if is_empty(folder) {
        for kind in ["blobs", "manifests", "tags", "referrers"] {
            let _ = fs::remove_dir(folder.join(kind));
        }
        let _ = fs::remove_dir(folder);
    }
}
