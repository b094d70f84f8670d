//! A build context as a tar stream: names without `./`, owner root, what .dockerignore
//! excludes left out.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dockerfile::Ignore;
use tar::{Builder, EntryType, Header};

use crate::regular;

pub struct Context {
    root: PathBuf,
    ignore: Ignore,
    /// The Dockerfile and .dockerignore are sent even when they are excluded.
    always: Vec<String>,
    /// Whether an excluded folder may hold a file that a `!` pattern brings back.
    exceptions: bool,
}

impl Context {
    pub fn open(root: &Path, dockerfile: &str) -> io::Result<Self> {
        let mut text = String::new();
        match regular::open(&root.join(".dockerignore")) {
            Ok(mut file) => drop(file.read_to_string(&mut text)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(io::Error::new(e.kind(), format!(".dockerignore: {e}"))),
        }
        let always = vec![dockerfile.to_owned(), ".dockerignore".to_owned()];
        let exceptions = text.lines().any(|line| line.trim_start().starts_with('!'));
        Ok(Self { root: root.to_owned(), ignore: Ignore::parse(&text), always, exceptions })
    }

    /// Writes all, and then `extra` files (name and content) that lie outside the context.
    pub fn write(&self, to: impl Write, extra: &[(String, Vec<u8>)]) -> io::Result<()> {
        let mut tar = Builder::new(to);
        self.folder(&mut tar, "", &mut HashMap::new())?;
        for (name, content) in extra {
            let mut header = Header::new_ustar();
            header.set_mode(0o600);
            header.set_size(content.len() as u64);
            append(&mut tar, header, name.as_bytes(), content.as_slice())?;
        }
        tar.into_inner()?.flush()
    }

    fn folder(
        &self,
        tar: &mut Builder<impl Write>,
        within: &str,
        links: &mut HashMap<(u64, u64), String>,
    ) -> io::Result<()> {
        let mut entries = fs::read_dir(self.root.join(within))?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            // A name that is no text cannot be matched by a pattern; it is sent as it is.
            let shown = name.to_string_lossy();
            let path = if within.is_empty() { shown.into_owned() } else { format!("{within}/{shown}") };
            let metadata = entry.path().symlink_metadata()?;
            let excluded = !self.always.contains(&path) && self.ignore.excludes(&path, metadata.is_dir());
            if metadata.is_dir() {
                // An excluded folder may hold what a later `!` pattern brings back.
                if !excluded {
                    self.entry(tar, &path, &metadata, links)?;
                    self.folder(tar, &path, links)?;
                } else if self.exceptions || self.always.iter().any(|a| a.starts_with(&format!("{path}/"))) {
                    self.folder(tar, &path, links)?;
                }
            } else if !excluded {
                self.entry(tar, &path, &metadata, links)?;
            }
        }
        Ok(())
    }

    fn entry(
        &self,
        tar: &mut Builder<impl Write>,
        path: &str,
        metadata: &Metadata,
        links: &mut HashMap<(u64, u64), String>,
    ) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_mode(metadata.mode() & 0o7777);
        header.set_mtime(metadata.mtime().max(0) as u64);
        header.set_size(0);
        let full = self.root.join(path);
        let kind = metadata.file_type();
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            return append(tar, header, format!("{path}/").as_bytes(), io::empty());
        }
        if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            let target = fs::read_link(&full)?;
            return append_link(tar, header, path.as_bytes(), target.as_os_str().as_bytes());
        }
        if !kind.is_file() {
            // Sockets, pipes and devices have no place in a context.
            return Ok(());
        }
        if metadata.nlink() > 1 {
            if let Some(first) = links.get(&(metadata.dev(), metadata.ino())) {
                header.set_entry_type(EntryType::Link);
                return append_link(tar, header, path.as_bytes(), first.as_bytes());
            }
            links.insert((metadata.dev(), metadata.ino()), path.to_owned());
        }
        header.set_size(metadata.len());
        let file = regular::open_itself(&full).map_err(|e| io::Error::new(e.kind(), format!("{path}: {e}")))?;
        // The header's length is a promise: a file that grows is cut, one that shrinks is padded.
        append(tar, header, path.as_bytes(), file.chain(io::repeat(0)).take(metadata.len()))
    }
}

fn append(tar: &mut Builder<impl Write>, header: Header, path: &[u8], content: impl Read) -> io::Result<()> {
    finish(tar, header, path, None, content)
}

fn append_link(tar: &mut Builder<impl Write>, header: Header, path: &[u8], target: &[u8]) -> io::Result<()> {
    finish(tar, header, path, Some(target), io::empty())
}

/// Names that do not fit the header go into a PAX record, as Go's writer does it.
fn finish(
    tar: &mut Builder<impl Write>,
    mut header: Header,
    path: &[u8],
    target: Option<&[u8]>,
    content: impl Read,
) -> io::Result<()> {
    let mut records: Vec<(&str, &[u8])> = Vec::new();
    if !set_name(&mut header.as_old_mut().name, path) {
        records.push(("path", path));
    }
    if let Some(target) = target
        && !set_name(&mut header.as_old_mut().linkname, target)
    {
        records.push(("linkpath", target));
    }
    if !records.is_empty() {
        tar.append_pax_extensions(records)?;
    }
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    tar.append(&header, content)
}

/// Writes as much as fits; tells whether it was all.
fn set_name(field: &mut [u8; 100], name: &[u8]) -> bool {
    let fits = name.len() <= field.len();
    let part = &name[..name.len().min(field.len())];
    field.fill(0);
    field[..part.len()].copy_from_slice(part);
    fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excludes_and_keeps_the_dockerfile() {
        let root = std::env::temp_dir().join(format!("context-{}", std::process::id()));
        fs::create_dir_all(root.join("skip/deep")).expect("folder");
        let long = "n".repeat(150);
        for (name, text) in [
            (".dockerignore", "*\n!keep\n!skip/deep/file\n"),
            ("Dockerfile", "FROM x"),
            ("keep", "1"),
            ("gone", "2"),
            ("skip/deep/file", "3"),
            (&*long, "4"),
        ] {
            fs::write(root.join(name), text).expect("file");
        }
        let mut bytes = Vec::new();
        Context::open(&root, "Dockerfile")
            .and_then(|c| c.write(&mut bytes, &[("x".into(), b"y".to_vec())]))
            .expect("written");
        fs::remove_dir_all(&root).expect("removed");
        let mut archive = tar::Archive::new(bytes.as_slice());
        let names: Vec<_> = archive
            .entries()
            .expect("entries")
            .map(|e| e.expect("entry").path().expect("path").display().to_string())
            .collect();
        assert_eq!(names, [".dockerignore", "Dockerfile", "keep", "skip/", "skip/deep/", "skip/deep/file", "x"]);
    }
}
