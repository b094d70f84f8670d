use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

/// Prefix of an entry that removes the name after it from the layers below.
pub const PREFIX: &str = ".wh.";
/// Prefix of aufs' own files, which mean nothing here.
pub const META_PREFIX: &str = ".wh..wh.";
/// Entry that hides everything that the layers below have in its folder.
pub const OPAQUE_ENTRY: &str = ".wh..wh..opq";
/// The same in overlayfs: this attribute of the folder, with the value `y`.
pub const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

/// Overlayfs' whiteout: a character device 0/0.
pub fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

/// A folder that hides the layers below it. `path` is of our own making: its parts are known not to be links.
pub fn is_opaque(path: &Path) -> io::Result<bool> {
    Ok(xattr::get(path, OPAQUE_XATTR)?.is_some_and(|value| value == b"y"))
}

/// Attributes that may pass between a tar and a file: never overlayfs' own, which would change what a mount shows.
pub fn is_portable_xattr(name: &str) -> bool {
    name == "security.capability"
        || name.starts_with("system.posix_acl_")
        || (name.starts_with("user.") && !name.starts_with("user.overlay."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlay_attributes_never_pass() {
        for (name, passes) in [
            ("security.capability", true),
            ("user.mime_type", true),
            ("trusted.overlay.redirect", false),
            ("trusted.overlay.opaque", false),
            ("user.overlay.opaque", false),
            ("security.selinux", false),
        ] {
            assert_eq!(is_portable_xattr(name), passes, "{name}");
        }
    }
}
