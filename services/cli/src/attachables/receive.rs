//! The receiving side of fsutil's protocol: files of a build's result into a folder of this machine. The build was
//! made by others: no file leaves the folder, neither by its name nor through a link.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::unpack::{no_link_above, replace};

/// Bits of Go's os.FileMode.
const FOLDER: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;
const SPECIAL: u32 = (1 << 26) | (1 << 25) | (1 << 24) | (1 << 21) | (1 << 19);

/// Receives files until all that were listed are there.
pub async fn receive(
    root: &Path,
    mut packets: Streaming<Packet>,
    to_daemon: &mpsc::Sender<Result<Packet, Status>>,
) -> io::Result<()> {
    let packet = |what: PacketType, id: u32| Packet { r#type: what.into(), id, ..Packet::default() };
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    fs::create_dir_all(root)?;
    let mut files = Files { root, next: 0, wanted: HashMap::new(), folders: Vec::new() };
    let mut is_listed = false;
    while let Some(got) = packets.message().await.map_err(|status| io::Error::other(status.message().to_owned()))? {
        match got.r#type() {
            PacketType::PacketStat => match got.stat {
                Some(stat) => {
                    if let Some(id) = files.stat(&stat)? {
                        to_daemon.send(Ok(packet(PacketType::PacketReq, id))).await.map_err(gone)?;
                    }
                }
                None => is_listed = true,
            },
            PacketType::PacketData => files.data(got.id, &got.data)?,
            PacketType::PacketErr => return Err(io::Error::other(String::from_utf8_lossy(&got.data).into_owned())),
            PacketType::PacketFin => return files.finish(),
            PacketType::PacketReq => return Err(io::Error::other("the daemon asks for a file of its own")),
        }
        if is_listed && files.wanted.is_empty() {
            is_listed = false;
            to_daemon.send(Ok(packet(PacketType::PacketFin, 0))).await.map_err(gone)?;
        }
    }
    Err(io::Error::from(io::ErrorKind::UnexpectedEof))
}

struct Files<'a> {
    root: &'a Path,
    next: u32,
    wanted: HashMap<u32, (File, Stat)>,
    /// Their modes are set at the end: one that may not be written must be filled first.
    folders: Vec<(PathBuf, u32)>,
}

impl Files<'_> {
    /// Makes what has no content; gives the id to ask for the rest by.
    fn stat(&mut self, stat: &Stat) -> io::Result<Option<u32>> {
        let id = self.next;
        self.next = id.checked_add(1).ok_or_else(|| io::Error::other("too many files"))?;
        let relative = inside(&stat.path)?;
        no_link_above(self.root, &relative)?;
        let path = self.root.join(&relative);
        let mode = stat.mode & 0o777;
        if stat.mode & FOLDER != 0 {
            if !path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
                replace(&path)?;
                fs::create_dir(&path)?;
            }
            self.folders.push((path, mode));
            return Ok(None);
        }
        // Devices and pipes of an image are not made here.
        if stat.mode & SPECIAL != 0 {
            return Ok(None);
        }
        replace(&path)?;
        if stat.mode & SYMLINK != 0 {
            return symlink(&stat.linkname, &path).map(|()| None);
        }
        if !stat.linkname.is_empty() {
            let first = inside(&stat.linkname)?;
            no_link_above(self.root, &first)?;
            return fs::hard_link(self.root.join(first), &path).map(|()| None);
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        self.wanted.insert(id, (file, stat.clone()));
        Ok(Some(id))
    }

    fn data(&mut self, id: u32, bytes: &[u8]) -> io::Result<()> {
        let unasked = || io::Error::other(format!("file {id} was not asked for"));
        if !bytes.is_empty() {
            return self.wanted.get_mut(&id).ok_or_else(unasked)?.0.write_all(bytes);
        }
        let (file, stat) = self.wanted.remove(&id).ok_or_else(unasked)?;
        file.set_permissions(fs::Permissions::from_mode(stat.mode & 0o777))?;
        let time = u64::try_from(stat.mod_time).ok().and_then(|ns| UNIX_EPOCH.checked_add(Duration::from_nanos(ns)));
        time.map_or(Ok(()), |time| file.set_modified(time))
    }

    fn finish(self) -> io::Result<()> {
        for (path, mode) in self.folders.into_iter().rev() {
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    }
}

/// A path of the daemon's, which must stay inside.
fn inside(path: &str) -> io::Result<PathBuf> {
    let is_clean = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    let path = path.trim_start_matches('/');
    match path.split('/').all(is_clean) {
        true => Ok(PathBuf::from(path)),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, format!("the file {path:?} leaves its folder"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_in_their_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("out");
        fs::create_dir(&root).expect("a folder");
        symlink("/", root.join("old")).expect("a link");
        let mut files = Files { root: &root, next: 0, wanted: HashMap::new(), folders: Vec::new() };
        let stat = |path: &str, mode: u32, linkname: &str| Stat {
            path: path.to_owned(),
            mode,
            linkname: linkname.to_owned(),
            ..Default::default()
        };
        for hostile in ["../x", "a/../../x", "", "old/x"] {
            assert!(files.stat(&stat(hostile, 0o644, "")).is_err(), "{hostile}");
        }
        assert!(files.stat(&stat("hard", 0o644, "../secret")).is_err());
        assert_eq!(files.stat(&stat("dir", FOLDER | 0o555, "")).expect("a folder"), None);
        let id = files.stat(&stat("dir/x", 0o755, "")).expect("a file").expect("asked for");
        files.data(id, b"hi").and_then(|()| files.data(id, b"")).expect("written");
        assert!(files.data(id, b"more").is_err());
        files.stat(&stat("dir/y", SYMLINK | 0o777, "../../anywhere")).expect("a link names what it likes");
        files.finish().expect("finished");
        assert_eq!(fs::read(root.join("dir/x")).expect("read"), b"hi");
    }
}
