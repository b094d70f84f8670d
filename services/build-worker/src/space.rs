//! Free space: builds stop at a floor, so that the bus and the database on the same disk can go on.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;

use crate::halt;

/// What builds leave free.
pub const FLOOR_BYTES: u64 = 128 << 20;
/// How often a running step's disk is looked at: a fast disk takes some 50 MB meanwhile.
const PERIOD: Duration = Duration::from_millis(50);
/// A reader that is unpacked looks again after so much.
const CHECK_BYTES: u64 = 16 << 20;

/// Bytes that are free on the file system of a folder; 0 when it cannot be asked.
pub fn free_bytes(folder: &Path) -> u64 {
    nix::sys::statvfs::statvfs(folder).map_or(0, |stat| stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// `StorageFull` when writing so many bytes would pass the floor.
pub fn ensure(folder: &Path, bytes: u64) -> io::Result<()> {
    match free_bytes(folder) >= FLOOR_BYTES.saturating_add(bytes) {
        true => Ok(()),
        false => Err(Errno::ENOSPC.into()),
    }
}

/// Whether the files below a folder have no more than so many bytes. A folder that cannot be read has more.
pub fn is_within(folder: &Path, most_bytes: u64) -> bool {
    let (mut waiting, mut left) = (vec![folder.to_owned()], most_bytes);
    while let Some(folder) = waiting.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { return false };
        for entry in entries {
            // Links are not followed.
            let Ok((entry, stat)) = entry.and_then(|entry| entry.metadata().map(|stat| (entry, stat))) else {
                return false;
            };
            match stat.is_dir() {
                true => waiting.push(entry.path()),
                false if stat.len() > left => return false,
                false => left -= stat.len(),
            }
        }
    }
    true
}

/// Returns when the file system of a folder is down to the floor.
pub async fn exhausted(folder: &Path) {
    while free_bytes(folder) >= FLOOR_BYTES {
        tokio::time::sleep(PERIOD).await;
    }
}

/// A reader that fails when what is read can no longer be written, or is no longer wanted.
pub struct Watched<R> {
    inner: R,
    folder: PathBuf,
    unchecked: u64,
}

impl<R> Watched<R> {
    /// Looks at `folder`'s file system from the first byte on.
    pub fn new(inner: R, folder: &Path) -> Self {
        Self { inner, folder: folder.to_owned(), unchecked: CHECK_BYTES }
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        halt::check()?;
        if self.unchecked >= CHECK_BYTES {
            ensure(&self.folder, CHECK_BYTES)?;
            self.unchecked = 0;
        }
        let length = self.inner.read(buffer)?;
        self.unchecked += length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_and_links_not_followed() {
        let temp = tempfile::tempdir().expect("temp folder");
        std::fs::create_dir(temp.path().join("d")).expect("made");
        std::fs::write(temp.path().join("d/a"), [0; 600]).expect("written");
        std::fs::write(temp.path().join("b"), [0; 400]).expect("written");
        std::os::unix::fs::symlink("/", temp.path().join("d/l")).expect("linked");
        for (most, fits) in [(0, false), (1000, false), (1001, true), (u64::MAX, true)] {
            assert_eq!(is_within(temp.path(), most), fits, "{most}");
        }
        assert!(!is_within(&temp.path().join("none"), u64::MAX));
    }

    #[test]
    fn what_cannot_fit_is_refused() {
        let temp = tempfile::tempdir().expect("temp folder");
        assert!(ensure(temp.path(), 0).is_ok(), "the test needs some free space");
        let error = ensure(temp.path(), u64::MAX).expect_err("too much");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let mut read = String::new();
        Watched::new(&b"text"[..], temp.path()).read_to_string(&mut read).expect("read");
        assert_eq!(read, "text");
        let nowhere = Watched::new(&b"text"[..], Path::new("/nonexistent")).read_to_string(&mut read);
        assert!(nowhere.is_err(), "a disk that cannot be asked counts as full");
    }
}
