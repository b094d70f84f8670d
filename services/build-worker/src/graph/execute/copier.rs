//! Copies between two hostile trees by BuildKit's rules.
//!
//! - What is put where a folder is goes into it; a file never replaces a folder, nor a folder a file.
//! - Folders that are made on the way are the copy's owner's, with mode 0755 or an octal `--chmod`; one that was there
//!   stays as it is. Folders below a copied one are as their source, also where they were there.
//! - Links are copied as links, except for the source itself, which is followed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use dockerfile::Ignore;
use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag};

use super::chmod::Chmod;
use crate::copy::content::content;
use crate::graph::files::Inside;
use crate::halt;
use crate::rooted::{Owner, Place, Root, is_dir, is_file, kind};

pub struct Copier<'a> {
    pub from: &'a Root,
    pub to: &'a Root,
    /// `None`: each file keeps its owner.
    pub owner: Option<Owner>,
    pub chmod: Option<Chmod>,
    pub excludes: Option<Ignore>,
    /// Time of all that is copied, in seconds; `None`: as the source.
    pub epoch: Option<i64>,
    /// A folder on the disk that is written to.
    pub disk: &'a Path,
    /// Files with several names: where the first one went.
    pub linked: RefCell<HashMap<(u64, u64), Place>>,
}

/// Where something goes.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Relative to the root.
    pub path: PathBuf,
    /// It is written with a slash at its end: a folder.
    pub is_folder: bool,
}

impl Destination {
    /// `written` below the working folder.
    pub fn new(cwd: &str, written: &str) -> Self {
        let is_folder = written.is_empty() || written.ends_with('/') || written.ends_with("/.") || written == ".";
        Self { path: crate::rooted::clean(&Path::new(cwd).join(written)), is_folder }
    }
}

