use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;

use nix::sys::stat::{FileStat, SFlag};

use super::content::content;
use crate::halt;
use crate::rooted::{Owner, Place, Root, is_dir, is_file, kind};

/// Copies between two trees, neither of which is trusted.
pub struct Transfer<'a> {
    pub from: &'a Root,
    pub to: &'a Root,
    /// `None`: each file keeps its owner.
    pub owner: Option<Owner>,
    /// A folder on the disk that is written to.
    pub disk: &'a Path,
    /// `--chmod`: in place of each file's own mode.
    pub mode: Option<u32>,
}

impl Transfer<'_> {
    /// Copies one file to exactly this path; missing folders are made.
    pub fn file(&self, source: &Path, destination: &Path) -> io::Result<()> {
        let stat = self.from.stat(source)?;
        let to = self.target(destination)?;
        if to.stat()?.is_some_and(|there| is_dir(&there)) {
            return Err(nix::errno::Errno::EISDIR.into());
        }
        match is_file(&stat) {
            true => self.copied(self.from.read(source)?, &stat, &to),
            false => self.special(&stat, &to),
        }
    }

    /// Copies what a folder holds into another; what is there already is kept, a file of the same name is replaced.
    pub fn folder(&self, source: &Path, destination: &Path) -> io::Result<()> {
        let made = self.to.make_dirs(destination)?;
        if made {
            // The folder itself is new: it belongs to whom its content does. One that was there stays as it was.
            let place = self.to.place(&self.to.resolve_missing(destination)?)?;
            place.set_owner(self.owner.unwrap_or(Owner::ROOT))?;
        }
        let from = Place { dir: self.from.dir(source)?.into(), name: ".".into() };
        let to = Place { dir: self.to.dir(destination)?.into(), name: ".".into() };
        self.inside(&from, &to, &mut HashMap::new())
    }

    /// Writes content that lies in the Dockerfile itself.
    pub fn text(&self, content: &str, destination: &Path) -> io::Result<()> {
        use io::Write as _;
        let to = self.target(destination)?;
        to.create()?.write_all(content.as_bytes())?;
        to.set_owner(self.owner.unwrap_or(Owner::ROOT))?;
        to.set_mode(self.mode.unwrap_or(0o644))?;
        // No time of its own: the same Dockerfile makes the same layer.
        to.set_times(0, 0)
    }

    fn target(&self, destination: &Path) -> io::Result<Place> {
        if let Some(parent) = destination.parent() {
            self.to.make_dirs(parent)?;
        }
        self.to.place(destination)
    }

    fn inside(&self, from: &Place, to: &Place, linked: &mut HashMap<(u64, u64), Place>) -> io::Result<()> {
        let folder = to.open_folder()?;
        for child in from.children()? {
            halt::check()?;
            let Some(stat) = child.stat()? else { continue };
            let target = Place { dir: folder.clone(), name: child.name.clone() };
            let shared = stat.st_nlink > 1 && !is_dir(&stat);
            if shared && let Some(first) = linked.get(&(stat.st_dev, stat.st_ino)) {
                target.hard_link(first)?;
                continue;
            }
            self.child(&child, &stat, &target, linked)?;
            if shared {
                linked.insert((stat.st_dev, stat.st_ino), target);
            }
        }
        Ok(())
    }

    fn child(
        &self,
        child: &Place,
        stat: &FileStat,
        target: &Place,
        linked: &mut HashMap<(u64, u64), Place>,
    ) -> io::Result<()> {
        match kind(stat) {
            SFlag::S_IFDIR => {
                if !target.stat()?.is_some_and(|there| is_dir(&there)) {
                    target.remove()?;
                    target.make_dir(0o700)?;
                }
                self.inside(child, target, linked)?;
            }
            SFlag::S_IFREG => return self.copied(child.read()?, stat, target),
            SFlag::S_IFLNK => {
                target.symlink(&child.read_link()?)?;
                target.set_owner(self.owner_of(stat))?;
                return target.set_times(stat.st_mtime, stat.st_mtime_nsec);
            }
            _ => return self.special(stat, target),
        }
        self.finish(stat, target)
    }

    fn special(&self, stat: &FileStat, to: &Place) -> io::Result<()> {
        match to.special(stat)? {
            true => self.finish(stat, to),
            false => Ok(()),
        }
    }

    fn copied(&self, from: File, stat: &FileStat, to: &Place) -> io::Result<()> {
        let copied = content(from, to.create()?, self.disk)?;
        self.finish(stat, to)?;
        copied.set_attributes()
    }

    /// Owner before mode, because a change of owner clears the set-user-id bit.
    fn finish(&self, stat: &FileStat, to: &Place) -> io::Result<()> {
        to.set_owner(self.owner_of(stat))?;
        to.set_mode(self.mode.unwrap_or(stat.st_mode))?;
        to.set_times(stat.st_mtime, stat.st_mtime_nsec)
    }

    fn owner_of(&self, stat: &FileStat) -> Owner {
        self.owner.unwrap_or(Owner { uid: stat.st_uid, gid: stat.st_gid })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    struct Trees {
        temp: tempfile::TempDir,
    }

    impl Trees {
        fn new() -> Self {
            let temp = tempfile::tempdir().expect("temp folder");
            for folder in ["from/d/s", "to"] {
                std::fs::create_dir_all(temp.path().join(folder)).expect("folder");
            }
            std::fs::write(temp.path().join("from/d/x"), "x").expect("file");
            std::fs::hard_link(temp.path().join("from/d/x"), temp.path().join("from/d/h")).expect("link");
            symlink("x", temp.path().join("from/d/l")).expect("link");
            let mode = std::fs::Permissions::from_mode(0o4711);
            std::fs::set_permissions(temp.path().join("from/d/x"), mode).expect("mode");
            let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
            xattr::set(temp.path().join("from/d/x"), "security.capability", capability).expect("a capability");
            Self { temp }
        }

        fn at(&self, path: &str) -> PathBuf {
            self.temp.path().join(path)
        }

        fn run(&self, copy: impl FnOnce(&Transfer) -> io::Result<()>) -> io::Result<()> {
            let from = Root::open(&self.at("from"))?;
            let to = Root::open(&self.at("to"))?;
            copy(&Transfer { from: &from, to: &to, owner: None, disk: self.temp.path(), mode: None })
        }
    }

    #[test]
    fn a_folder_with_links_and_modes() {
        let trees = Trees::new();
        trees.run(|t| t.folder(Path::new("d"), Path::new("a/b"))).expect("copied");
        let x = trees.at("to/a/b/x").symlink_metadata().expect("x");
        assert_eq!(x.mode() & 0o7777, 0o4711);
        assert!(xattr::get(trees.at("to/a/b/x"), "security.capability").expect("readable").is_some());
        assert_eq!(x.ino(), trees.at("to/a/b/h").symlink_metadata().expect("h").ino());
        assert_eq!(std::fs::read_link(trees.at("to/a/b/l")).expect("l"), Path::new("x"));
        assert!(trees.at("to/a/b/s").is_dir());
    }

    #[test]
    fn links_in_the_image_are_replaced_not_followed() {
        let trees = Trees::new();
        std::fs::write(trees.at("outside"), "kept").expect("file");
        std::fs::create_dir(trees.at("to/a")).expect("folder");
        symlink(trees.at("outside"), trees.at("to/a/x")).expect("link");
        symlink(trees.at("from"), trees.at("to/a/s")).expect("link");
        trees.run(|t| t.folder(Path::new("d"), Path::new("a"))).expect("copied");
        assert_eq!(std::fs::read_to_string(trees.at("outside")).expect("read"), "kept");
        assert_eq!(std::fs::read_to_string(trees.at("to/a/x")).expect("read"), "x");
        assert!(trees.at("to/a/s").symlink_metadata().expect("s").is_dir());
    }

    #[test]
    fn a_file_does_not_replace_a_folder() {
        let trees = Trees::new();
        std::fs::create_dir(trees.at("to/x")).expect("folder");
        assert!(trees.run(|t| t.file(Path::new("d/x"), Path::new("x"))).is_err());
        trees.run(|t| t.file(Path::new("d/l"), Path::new("y"))).expect("through the link");
        assert!(trees.at("to/y").symlink_metadata().expect("y").is_file());
    }
}
