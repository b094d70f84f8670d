//! A folder's files in the order and with the patterns that a build asks for them.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

use dockerfile::Ignore;

/// What of a folder is wanted.
#[derive(Debug, Default)]
pub struct Selection {
    /// Leaves out everything but what is asked for; none: nothing is left out.
    include: Option<Ignore>,
    exclude: Ignore,
}

/// A file, link or folder.
pub struct Found {
    /// Relative, with `/`.
    pub path: String,
    pub full: PathBuf,
    pub metadata: Metadata,
}

impl Selection {
    /// Patterns as `.dockerignore`'s.
    pub fn new(include: &[String], exclude: &[String]) -> Self {
        let include = (!include.is_empty()).then(|| {
            let rules: Vec<String> = include.iter().map(|pattern| format!("!{pattern}")).collect();
            Ignore::parse(&format!("**\n{}", rules.join("\n")))
        });
        Self { include, exclude: Ignore::parse(&exclude.join("\n")) }
    }

    fn holds(&self, path: &str) -> bool {
        !self.exclude.excludes(path, false) && !self.include.as_ref().is_some_and(|rules| rules.excludes(path, false))
    }

    /// Whether something inside a folder may be wanted.
    fn reaches_into(&self, path: &str) -> bool {
        !self.exclude.excludes(path, true) && !self.include.as_ref().is_some_and(|rules| rules.excludes(path, true))
    }
}

/// Calls `each` for what is wanted: a folder before what it holds, names in the order of their bytes. A folder that is
/// not wanted itself comes before the first thing in it that is.
pub fn walk(root: &Path, selection: &Selection, each: &mut dyn FnMut(Found) -> io::Result<()>) -> io::Result<()> {
    Walk { root, selection, waiting: Vec::new(), each }.folder("")
}

struct Walk<'a> {
    root: &'a Path,
    selection: &'a Selection,
    /// Folders that are told of once something in them is wanted.
    waiting: Vec<Found>,
    each: &'a mut dyn FnMut(Found) -> io::Result<()>,
}

impl Walk<'_> {
    fn folder(&mut self, within: &str) -> io::Result<()> {
        let at = self.root.join(within);
        let told = |e: io::Error| {
            io::Error::new(e.kind(), format!("open {}: {}", at.display(), crate::commands::os_words(&e)))
        };
        let mut entries = std::fs::read_dir(&at).map_err(told)?.collect::<io::Result<Vec<_>>>().map_err(told)?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                let shown = entry.path();
                return Err(io::Error::other(format!("{} has a name that is no text", shown.display())));
            };
            let path = if within.is_empty() { name.to_owned() } else { format!("{within}/{name}") };
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // It has gone since the folder was read.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            self.entry(Found { path, full: entry.path(), metadata })?;
        }
        Ok(())
    }

    fn entry(&mut self, found: Found) -> io::Result<()> {
        let path = found.path.clone();
        let is_wanted = self.selection.holds(&path);
        if !found.metadata.is_dir() {
            return if is_wanted { self.tell(found) } else { Ok(()) };
        }
        let waits = self.waiting.len();
        match is_wanted {
            true => self.tell(found)?,
            false if !self.selection.reaches_into(&path) => return Ok(()),
            false => self.waiting.push(found),
        }
        self.folder(&path)?;
        self.waiting.truncate(waits);
        Ok(())
    }

    fn tell(&mut self, found: Found) -> io::Result<()> {
        for folder in self.waiting.drain(..) {
            (self.each)(folder)?;
        }
        (self.each)(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(root: &Path, include: &[&str], exclude: &[&str]) -> Vec<String> {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let mut paths = Vec::new();
        walk(root, &Selection::new(&owned(include), &owned(exclude)), &mut |found| {
            paths.push(found.path);
            Ok(())
        })
        .expect("walked");
        paths
    }

    #[test]
    fn patterns_and_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        for path in ["a/x.c", "a/b/y.c", "a/b/z.h", "a.txt", "c/empty/.keep", "d"] {
            std::fs::create_dir_all(root.join(path).parent().expect("a folder")).expect("folders");
            std::fs::write(root.join(path), path).expect("a file");
        }
        assert_eq!(
            paths(root, &[], &[]),
            ["a", "a/b", "a/b/y.c", "a/b/z.h", "a/x.c", "a.txt", "c", "c/empty", "c/empty/.keep", "d"]
        );
        assert_eq!(paths(root, &["a/b", "d"], &[]), ["a", "a/b", "a/b/y.c", "a/b/z.h", "d"]);
        assert_eq!(paths(root, &["**/*.c"], &[]), ["a", "a/b", "a/b/y.c", "a/x.c"]);
        assert_eq!(paths(root, &[], &["a", "!a/b/y.c", "c"]), ["a", "a/b", "a/b/y.c", "a.txt", "d"]);
        assert_eq!(paths(root, &["a"], &["**/*.h"]), ["a", "a/b", "a/b/y.c", "a/x.c"]);
        assert_eq!(paths(root, &["nothing"], &[]), Vec::<String>::new());
    }
}
