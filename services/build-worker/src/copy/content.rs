//! A file's content, copied.

use std::fs::File;
use std::io;
use std::path::Path;

use xattr::FileExt as _;

use super::hash;
use crate::rooted::Place;
use crate::space;

/// A copy that has its content, but not yet the attributes of its source.
#[must_use]
pub struct Copied {
    file: File,
    xattrs: Vec<(String, Vec<u8>)>,
}

/// Makes `to` a new file with the content of another; `disk` is a folder on the disk that is written to.
pub fn content(mut from: File, to: &Place, disk: &Path) -> io::Result<Copied> {
    space::ensure(disk, from.metadata()?.len())?;
    let mut file = to.create()?;
    io::copy(&mut from, &mut file)?;
    Ok(Copied { file, xattrs: hash::xattrs(&from)? })
}

impl Copied {
    /// After the owner, whose change takes a file's rights by capability away.
    pub fn set_attributes(self) -> io::Result<()> {
        self.xattrs.iter().try_for_each(|(name, value)| self.file.set_xattr(name, value))
    }
}
