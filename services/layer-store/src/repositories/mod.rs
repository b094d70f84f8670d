//! Plain repositories: which blobs, manifests and tags each of them names. All are small files:
//!
//! ```text
//! repositories/<name, with + for />/blobs/<hex>      empty: the repository shows this blob
//!                                  /manifests/<hex>  media type of the manifest that this blob is
//!                                  /tags/<tag>       digest of the tag's manifest
//!                                  /referrers/<hex>/<hex>  empty: the second manifest's subject is the first
//! ```
//!
//! A blob's link is as old as the last time that somebody pushed it or asked for it before a push; [`garbage`]
//! removes old links that no manifest of the repository names. Manifests stay until they are deleted.

mod garbage;
mod holders;
mod name;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::Digest;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use name::{Name, Tag};

/// A link that is younger than this is not touched again: its age matters by hours.
const FRESH: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub struct Repositories {
    root: PathBuf,
    /// Read by whoever adds a manifest, written by whoever removes what no manifest names.
    adding: Arc<RwLock<()>>,
}

impl Repositories {
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let root = data_dir.join("repositories");
        fs::create_dir_all(&root)?;
        Ok(Self { root, adding: Arc::default() })
    }

    /// While this is held no link goes away: to be taken before a manifest's blobs are looked for, and kept until it
    /// is stored.
    pub async fn adding(&self) -> RwLockReadGuard<'_, ()> {
        self.adding.read().await
    }

    /// While this is held no manifest is on its way.
    pub async fn nobody_adds(&self) -> RwLockWriteGuard<'_, ()> {
        self.adding.write().await
    }

    /// The repository shows the blob from now on. A link that is there already counts as new.
    pub fn link_blob(&self, name: &Name, digest: &Digest) -> io::Result<()> {
        let folder = self.folder(name).join("blobs");
        let path = folder.join(digest.hex());
        let file = match File::options().write(true).create(true).truncate(false).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&folder)?;
                File::options().write(true).create(true).truncate(false).open(&path)?
            }
            file => file?,
        };
        file.set_modified(SystemTime::now())?;
        File::open(folder)?.sync_all()
    }

    pub fn unlink_blob(&self, name: &Name, digest: &Digest) -> io::Result<bool> {
        removed(&self.folder(name).join("blobs").join(digest.hex()))
    }

    /// Somebody is about to name this blob in a manifest: its link counts as new.
    pub fn touch_blob(&self, name: &Name, digest: &Digest) {
        let Ok(link) = File::open(self.folder(name).join("blobs").join(digest.hex())) else { return };
        let age = link.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|time| time.elapsed().ok());
        if age.is_none_or(|age| age > FRESH) {
            // A link that cannot be touched only goes earlier.
            let _ = link.set_modified(SystemTime::now());
        }
    }

    pub fn has_blob(&self, name: &Name, digest: &Digest) -> bool {
        let folder = self.folder(name);
        let holds = |kind: &str| folder.join(kind).join(digest.hex()).exists();
        holds("blobs") || holds("manifests")
    }

    pub fn put_manifest(&self, name: &Name, digest: &Digest, media_type: &str) -> io::Result<()> {
        write_file(&self.folder(name).join("manifests"), digest.hex(), media_type.as_bytes())
    }

    /// Removes a manifest with its tags and says whether there was one.
    pub fn remove_manifest(&self, name: &Name, digest: &Digest, subject: Option<&Digest>) -> io::Result<bool> {
        for tag in names_in(&self.folder(name).join("tags"))?.iter().filter_map(|tag| Tag::parse(tag)) {
            if self.tag(name, &tag).as_ref() == Some(digest) {
                self.remove_tag(name, &tag)?;
            }
        }
        if let Some(subject) = subject {
            let folder = self.folder(name).join("referrers").join(subject.hex());
            removed(&folder.join(digest.hex()))?;
            // Goes only when it is empty.
            let _ = fs::remove_dir(folder);
        }
        removed(&self.folder(name).join("manifests").join(digest.hex()))
    }

    /// Media type of a manifest of this repository.
    pub fn manifest(&self, name: &Name, digest: &Digest) -> Option<String> {
        fs::read_to_string(self.folder(name).join("manifests").join(digest.hex())).ok()
    }

    pub fn put_tag(&self, name: &Name, tag: &Tag, digest: &Digest) -> io::Result<()> {
        write_file(&self.folder(name).join("tags"), tag.as_str(), digest.as_str().as_bytes())
    }

    pub fn remove_tag(&self, name: &Name, tag: &Tag) -> io::Result<bool> {
        removed(&self.folder(name).join("tags").join(tag.as_str()))
    }

    pub fn tag(&self, name: &Name, tag: &Tag) -> Option<Digest> {
        fs::read_to_string(self.folder(name).join("tags").join(tag.as_str())).ok()?.parse().ok()
    }

    /// In the order of their bytes; none when there is no such repository.
    pub fn tags(&self, name: &Name) -> io::Result<Option<Vec<String>>> {
        if !self.folder(name).exists() {
            return Ok(None);
        }
        let names = names_in(&self.folder(name).join("tags"))?;
        Ok(Some(names.into_iter().filter(|name| Tag::parse(name).is_some()).collect()))
    }

    pub fn put_referrer(&self, name: &Name, subject: &Digest, manifest: &Digest) -> io::Result<()> {
        write_file(&self.folder(name).join("referrers").join(subject.hex()), manifest.hex(), b"")
    }

    /// Manifests whose subject this is, in the order of their digests.
    pub fn referrers(&self, name: &Name, subject: &Digest) -> io::Result<Vec<Digest>> {
        let names = names_in(&self.folder(name).join("referrers").join(subject.hex()))?;
        Ok(digests(&names))
    }

    /// Every repository, in the order of their bytes.
    pub fn catalog(&self) -> io::Result<Vec<String>> {
        let mut names: Vec<String> = names_in(&self.root)?.into_iter().map(|name| name.replace('+', "/")).collect();
        names.sort();
        Ok(names)
    }

    /// Some repository shows the blob.
    pub fn names(&self, digest: &Digest) -> bool {
        // When the folder cannot be read the blob counts as named: to keep is the safe side.
        let Ok(folders) = names_in(&self.root) else { return true };
        let holds = |folder: &String, kind: &str| self.root.join(folder).join(kind).join(digest.hex()).exists();
        folders.iter().any(|folder| holds(folder, "blobs") || holds(folder, "manifests"))
    }

    fn folder(&self, name: &Name) -> PathBuf {
        self.root.join(name.as_str().replace('/', "+"))
    }
}