impl Copier<'_> {
    /// Copies what a path leads to: a file, or what a folder holds.
    pub fn source(&self, source: &Path, to: &Destination) -> io::Result<()> {
        let stat = self.from.stat(source)?;
        if is_dir(&stat) {
            let (from, to) = self.folders(source, to)?;
            return self.inside(&from, &to, Path::new(""));
        }
        let name = source.file_name().map(PathBuf::from).unwrap_or_default();
        if self.excludes.as_ref().is_some_and(|ignore| ignore.excludes(&name.to_string_lossy(), false)) {
            return Ok(());
        }
        let target = self.target(&name, to)?;
        match is_file(&stat) {
            true => self.file(self.from.read(source)?, &stat, &target),
            false => self.special(&stat, &target),
        }
    }

    /// `--parents`: copies what matches below a folder, with the folders on the way.
    pub fn parents(&self, folder: &Path, inside: &Inside, to: &Destination) -> io::Result<()> {
        let (from, to) = self.folders(folder, to)?;
        self.matching(&from, &to, Path::new(""), inside)
    }

    /// Copies content that has no file.
    pub fn content(&self, name: &str, content: &[u8], to: &Destination) -> io::Result<()> {
        use io::Write as _;
        let target = self.target(Path::new(name), to)?;
        refuse_folder(&target)?;
        target.create()?.write_all(content)?;
        target.set_owner(self.owner.unwrap_or(Owner::ROOT))?;
        target.set_mode(self.chmod.as_ref().map_or(0o644, |chmod| chmod.apply(0o644, false)))?;
        match self.epoch {
            Some(seconds) => target.set_times(seconds, 0),
            None => Ok(()),
        }
    }

    /// The folder that is copied, and the one that its content goes into.
    fn folders(&self, source: &Path, to: &Destination) -> io::Result<(Place, Place)> {
        self.make_dirs(&to.path)?;
        let from = Place { dir: self.from.dir(source)?.into(), name: ".".into() };
        let to = Place { dir: self.to.dir(&to.path)?.into(), name: ".".into() };
        Ok((from, to))
    }

    /// Where a file goes: into a folder under its name, else to exactly the path that is written, or where a link there
    /// leads.
    fn target(&self, name: &Path, to: &Destination) -> io::Result<Place> {
        let there = self.to.stat(&to.path).is_ok_and(|stat| is_dir(&stat));
        let path = if to.is_folder || there { to.path.join(name) } else { self.to.resolve_missing(&to.path)? };
        let parent = path.parent().unwrap_or(Path::new(""));
        self.make_dirs(parent)?;
        self.to.place(&path)
    }

    fn make_dirs(&self, path: &Path) -> io::Result<()> {
        let mode = self.chmod.as_ref().and_then(Chmod::of_made_folders);
        make_dirs(self.to, path, &Made { owner: self.owner, mode, epoch: self.epoch })
    }

    fn inside(&self, from: &Place, to: &Place, path: &Path) -> io::Result<()> {
        let folder = to.open_folder()?;
        for child in from.children()? {
            halt::check()?;
            let Some(stat) = child.stat()? else { continue };
            let path = path.join(&child.name);
            if !self.excluded(&path, &stat) {
                let target = Place { dir: folder.clone(), name: child.name.clone() };
                self.entry(&child, &stat, &target, &path)?;
            }
        }
        Ok(())
    }

    fn matching(&self, from: &Place, to: &Place, path: &Path, wanted: &Inside) -> io::Result<()> {
        for child in from.children()? {
            halt::check()?;
            let Some(stat) = child.stat()? else { continue };
            let path = path.join(&child.name);
            if self.excluded(&path, &stat) || !wanted.reaches(&path) {
                continue;
            }
            if wanted.covers(&path) {
                let target = Place { dir: to.open_folder()?, name: child.name.clone() };
                self.entry(&child, &stat, &target, &path)?;
            } else if is_dir(&stat) && holds(&child, &path, wanted)? {
                let target = Place { dir: to.open_folder()?, name: child.name.clone() };
                self.make_folder(&target)?;
                self.matching(&child, &target, &path, wanted)?;
                self.finish(&stat, &target)?;
            }
        }
        Ok(())
    }

    fn excluded(&self, path: &Path, stat: &FileStat) -> bool {
        self.excludes.as_ref().is_some_and(|ignore| ignore.excludes(&path.to_string_lossy(), is_dir(stat)))
    }

    fn entry(&self, child: &Place, stat: &FileStat, target: &Place, path: &Path) -> io::Result<()> {
        match kind(stat) {
            SFlag::S_IFDIR => {
                self.make_folder(target)?;
                self.inside(child, target, path)?;
                self.finish(stat, target)
            }
            SFlag::S_IFREG => self.shared(stat, target, || self.file(child.read()?, stat, target)),
            SFlag::S_IFLNK => {
                refuse_folder(target)?;
                target.symlink(&child.read_link()?)?;
                target.set_owner(self.owner_of(stat))?;
                self.set_times(stat, target)
            }
            _ => self.special(stat, target),
        }
    }

    fn special(&self, stat: &FileStat, target: &Place) -> io::Result<()> {
        refuse_folder(target)?;
        match target.special(stat)? {
            true => self.finish(stat, target),
            false => Ok(()),
        }
    }

    /// A further name of a file that was copied is another name of the copy.
    fn shared(&self, stat: &FileStat, target: &Place, copy: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        if stat.st_nlink < 2 {
            return copy();
        }
        let file = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.linked.borrow().get(&file) {
            refuse_folder(target)?;
            return target.hard_link(first);
        }
        copy()?;
        let first = Place { dir: target.dir.clone(), name: target.name.clone() };
        self.linked.borrow_mut().insert(file, first);
        Ok(())
    }

    fn make_folder(&self, target: &Place) -> io::Result<()> {
        match target.stat()? {
            Some(there) if is_dir(&there) => Ok(()),
            Some(_) => Err(Errno::ENOTDIR.into()),
            None => target.make_dir(0o700),
        }
    }

    /// Most files are new, so a name is looked at only where something bears it.
    fn file(&self, from: File, stat: &FileStat, target: &Place) -> io::Result<()> {
        let file = match target.create_new() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                refuse_folder(target)?;
                target.create()?
            }
            created => created?,
        };
        let copied = content(from, file, self.disk)?;
        copied.describe(self.owner_of(stat), self.mode_of(stat), self.time_of(stat))
    }

    /// Owner before mode, because a change of owner clears the set-user-id bit.
    fn finish(&self, stat: &FileStat, target: &Place) -> io::Result<()> {
        target.set_owner(self.owner_of(stat))?;
        target.set_mode(self.mode_of(stat))?;
        self.set_times(stat, target)
    }

    fn set_times(&self, stat: &FileStat, target: &Place) -> io::Result<()> {
        let (seconds, nanos) = self.time_of(stat);
        target.set_times(seconds, nanos)
    }

    /// In seconds and nanoseconds.
    fn time_of(&self, stat: &FileStat) -> (i64, i64) {
        self.epoch.map_or((stat.st_mtime, stat.st_mtime_nsec), |seconds| (seconds, 0))
    }

    fn mode_of(&self, stat: &FileStat) -> u32 {
        let mode = stat.st_mode & 0o7777;
        self.chmod.as_ref().map_or(mode, |chmod| chmod.apply(mode, is_dir(stat)))
    }

    fn owner_of(&self, stat: &FileStat) -> Owner {
        self.owner.unwrap_or(Owner { uid: stat.st_uid, gid: stat.st_gid })
    }
}

