//! fsutil's Stat (types/stat.proto of tonistiigi/fsutil): its mode has Go's bits of os.FileMode.

use bollard_buildkit_proto::fsutil::types::Stat;

use crate::{Entry, Error, Kind, Sha256Digest};

const GO_FOLDER: u32 = 1 << 31;
const GO_SYMLINK: u32 = 1 << 27;
const GO_DEVICE: u32 = 1 << 26;
const GO_FIFO: u32 = 1 << 25;
const GO_SOCKET: u32 = 1 << 24;
const GO_SETUID: u32 = 1 << 23;
const GO_SETGID: u32 = 1 << 22;
const GO_CHARACTER: u32 = 1 << 21;
const GO_STICKY: u32 = 1 << 20;
const GO_IRREGULAR: u32 = 1 << 19;
/// Any of these: not a regular file, and no content can be asked for.
const GO_TYPE: u32 = GO_FOLDER | GO_SYMLINK | GO_DEVICE | GO_FIFO | GO_SOCKET | GO_CHARACTER | GO_IRREGULAR;

/// Boxyard's own clients put the SHA-256 of a file's content here (32 bytes), so that content which the store has is
/// not sent. It is no attribute of the file.
pub const SHA256_XATTR: &str = "boxyard.sha256";

/// What a Stat says of a regular file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileStat {
    pub size: u64,
    pub sha256: Option<Sha256Digest>,
    /// Of a hard link.
    pub first: Option<String>,
}

/// What a Stat is: an entry, a file whose content is to be found, or a socket, which no tree holds.
pub(crate) enum Read {
    Entry(Entry),
    File(Entry, FileStat),
    Left,
}

pub(crate) fn read(stat: Stat) -> Result<Read, Error> {
    let Stat { path, mode, uid, gid, size, mod_time, linkname, devmajor, devminor, mut xattrs } = stat;
    let sha256 = xattrs.remove(SHA256_XATTR).and_then(|value| value.try_into().ok());
    let mut xattrs: Vec<_> = xattrs.into_iter().collect();
    xattrs.sort();
    let number = |value: i64| u32::try_from(value).map_err(|_| Error::Mode { path: path.clone(), mode });
    let kind = match mode & GO_TYPE {
        0 => {
            let first = (!linkname.is_empty()).then_some(linkname);
            let size = u64::try_from(size).map_err(|_| Error::Mode { path: path.clone(), mode })?;
            let entry = Entry { path, mode: unix_mode(mode), uid, gid, mtime_ns: mod_time, xattrs, kind: Kind::Fifo };
            return Ok(Read::File(entry, FileStat { size, sha256, first }));
        }
        GO_FOLDER => Kind::Folder,
        GO_SYMLINK => Kind::Symlink { target: linkname },
        GO_FIFO => Kind::Fifo,
        GO_DEVICE => Kind::Block { major: number(devmajor)?, minor: number(devminor)? },
        device if device == GO_DEVICE | GO_CHARACTER => {
            Kind::Character { major: number(devmajor)?, minor: number(devminor)? }
        }
        GO_SOCKET => return Ok(Read::Left),
        _ => return Err(Error::Mode { path, mode }),
    };
    Ok(Read::Entry(Entry { path, mode: unix_mode(mode), uid, gid, mtime_ns: mod_time, xattrs, kind }))
}

fn unix_mode(go: u32) -> u32 {
    let bit = |of_go: u32, of_unix: u32| if go & of_go == 0 { 0 } else { of_unix };
    (go & 0o777) | bit(GO_SETUID, 0o4000) | bit(GO_SETGID, 0o2000) | bit(GO_STICKY, 0o1000)
}

fn go_mode(unix: u32) -> u32 {
    let bit = |of_unix: u32, of_go: u32| if unix & of_unix == 0 { 0 } else { of_go };
    (unix & 0o777) | bit(0o4000, GO_SETUID) | bit(0o2000, GO_SETGID) | bit(0o1000, GO_STICKY)
}

/// A file's mode with its type, as `stat` of Unix has it.
pub fn go_mode_of(unix: u32) -> u32 {
    let of_type = match unix & 0o170_000 {
        0o040_000 => GO_FOLDER,
        0o120_000 => GO_SYMLINK,
        0o010_000 => GO_FIFO,
        0o060_000 => GO_DEVICE,
        0o020_000 => GO_DEVICE | GO_CHARACTER,
        _ => 0,
    };
    of_type | go_mode(unix)
}

/// An entry as its Stat, for who sends a tree.
pub fn stat_of(entry: &Entry) -> Stat {
    let Entry { path, mode, uid, gid, mtime_ns, xattrs, kind } = entry;
    let mut stat = Stat {
        path: path.clone(),
        uid: *uid,
        gid: *gid,
        mod_time: *mtime_ns,
        xattrs: xattrs.iter().cloned().collect(),
        ..Default::default()
    };
    let of_type = match kind {
        Kind::Folder => GO_FOLDER,
        Kind::File { content, hard_link } => {
            stat.size = i64::try_from(content.size).unwrap_or(i64::MAX);
            stat.linkname = hard_link.clone().unwrap_or_default();
            0
        }
        Kind::Symlink { target } => {
            stat.linkname.clone_from(target);
            GO_SYMLINK
        }
        Kind::Fifo => GO_FIFO,
        Kind::Block { major, minor } | Kind::Character { major, minor } => {
            (stat.devmajor, stat.devminor) = (i64::from(*major), i64::from(*minor));
            if matches!(kind, Kind::Block { .. }) { GO_DEVICE } else { GO_DEVICE | GO_CHARACTER }
        }
    };
    stat.mode = of_type | go_mode(*mode);
    stat
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_go_there_and_back() {
        for (go, unix) in [(0o644, 0o644), (0o755 | GO_SETUID, 0o4755), (0o777 | GO_STICKY | GO_SETGID, 0o3777)] {
            assert_eq!((unix_mode(go), go_mode(unix)), (unix, go));
        }
    }

    #[test]
    fn kinds() {
        let stat = |mode: u32| Stat { path: "x".to_owned(), mode, linkname: "l".to_owned(), ..Default::default() };
        for (mode, wanted) in [
            (GO_FOLDER | 0o755, Ok(Some(Kind::Folder))),
            (GO_SYMLINK | 0o777, Ok(Some(Kind::Symlink { target: "l".to_owned() }))),
            (GO_DEVICE | GO_CHARACTER, Ok(Some(Kind::Character { major: 0, minor: 0 }))),
            (GO_DEVICE, Ok(Some(Kind::Block { major: 0, minor: 0 }))),
            (GO_FIFO, Ok(Some(Kind::Fifo))),
            (GO_SOCKET, Ok(None)),
            (0o644, Ok(None)),
            (GO_FOLDER | GO_SYMLINK, Err(())),
            (GO_IRREGULAR, Err(())),
        ] {
            let entry = match read(stat(mode)) {
                Ok(Read::Entry(entry)) => Ok(Some(entry)),
                Ok(Read::File(..) | Read::Left) => Ok(None),
                Err(_) => Err(()),
            };
            if let Ok(Some(entry)) = &entry {
                assert_eq!(stat_of(entry).mode, mode);
            }
            assert_eq!(entry.map(|entry| entry.map(|entry| entry.kind)), wanted, "{mode:o}");
        }
    }
}
