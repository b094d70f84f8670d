use std::path::Path;

use crate::Error;

/// Bytes that a process may still write on the file system of `path`.
pub(crate) fn free_bytes(path: &Path) -> Result<u64, Error> {
    let stat =
        nix::sys::statvfs::statvfs(path).map_err(|errno| Error::io("asking for the free space")(errno.into()))?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// # Errors
/// `NoSpace` when writing `more_bytes` would leave less than `floor_bytes`.
pub(crate) fn ensure_free(path: &Path, floor_bytes: u64, more_bytes: u64) -> Result<(), Error> {
    if free_bytes(path)? < floor_bytes.saturating_add(more_bytes) { Err(Error::NoSpace) } else { Ok(()) }
}