/// Whether anything below a folder matches.
fn holds(folder: &Place, path: &Path, wanted: &Inside) -> io::Result<bool> {
    for child in folder.children()? {
        let Some(stat) = child.stat()? else { continue };
        let path = path.join(&child.name);
        if wanted.reaches(&path) && (wanted.covers(&path) || is_dir(&stat) && holds(&child, &path, wanted)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn refuse_folder(target: &Place) -> io::Result<()> {
    match target.stat()? {
        Some(there) if is_dir(&there) => Err(Errno::EISDIR.into()),
        _ => Ok(()),
    }
}

/// What folders are like that had to be made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Made {
    /// `None`: root.
    pub owner: Option<Owner>,
    /// `None`: 0755.
    pub mode: Option<u32>,
    /// Their time in seconds; `None`: now.
    pub epoch: Option<i64>,
}

/// Makes a folder and those above it that are missing.
pub fn make_dirs(root: &Root, path: &Path, made: &Made) -> io::Result<()> {
    let describe = |place: &Place| {
        place.set_owner(made.owner.unwrap_or(Owner::ROOT))?;
        if let Some(mode) = made.mode {
            place.set_mode(mode)?;
        }
        made.epoch.map_or(Ok(()), |seconds| place.set_times(seconds, 0))
    };
    root.make_dirs_as(path, &describe).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::files::Wanted;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    struct Trees {
        temp: tempfile::TempDir,
    }

    /// cap_net_bind_service, permitted and effective.
    const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

    impl Trees {
        fn new() -> Self {
            let temp = tempfile::tempdir().expect("temp folder");
            for folder in ["from/d/s", "from/d/e", "to"] {
                std::fs::create_dir_all(temp.path().join(folder)).expect("folder");
            }
            for (file, mode) in [("from/d/x", 0o4711), ("from/d/s/y.txt", 0o640), ("from/d/s/z.md", 0o644)] {
                std::fs::write(temp.path().join(file), file).expect("file");
                let mode = std::fs::Permissions::from_mode(mode);
                std::fs::set_permissions(temp.path().join(file), mode).expect("mode");
            }
            std::fs::hard_link(temp.path().join("from/d/x"), temp.path().join("from/d/h")).expect("link");
            symlink("x", temp.path().join("from/d/l")).expect("link");
            xattr::set(temp.path().join("from/d/x"), "user.note", b"noted").expect("an attribute");
            xattr::set(temp.path().join("from/d/x"), "security.capability", CAPABILITY).expect("a capability");
            Self { temp }
        }

        fn at(&self, path: &str) -> PathBuf {
            self.temp.path().join("to").join(path)
        }

        fn run(&self, excludes: &str, copy: impl FnOnce(&Copier) -> io::Result<()>) -> io::Result<()> {
            let root = |name: &str| Root::open(&self.temp.path().join(name));
            copy(&Copier {
                from: &root("from")?,
                to: &root("to")?,
                owner: Some(Owner { uid: 5, gid: 6 }),
                chmod: None,
                excludes: (!excludes.is_empty()).then(|| Ignore::parse(excludes)),
                epoch: None,
                disk: self.temp.path(),
                linked: RefCell::default(),
            })
        }

        fn owner(&self, path: &str) -> (u32, u32, u32) {
            let found = self.at(path).symlink_metadata().expect(path);
            (found.uid(), found.gid(), found.mode() & 0o7777)
        }
    }

    #[test]
    fn a_folders_content() {
        let trees = Trees::new();
        let to = Destination::new("/w", "a/b");
        trees.run("", |copier| copier.source(Path::new("d"), &to)).expect("copied");
        assert_eq!(trees.owner("w"), (5, 6, 0o755), "folders on the way are the copy's owner's");
        assert_eq!(trees.owner("w/a/b/x"), (5, 6, 0o4711));
        let xattr = |name| xattr::get(trees.at("w/a/b/x"), name).expect("readable");
        assert_eq!(xattr("user.note").as_deref(), Some(&b"noted"[..]));
        assert_eq!(xattr("security.capability").as_deref(), Some(CAPABILITY), "a change of owner takes it away");
        assert_eq!(trees.owner("w/a/b/s/y.txt"), (5, 6, 0o640));
        let inode = |path: &str| trees.at(path).symlink_metadata().expect(path).ino();
        assert_eq!(inode("w/a/b/x"), inode("w/a/b/h"));
        assert_eq!(std::fs::read_link(trees.at("w/a/b/l")).expect("l"), Path::new("x"));
    }

    #[test]
    fn files_go_into_folders_or_to_the_path() {
        let trees = Trees::new();
        let file = |destination: &str| {
            let to = Destination::new("/", destination);
            trees.run("", |copier| copier.source(Path::new("d/l"), &to))
        };
        file("/new/").expect("into a folder that is made");
        file("/new").expect("into a folder that is there");
        file("/plain").expect("to the path");
        assert!(trees.at("new/l").symlink_metadata().expect("l").is_file(), "the source itself is followed");
        assert!(trees.at("plain").is_file());
        symlink("plain", trees.at("link")).expect("link");
        file("/link").expect("through a link");
        assert!(trees.at("link").symlink_metadata().expect("link").is_symlink());
        assert!(file("/plain/x").is_err(), "a file is no folder");
        std::fs::create_dir_all(trees.at("full/l")).expect("folder");
        assert!(file("/full/").is_err(), "a folder is not replaced");
        symlink("/etc", trees.at("outside")).expect("link");
        file("/outside/").expect("stays inside");
        assert!(trees.at("etc/l").is_file());
    }

    #[test]
    fn what_is_left_out_and_what_parents_keep() {
        let trees = Trees::new();
        let to = Destination::new("/", "/out/");
        trees.run("**/*.md", |copier| copier.source(Path::new("d"), &to)).expect("copied");
        assert!(trees.at("out/s/y.txt").exists() && !trees.at("out/s/z.md").exists());
        for (word, there, missing) in [
            ("d/s/*.txt", "p1/d/s/y.txt", "p1/d/x"),
            ("d/./s/y.txt", "p2/s/y.txt", "p2/d"),
            ("d/*/z.md", "p3/d/s/z.md", "p3/d/e"),
            ("d/s", "p4/d/s/z.md", "p4/d/x"),
        ] {
            let wanted = Wanted::new(word, true);
            let root = Root::open(&trees.temp.path().join("from")).expect("root");
            let found = wanted.find(&root).expect("read").expect("there");
            let (to, inside) = (Destination::new("/", &there[..2]), wanted.inside.expect("a pattern"));
            trees.run("", |copier| copier.parents(&found[0], &inside, &to)).expect(word);
            assert!(trees.at(there).exists(), "{word}: {there}");
            assert!(!trees.at(missing).exists(), "{word}: {missing}");
        }
    }
}
