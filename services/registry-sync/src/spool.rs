use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};

use model::Digest;

use crate::compression::{Compression, MAGIC_BYTES};
use crate::error::Error;
use crate::layer::{Stored, Uploader};
use crate::progress::{Counted, Teller};

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
    teller: Teller,
}

enum Entry {
    Spooled { offset: u64, size: u64 },
    Stored(Stored),
    Link(String),
}

impl Spool {
    pub fn new(uploader: Uploader, teller: Teller) -> Result<Self, Error> {
        let file = tempfile::tempfile().map_err(Error::Spool)?;
        Ok(Self { file, end: 0, entries: HashMap::new(), uploader, teller })
    }

    /// Takes in a whole archive, uncompressed. Blocks.
    pub fn fill(&mut self, archive: impl Read) -> Result<(), Error> {
        let mut tar = tar::Archive::new(archive);
        for entry in tar.entries().map_err(Error::Read)? {
            let mut entry = entry.map_err(Error::Read)?;
            let kind = entry.header().entry_type();
            let Some(name) = clean("", &String::from_utf8_lossy(&entry.path_bytes())) else { continue };
            let found = if kind.is_file() || kind.is_contiguous() {
                self.take_in(&name, &mut entry)?
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

    fn take_in(&mut self, name: &str, entry: &mut tar::Entry<'_, impl Read>) -> Result<Entry, Error> {
        let total = entry.size();
        let mut start = Vec::new();
        entry.take(SPOOLED_MAX_BYTES + 1).read_to_end(&mut start).map_err(Error::Read)?;
        if start.len() as u64 > SPOOLED_MAX_BYTES {
            return Ok(Entry::Stored(self.upload(name, start.as_slice().chain(entry), total)?));
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
        let stored = self.upload(&key, bytes.as_slice(), bytes.len() as u64)?;
        self.entries.insert(key, Entry::Stored(stored.clone()));
        Ok(stored)
    }

    /// Stores one layer; tells how far it is unless the layer store holds it already, as Docker does.
    fn upload(&self, name: &str, mut from: impl Read, total: u64) -> Result<Stored, Error> {
        let digest = name.strip_prefix("blobs/sha256/").and_then(|hex| format!("sha256:{hex}").parse().ok());
        let mut start = Vec::new();
        (&mut from).take(MAGIC_BYTES).read_to_end(&mut start).map_err(Error::Read)?;
        // The layer store may hold the packed copy of a push, while the layer is what it unpacks to.
        let is_plain = Compression::of(&start) == Compression::None;
        let from = start.as_slice().chain(from);
        match digest {
            Some(digest) if is_plain && self.uploader.holds(&digest)? => self.uploader.look_through(from, &digest),
            _ => self.uploader.upload(Counted::new(from, &self.teller, name, total)),
        }
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
