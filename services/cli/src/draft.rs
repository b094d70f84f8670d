//! Files that are in their place once they are whole.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::NamedTempFile;

/// A file without a place, in the folder of its later one.
pub fn begin(folder: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(".boxyard-").tempfile_in(folder)
}

/// Puts it where everybody may read it, in place of what was there.
pub fn finish(draft: NamedTempFile, place: &Path) -> io::Result<()> {
    draft.as_file().set_permissions(Permissions::from_mode(0o644))?;
    draft.persist(place).map(drop).map_err(|error| error.error)
}
