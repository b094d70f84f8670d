use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};

use model::Digest;

use crate::error::Error;
use crate::layer::{Stored, Uploader};

/// A file above this is nothing but a layer: it goes straight to the layer store.
const SPOOLED_MAX_BYTES: u64 = 4 << 20;
/// No image has so many files in its archive.
const MAX_ENTRIES: usize = 100_000;
/// Links that lead to links.
const MAX_LINKS: usize = 8;

/// The files of an archive by their names there. Small ones lie one after the other in one nameless temporary file,
/// large ones are in the layer store already. Names are keys only; no file is ever called so.
pub struct Spool {
    file: File,
    end: u64,
    entries: HashMap<String, Entry>,
    uploader: Uploader,
}

enum Entry {
    Spooled { offset: u64, size: u64 },
    Stored(Stored),
    Link(String),
}

impl Spool {
    pub fn new(uploader: Uploader) -> Result<Self, Error> {
        let file = tempfile::tempfile().map_err(Error::Spool)?;
        Ok(Self { file, end: 0, entries: HashMap::new(), uploader })
    }

    /// Takes in a whole archive, uncompressed. Blocks.
    pub fn fill(&mut self, archive: impl Read) -> Result<(), Error> {
        let mut tar = tar::Archive::new(archive);
        for entry in tar.entries().map_err(Error::Read)? {
            let mut entry = entry.map_err(Error::Read)?;
            let kind = entry.header().entry_type();
            let Some(name) = clean("", &String::from_utf8_lossy(&entry.path_bytes())) else { continue };
            let found = if kind.is_file() || kind.is_contiguous() {
                self.take_in(&mut entry)?
            } else if kind.is_symlink() || kind.is_hard_link() {
                let target = entry.link_name_bytes().map(|target| String::from_utf8_lossy(&target).into_owned());
                let base = if kind.is_symlink() { parent(&name) } else { "" };
                match target.and_then(|target| clean(base, &target)) {
                    Some(target) => Entry::Link(target),
                    None => return Err(Error::Archive(format!("invalid archive: {name} links to the outside"))),
                }
            } else {
                continue;
            };
            self.entries.insert(name, found);
            if self.entries.len() > MAX_ENTRIES {
                return Err(Error::Archive("invalid archive: too many files".to_owned()));
            }
        }
        // What follows the archive's end belongs to it; unread, its sender would hang.
        io::copy(&mut tar.into_inner(), &mut io::sink()).map_err(Error::Read)?;
        Ok(())
    }

    fn take_in(&mut self, entry: &mut impl Read) -> Result<Entry, Error> {
        let mut start = Vec::new();
        entry.take(SPOOLED_MAX_BYTES + 1).read_to_end(&mut start).map_err(Error::Read)?;
        if start.len() as u64 > SPOOLED_MAX_BYTES {
            return Ok(Entry::Stored(self.uploader.upload(start.as_slice().chain(entry))?));
        }
        let (offset, size) = (self.end, start.len() as u64);
        self.file.write_all(&start).map_err(Error::Spool)?;
        self.end += size;
        Ok(Entry::Spooled { offset, size })
    }

    pub fn has(&self, name: &str) -> bool {
        self.resolve(name).is_ok()
    }

    /// The bytes of a small file.
    ///
    /// # Errors
    /// `Archive` when it is not there, or too large for what it should be.
    pub fn bytes(&mut self, name: &str) -> Result<Vec<u8>, Error> {
        match self.entries.get(&self.resolve(name)?) {
            Some(&Entry::Spooled { offset, size }) => {
                let mut bytes = Vec::new();
                self.file.seek(SeekFrom::Start(offset)).map_err(Error::Spool)?;
                (&self.file).take(size).read_to_end(&mut bytes).map_err(Error::Spool)?;
                Ok(bytes)
            }
            _ => Err(Error::Archive(format!("invalid archive: {name} is too large"))),
        }
    }

    /// The blob of an OCI layout, checked against the digest that names it.
    pub fn blob_bytes(&mut self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let bytes = self.bytes(&blob_name(digest))?;
        if Digest::of(&bytes) != *digest {
            return Err(Error::Archive(format!("invalid archive: blob {digest} has another digest")));
        }
        Ok(bytes)
    }

    /// A file as a layer in the layer store; stored now if it was not yet. Blocks.
    pub fn layer(&mut self, name: &str) -> Result<Stored, Error> {
        let key = self.resolve(name)?;
        if let Some(Entry::Stored(stored)) = self.entries.get(&key) {
            return Ok(stored.clone());
        }
        let bytes = self.bytes(&key)?;
        let stored = self.uploader.upload(bytes.as_slice())?;
        self.entries.insert(key, Entry::Stored(stored.clone()));
        Ok(stored)
    }

    /// Follows links; the name of a file that is there.
    fn resolve(&self, name: &str) -> Result<String, Error> {
        let missing = || Error::Archive(format!("invalid archive: {name} is not in it"));
        let mut key = clean("", name).ok_or_else(missing)?;
        for _ in 0..MAX_LINKS {
            match self.entries.get(&key) {
                Some(Entry::Link(target)) => key.clone_from(target),
                Some(_) => return Ok(key),
                None => return Err(missing()),
            }
        }
        Err(missing())
    }
}

pub fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// `name` as seen from the folder `base`, without `.` and `..`; none when it leads outside or is the root.
fn clean(base: &str, name: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in base.split('/').chain(name.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_keys_inside_the_archive() {
        for (base, name, cleaned) in [
            ("", "./manifest.json", Some("manifest.json")),
            ("", "/a//b/", Some("a/b")),
            ("x", "../y/layer.tar", Some("y/layer.tar")),
            ("x", "../../y", None),
            ("", ".", None),
        ] {
            assert_eq!(clean(base, name).as_deref(), cleaned, "{base} {name}");
        }
    }
}
