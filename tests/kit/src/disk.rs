//! A fresh ext4 of a given size, mounted through a loop device; taken down when dropped.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::engine::run_command;

/// A mounted file system of its own.
#[derive(Debug)]
pub struct LoopDisk {
    folder: TempDir,
    root: PathBuf,
}

impl LoopDisk {
    /// Makes and mounts one of so many megabytes (sparse: it takes only what is written).
    pub fn new(size_mb: u64) -> Self {
        let folder = tempfile::Builder::new().prefix("disk.").tempdir_in("/tmp").expect("a temporary folder");
        let image = folder.path().join("image");
        let file = std::fs::File::create(&image).expect("make the image");
        file.set_len(size_mb << 20).expect("size the image");
        let root = folder.path().join("fs");
        let disk = Self { folder, root };
        std::fs::create_dir(disk.path()).expect("make the mount point");
        let image = image.to_string_lossy().into_owned();
        run_command(
            Command::new("mkfs.ext4").env("PATH", crate::boxyard::search_path()),
            &["-q", "-m", "0", &image],
            None,
        )
        .ok();
        // The kernel would go on to write inode tables beside what is measured here.
        let options = "loop,noinit_itable";
        run_command(&mut Command::new("mount"), &["-o", options, &image, &disk.path().to_string_lossy()], None).ok();
        disk
    }

    /// Fills it with a file, so that only so many bytes are free.
    pub fn leave(&self, bytes: u64) {
        self.make_room();
        let stat = nix::sys::statvfs::statvfs(self.path()).expect("the file system answers");
        let free = stat.blocks_available() * stat.fragment_size();
        let length = free.checked_sub(bytes).expect("there is as much room").to_string();
        run_command(&mut Command::new("fallocate"), &["-l", &length, &self.filler().to_string_lossy()], None).ok();
    }

    /// Takes away what [`Self::leave`] has put there.
    pub fn make_room(&self) {
        let _ = std::fs::remove_file(self.filler());
    }

    fn filler(&self) -> PathBuf {
        self.root.join("filler")
    }

    /// The root of the file system.
    pub fn path(&self) -> &Path {
        &self.root
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        crate::leftovers::sweep(self.folder.path());
    }
}
