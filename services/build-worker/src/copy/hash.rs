//! The digest of what a source holds: a step's cache key depends on it. Times do not count, names and modes do.

use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::sys::stat::FileStat;
use sha2::{Digest as _, Sha256};

use crate::rooted::{Place, Root, is_dir, is_file, is_link};

/// Whether owners count: they do where they are kept.
#[derive(Clone, Copy)]
pub struct Rules {
    pub owners: bool,
}

/// Says of a path in a folder, and whether it is a folder itself, that it does not count.
pub type LeavesOut<'a> = dyn Fn(&Path, bool) -> bool + 'a;

/// `file:<hex>` or `dir:<hex>` of what a path leads to.
pub fn of(root: &Root, path: &Path, rules: Rules) -> io::Result<String> {
    of_some(root, path, rules, &|_, _| false)
}

/// As [`of`], without what `leaves_out` says of a folder's content; it is asked of paths relative to the folder.
pub fn of_some(root: &Root, path: &Path, rules: Rules, leaves_out: &LeavesOut) -> io::Result<String> {
    let stat = root.stat(path)?;
    let mut hasher = Sha256::new();
    if is_dir(&stat) {
        let folder = Place { dir: root.dir(path)?.into(), name: ".".into() };
        inside(&folder, Path::new(""), &mut hasher, (rules, leaves_out))?;
        return Ok(format!("dir:{}", hex::encode(hasher.finalize())));
    }
    head(&stat, path.file_name().map(Path::new).unwrap_or(path), &mut hasher, rules);
    content(root.read(path)?, &mut hasher)?;
    Ok(format!("file:{}", hex::encode(hasher.finalize())))
}

/// `file:<hex>` of content that lies in the Dockerfile itself.
pub fn of_text(name: &str, content: &str) -> String {
    format!("file:{}", hex::encode(Sha256::new().chain_update(name).chain_update([0]).chain_update(content).finalize()))
}

/// The hash that several sources have together; of one, it is its own.
pub fn together(hashes: &[String]) -> String {
    match hashes {
        [one] => one.clone(),
        many => format!("multi:{}", hex::encode(Sha256::digest(many.join(",")))),
    }
}

fn inside(
    folder: &Place,
    path: &Path,
    hasher: &mut Sha256,
    (rules, leaves_out): (Rules, &LeavesOut),
) -> io::Result<()> {
    for child in folder.children()? {
        let Some(stat) = child.stat()? else { continue };
        let path = path.join(&child.name);
        if leaves_out(&path, is_dir(&stat)) {
            continue;
        }
        head(&stat, &path, hasher, rules);
        if is_dir(&stat) {
            inside(&child, &path, hasher, (rules, leaves_out))?;
        } else if is_link(&stat) {
            hasher.update(child.read_link()?.as_bytes());
        } else if is_file(&stat) {
            content(child.read()?, hasher)?;
        }
    }
    Ok(())
}

fn head(stat: &FileStat, path: &Path, hasher: &mut Sha256, rules: Rules) {
    let name = path.as_os_str().as_bytes();
    hasher.update((name.len() as u64).to_be_bytes());
    hasher.update(name);
    hasher.update(stat.st_mode.to_be_bytes());
    let size = if is_dir(stat) { 0 } else { stat.st_size };
    hasher.update(size.to_be_bytes());
    if rules.owners {
        hasher.update(stat.st_uid.to_be_bytes());
        hasher.update(stat.st_gid.to_be_bytes());
    }
}

fn content(mut file: std::fs::File, hasher: &mut Sha256) -> io::Result<()> {
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            length => hasher.update(&buffer[..length]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_the_hash() {
        let temp = tempfile::tempdir().expect("temp folder");
        let at = |name: &str| temp.path().join(name);
        std::fs::create_dir(at("d")).expect("folder");
        std::fs::write(at("d/x"), "1").expect("file");
        let root = Root::open(temp.path()).expect("root");
        let hash = |path: &str| of(&root, Path::new(path), Rules { owners: false }).expect("hash");
        let (file, dir) = (hash("d/x"), hash("d"));
        assert!(file.starts_with("file:") && dir.starts_with("dir:"));
        std::fs::File::options()
            .write(true)
            .open(at("d/x"))
            .and_then(|file| file.set_modified(std::time::UNIX_EPOCH))
            .expect("time");
        assert_eq!((hash("d/x"), hash("d")), (file.clone(), dir.clone()), "times do not count");
        std::fs::write(at("d/x"), "2").expect("file");
        assert_ne!(hash("d/x"), file);
        assert_ne!(hash("d"), dir);
        std::fs::write(at("d/x"), "1").expect("file");
        assert_eq!(hash("d"), dir);
        std::fs::write(at("d/y"), "").expect("file");
        assert_ne!(hash("d"), dir, "a new name counts");
    }
}
