//! Tar streams of `cp`. What comes out of a container is hostile: no entry leaves the
//! target, neither by its name nor through a link that an earlier entry made.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use tar::{Archive, Builder, EntryType, Header};

/// The first part of each name, and what it becomes; empty takes it away.
pub struct Rename {
    pub from: String,
    pub to: String,
}

/// Gives the number of bytes written.
pub fn unpack(from: impl Read, folder: &Path, rename: &Rename, owner: bool) -> io::Result<u64> {
    let mut archive = Archive::new(from);
    let mut written = 0;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let Some(relative) = inside(&name, rename) else { continue };
        if !name.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
            return Err(refused(&name, "leaves its folder"));
        }
        let path = folder.join(&relative);
        no_link_above(folder, &relative)?;
        let mode = entry.header().mode()? & 0o7777;
        match entry.header().entry_type() {
            EntryType::Directory => {
                if !path.is_dir() {
                    fs::create_dir(&path)?;
                }
                fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            }
            EntryType::Regular | EntryType::Continuous => {
                replace(&path)?;
                let mut options = OpenOptions::new();
                let mut file = options.write(true).create_new(true).mode(0o600).open(&path)?;
                written += io::copy(&mut entry, &mut file)?;
                file.set_permissions(fs::Permissions::from_mode(mode))?;
                let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(entry.header().mtime()?);
                file.set_modified(time)?;
            }
            EntryType::Symlink => {
                replace(&path)?;
                let target = entry.link_name()?.ok_or_else(|| refused(&name, "is a link to nothing"))?;
                symlink(target, &path)?;
            }
            EntryType::Link => {
                let target = entry.link_name()?.ok_or_else(|| refused(&name, "is a link to nothing"))?.into_owned();
                let target = inside(&target, rename).ok_or_else(|| refused(&name, "links outside"))?;
                if !target.components().all(|c| matches!(c, Component::Normal(_))) {
                    return Err(refused(&name, "links outside"));
                }
                no_link_above(folder, &target)?;
                replace(&path)?;
                fs::hard_link(folder.join(target), &path)?;
            }
            // Devices and pipes of a container are not made here.
            _ => continue,
        }
        if owner {
            let (uid, gid) = (entry.header().uid()? as u32, entry.header().gid()? as u32);
            std::os::unix::fs::lchown(&path, Some(uid), Some(gid))?;
        }
    }
    Ok(written)
}

fn refused(name: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the archive's entry {} {why}", name.display()))
}

/// The name with its first part exchanged; nothing for the folder itself when it is taken away.
fn inside(name: &Path, rename: &Rename) -> Option<PathBuf> {
    let mut parts = name.components().filter(|c| !matches!(c, Component::CurDir)).peekable();
    let first = parts.peek().map(|c| c.as_os_str().to_owned())?;
    let mut out = PathBuf::new();
    if !rename.from.is_empty() && first == rename.from.as_str() {
        parts.next();
        if !rename.to.is_empty() {
            out.push(&rename.to);
        }
    }
    out.extend(parts);
    (!out.as_os_str().is_empty()).then_some(out)
}

/// # Errors
/// A folder above the path is a link.
pub fn no_link_above(folder: &Path, relative: &Path) -> io::Result<()> {
    let mut path = folder.to_owned();
    let parts: Vec<_> = relative.components().collect();
    for part in parts.iter().take(parts.len().saturating_sub(1)) {
        path.push(part);
        if path.symlink_metadata()?.is_symlink() {
            return Err(refused(relative, "goes through a link"));
        }
    }
    Ok(())
}

/// Removes what is no folder, so that nothing is written through a link.
///
/// # Errors
/// It is a folder.
pub fn replace(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => {
            Err(io::Error::other(format!("cannot overwrite directory {} with non-directory", path.display())))
        }
        Ok(_) => fs::remove_file(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

/// A tar of a local file or folder under the name that it shall have; an empty name packs
/// what the folder holds.
pub fn pack(source: &Path, name: &str, follow: bool) -> io::Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    pack_one(&mut tar, source, name, follow)?;
    tar.into_inner()
}

fn pack_one(tar: &mut Builder<Vec<u8>>, source: &Path, name: &str, follow: bool) -> io::Result<()> {
    let metadata = if follow || source.as_os_str().as_encoded_bytes().ends_with(b"/") {
        source.metadata()?
    } else {
        source.symlink_metadata()?
    };
    let mut header = Header::new_gnu();
    header.set_mode(metadata.mode() & 0o7777);
    header.set_uid(metadata.uid().into());
    header.set_gid(metadata.gid().into());
    header.set_mtime(metadata.mtime().max(0) as u64);
    header.set_size(0);
    let kind = metadata.file_type();
    if kind.is_symlink() {
        header.set_entry_type(EntryType::Symlink);
        return tar.append_link(&mut header, name, fs::read_link(source)?);
    }
    if kind.is_file() {
        header.set_size(metadata.len());
        let file = File::open(source)?;
        return tar.append_data(&mut header, name, file.chain(io::repeat(0)).take(metadata.len()));
    }
    if !kind.is_dir() {
        return Ok(());
    }
    if !name.is_empty() {
        header.set_entry_type(EntryType::Directory);
        tar.append_data(&mut header, format!("{name}/"), io::empty())?;
    }
    let mut entries = fs::read_dir(source)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let own = entry.file_name().to_string_lossy().into_owned();
        let within = if name.is_empty() { own } else { format!("{name}/{own}") };
        pack_one(tar, &entry.path(), &within, false)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("unpack-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("folder");
        path
    }

    fn hostile(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut tar = Builder::new(Vec::new());
        for (name, kind, target) in entries {
            let mut header = Header::new_ustar();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_size(0);
            header.set_cksum();
            tar.append(&header, io::empty()).expect("appended");
        }
        tar.into_inner().expect("finished")
    }

    #[test]
    fn hostile_archives_stay_inside() {
        let root = scratch("hostile");
        let none = Rename { from: "x".into(), to: "x".into() };
        for entries in [
            vec![("../out", EntryType::Regular, "")],
            vec![("/out", EntryType::Regular, "")],
            vec![("l", EntryType::Symlink, "/tmp"), ("l/out", EntryType::Regular, "")],
            vec![("h", EntryType::Link, "../../etc/passwd")],
        ] {
            let result = unpack(hostile(&entries).as_slice(), &root, &none, false);
            assert!(result.is_err(), "{entries:?}");
        }
        fs::remove_dir_all(&root).expect("removed");
    }

    #[test]
    fn there_and_back_with_another_name() {
        let root = scratch("back");
        fs::create_dir_all(root.join("a/b")).expect("folder");
        fs::write(root.join("a/b/f"), "text").expect("file");
        let tar = pack(&root.join("a"), "a", false).expect("packed");
        unpack(tar.as_slice(), &root, &Rename { from: "a".into(), to: "z".into() }, false).expect("unpacked");
        assert_eq!(fs::read_to_string(root.join("z/b/f")).expect("there"), "text");
        fs::remove_dir_all(&root).expect("removed");
    }
}
