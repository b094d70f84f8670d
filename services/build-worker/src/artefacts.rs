//! What the OCI runtime makes in a root only to mount on it, and what goes again before the root becomes a layer.

use std::io;
use std::path::{Path, PathBuf};

use nix::sys::stat::FileStat;

use crate::rooted::{Place, Root, clean, is_dir, is_file};

/// Docker's mark of a container.
const DOCKER_MARK: &str = ".dockerenv";
/// Folders that the runtime mounts on.
const FOLDERS: [&str; 3] = ["proc", "sys", "dev"];

/// Noted before a container runs, removed from its writable folder afterwards.
#[derive(Debug, Default)]
pub struct Artefacts {
    /// Paths that are not in the image: mount points, and folders above them.
    made: Vec<PathBuf>,
    /// Folders of the image whose copy in the writable folder may have no other cause, as they were.
    touched: Vec<(PathBuf, FileStat)>,
}

impl Artefacts {
    /// Looks for the mount points that are missing in a mounted root; `targets` are further ones.
    pub fn prepare(root: &Path, targets: &[String]) -> io::Result<Self> {
        let root = Root::open(root)?;
        let mut artefacts = Self::default();
        for target in FOLDERS.into_iter().chain(targets.iter().map(String::as_str)) {
            artefacts.note(&root, &clean(Path::new(target)))?;
        }
        Ok(artefacts)
    }

    /// Makes Docker's mark of a container, which goes again like a mount point.
    pub fn mark(&mut self, root: &Path) -> io::Result<()> {
        let root = Root::open(root)?;
        self.note(&root, Path::new(DOCKER_MARK))?;
        let mark = root.place(Path::new(DOCKER_MARK))?;
        if mark.stat()?.is_none() {
            mark.create()?;
            mark.set_mode(0o755)?;
        }
        Ok(())
    }

    fn note(&mut self, root: &Root, target: &Path) -> io::Result<()> {
        if root.stat(target).is_ok() {
            return Ok(());
        }
        // A link to nothing leads to where the mount point will be made.
        let mut path = root.resolve_missing(target)?;
        loop {
            self.made.push(path.clone());
            let Some(parent) = path.parent() else { return Ok(()) };
            match root.stat(parent) {
                Ok(_) if parent.as_os_str().is_empty() => return Ok(()),
                Ok(stat) => {
                    self.touched.push((parent.to_owned(), stat));
                    return Ok(());
                }
                Err(_) => path = parent.to_owned(),
            }
        }
    }

    /// Removes from the unmounted writable folder what is still as the runtime made it.
    pub fn remove(&self, upper: &Path) -> io::Result<()> {
        let upper = Root::open(upper)?;
        for path in &self.made {
            let Some((place, stat)) = find(&upper, path)? else { continue };
            let untouched = match (is_dir(&stat), is_file(&stat)) {
                (true, _) => place.children()?.is_empty(),
                (_, true) => stat.st_size == 0,
                _ => false,
            };
            if untouched {
                place.remove()?;
            }
        }
        for (path, before) in &self.touched {
            let Some((place, stat)) = find(&upper, path)? else { continue };
            let same = (stat.st_mode, stat.st_uid, stat.st_gid) == (before.st_mode, before.st_uid, before.st_gid);
            if is_dir(&stat) && same && place.children()?.is_empty() && !is_opaque(&upper, path)? {
                place.remove()?;
            }
        }
        Ok(())
    }
}

fn find(upper: &Root, path: &Path) -> io::Result<Option<(Place, FileStat)>> {
    let place = match upper.place(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        other => other?,
    };
    Ok(place.stat()?.map(|stat| (place, stat)))
}

fn is_opaque(upper: &Root, path: &Path) -> io::Result<bool> {
    use std::os::fd::AsRawFd as _;
    let folder = upper.read(path)?;
    let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
    match xattr::get(path, "trusted.overlay.opaque") {
        // A file system without such attributes has no opaque folders.
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EOPNOTSUPP as i32) => Ok(false),
        other => Ok(other?.is_some()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The image and the writable folder stand for the two sides of an overlay.
    fn trees() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let temp = tempfile::tempdir().expect("temp folder");
        let (root, upper) = (temp.path().join("root"), temp.path().join("upper"));
        for folder in [root.join("etc"), root.join("proc"), upper.clone()] {
            std::fs::create_dir_all(folder).expect("folder");
        }
        (temp, root, upper)
    }

    fn run(root: &Path, upper: &Path, wrote: &[(&str, &str)]) {
        let files = ["/etc/hosts".to_owned(), "/etc/resolv.conf".to_owned()];
        let mut artefacts = Artefacts::prepare(root, &files).expect("prepared");
        artefacts.mark(root).expect("marked");
        for (path, content) in [("sys/", ""), ("dev/", ""), ("etc/hosts", ""), (DOCKER_MARK, "")].iter().chain(wrote) {
            let path_in = upper.join(path);
            if path.ends_with('/') {
                std::fs::create_dir_all(path_in).expect("folder");
            } else {
                std::fs::create_dir_all(path_in.parent().expect("parent")).expect("folder");
                std::fs::write(path_in, content).expect("file");
            }
        }
        artefacts.remove(upper).expect("removed");
    }

    #[test]
    fn nothing_stays_of_a_step_that_changed_nothing() {
        let (_temp, root, upper) = trees();
        run(&root, &upper, &[]);
        assert_eq!(std::fs::read_dir(&upper).expect("list").count(), 0);
    }

    #[test]
    fn what_the_command_wrote_stays() {
        let (_temp, root, upper) = trees();
        run(&root, &upper, &[("etc/passwd", "x"), ("dev/file", "y")]);
        assert!(upper.join("etc/passwd").exists() && upper.join("dev/file").exists());
        assert!(!upper.join("etc/hosts").exists() && !upper.join("sys").exists());
    }
}
