//! A file's content, copied.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::Path;

use xattr::FileExt as _;

use super::hash;
use crate::halt;
use crate::rooted::{self, Owner};
use crate::space;

/// A file of more is copied by the kernel alone, which takes more calls.
const SMALL_BYTES: u64 = 128 << 10;
/// So much at once.
const LARGE_BYTES: u64 = 64 << 20;

/// A copy that has its content, but not yet the attributes of its source.
#[must_use]
pub struct Copied {
    file: File,
    xattrs: Vec<(String, Vec<u8>)>,
}

/// Fills `to`, a new file, with the content of another; `disk` is a folder on the disk that is written to.
pub fn content(mut from: File, mut to: File, disk: &Path) -> io::Result<Copied> {
    let bytes = from.metadata()?.len();
    halt::check()?;
    space::ensure(disk, bytes)?;
    match bytes > SMALL_BYTES {
        true => copy_large(&mut from, &mut to)?,
        false => copy_small(&mut from, &mut to, bytes)?,
    }
    Ok(Copied { file: to, xattrs: hash::xattrs(&from, hash::is_copied)? })
}

fn copy_large(from: &mut File, to: &mut File) -> io::Result<()> {
    while io::copy(&mut Read::take(&mut *from, LARGE_BYTES), to)? > 0 {
        halt::check()?;
    }
    Ok(())
}

fn copy_small(from: &mut File, to: &mut File, bytes: u64) -> io::Result<()> {
    let mut buffer = vec![0; usize::try_from(bytes).unwrap_or_default() + 1];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => to.write_all(&buffer[..count])?,
        }
    }
}

impl Copied {
    /// After the owner, whose change takes a file's rights by capability away.
    pub fn set_attributes(self) -> io::Result<()> {
        self.xattrs.iter().try_for_each(|(name, value)| self.file.set_xattr(name, value))
    }

    /// Sets all that a file has besides its content, as [`rooted::describe`] does, and the attributes of its source.
    pub fn describe(self, owner: Owner, mode: u32, time: (i64, i64)) -> io::Result<()> {
        rooted::describe(&self.file, owner, mode, time)?;
        self.set_attributes()
    }
}
