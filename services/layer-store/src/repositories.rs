//! Plain repositories: which blobs, manifests and tags each of them names. All are small files:
//!
//! ```text
//! repositories/<name, with + for />/blobs/<hex>      empty: the repository shows this blob
//!                                  /manifests/<hex>  media type of the manifest that this blob is
//!                                  /tags/<tag>       digest of the tag's manifest
//! ```

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use model::{Digest, ImageRef};

#[derive(Clone)]
pub struct Repositories {
    root: PathBuf,
}

/// A repository's name as the distribution-spec allows it; safe as a file name once `/` is `+`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

/// A tag as the distribution-spec allows it; safe as a file name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag(String);

impl Name {
    /// None when `text` is not a repository's name.
    pub fn parse(text: &str) -> Option<Self> {
        let reference: ImageRef = format!("any.registry/{text}").parse().ok()?;
        let plain = reference.path() == text && !reference.has_tag_or_digest();
        plain.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The store's own repository, of blobs without a name.
    pub fn is_internal(&self) -> bool {
        self.0 == "boxyard.internal"
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Tag {
    /// None when `text` is not a tag.
    pub fn parse(text: &str) -> Option<Self> {
        let any: ImageRef = "any.registry/any".parse().ok()?;
        any.with_tag(text).ok().map(|_| Self(text.to_owned()))
    }
}

impl Repositories {
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let root = data_dir.join("repositories");
        fs::create_dir_all(&root)?;
        Ok(Self { root })
    }

    /// The repository shows the blob from now on.
    pub fn link_blob(&self, name: &Name, digest: &Digest) -> io::Result<()> {
        write_file(&self.folder(name).join("blobs"), digest.hex(), b"")
    }

    pub fn has_blob(&self, name: &Name, digest: &Digest) -> bool {
        self.folder(name).join("blobs").join(digest.hex()).exists() || self.manifest(name, digest).is_some()
    }

    pub fn put_manifest(&self, name: &Name, digest: &Digest, media_type: &str) -> io::Result<()> {
        write_file(&self.folder(name).join("manifests"), digest.hex(), media_type.as_bytes())
    }

    /// Media type of a manifest of this repository.
    pub fn manifest(&self, name: &Name, digest: &Digest) -> Option<String> {
        fs::read_to_string(self.folder(name).join("manifests").join(digest.hex())).ok()
    }

    pub fn put_tag(&self, name: &Name, tag: &Tag, digest: &Digest) -> io::Result<()> {
        write_file(&self.folder(name).join("tags"), &tag.0, digest.as_str().as_bytes())
    }

    pub fn tag(&self, name: &Name, tag: &Tag) -> Option<Digest> {
        fs::read_to_string(self.folder(name).join("tags").join(&tag.0)).ok()?.parse().ok()
    }

    /// In the order of their bytes; none when there is no such repository.
    pub fn tags(&self, name: &Name) -> io::Result<Option<Vec<String>>> {
        if !self.folder(name).exists() {
            return Ok(None);
        }
        let names = names_in(&self.folder(name).join("tags"))?;
        Ok(Some(names.into_iter().filter(|name| Tag::parse(name).is_some()).collect()))
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
        self.root.join(name.0.replace('/', "+"))
    }
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

/// Whole or not at all.
fn write_file(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_data()?;
    file.persist(folder.join(name))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_and_tags_of_the_specification_reach_the_disk() {
        for name in ["app", "library/busybox", "a/b/c-d.e", "boxyard.internal"] {
            assert_eq!(Name::parse(name).as_ref().map(Name::as_str), Some(name));
        }
        for name in ["", "..", "../x", "a/../b", "/a", "a/", "A", "a+b", "a:b", "a@b", "a b", "a\0b", ".tmp"] {
            assert_eq!(Name::parse(name), None, "{name:?}");
        }
        for tag in ["", ".", "..", "a/b", "../a", "-a", "a b"] {
            assert_eq!(Tag::parse(tag), None, "{tag:?}");
        }
        assert!(Tag::parse("v1.0_x-Y").is_some());
    }

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
        assert_eq!(repositories.catalog().expect("lists"), ["team/app"]);
        assert_eq!(repositories.tags(&name).expect("lists"), Some(vec!["v1".to_owned()]));
        assert_eq!(repositories.tag(&name, &tag), Some(other.clone()));
        assert!(repositories.names(&blob) && repositories.names(&other) && !repositories.names(&Digest::of(b"")));
    }
}