/// The digests among file names; what is being written has another name.
fn digests(names: &[String]) -> Vec<Digest> {
    names.iter().filter_map(|name| format!("sha256:{name}").parse().ok()).collect()
}

fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// Whether there was such a file; it is gone now.
fn removed(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
        Ok(()) => Ok(true),
    }
}

/// Whole or not at all, and on the disk when it returns.
fn write_file(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_data()?;
    file.persist(folder.join(name))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_lists_what_it_names() {
        let data = tempfile::tempdir().expect("a folder");
        let repositories = Repositories::open(data.path()).expect("opens");
        let (name, tag) = (Name::parse("team/app").expect("valid"), Tag::parse("v1").expect("valid"));
        let (blob, other) = (Digest::of(b"blob"), Digest::of(b"other"));
        assert_eq!(repositories.tags(&name).expect("lists"), None);
        repositories.link_blob(&name, &blob).expect("links");
        repositories.put_manifest(&name, &other, "text/x").expect("puts");
        repositories.put_tag(&name, &tag, &other).expect("tags");
        repositories.put_referrer(&name, &blob, &other).expect("refers");
        assert_eq!(repositories.catalog().expect("lists"), ["team/app"]);
        assert_eq!(repositories.tags(&name).expect("lists"), Some(vec!["v1".to_owned()]));
        assert_eq!(repositories.tag(&name, &tag), Some(other.clone()));
        assert_eq!(repositories.referrers(&name, &blob).expect("lists"), std::slice::from_ref(&other));
        assert!(repositories.names(&blob) && repositories.names(&other) && !repositories.names(&Digest::of(b"")));
        assert_eq!(repositories.shown().expect("lists"), [blob.clone(), other.clone()].into_iter().collect());

        assert!(repositories.remove_manifest(&name, &other, Some(&blob)).expect("removes"));
        assert!(!repositories.remove_manifest(&name, &other, None).expect("removes"), "it is gone");
        assert_eq!(repositories.tags(&name).expect("lists"), Some(vec![]), "its tag went with it");
        assert_eq!(repositories.referrers(&name, &blob).expect("lists"), []);
        assert!(repositories.unlink_blob(&name, &blob).expect("unlinks"));
        assert!(!repositories.names(&blob) && !repositories.names(&other));
    }
}
