use model::Digest;
use prost::Message as _;

use crate::path::Sequence;
use crate::{Error, by_components};

pub type Sha256Digest = [u8; 32];

const TYPE: u32 = 0o170_000;
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const FIFO: u32 = 0o010_000;
const CHARACTER: u32 = 0o020_000;
const BLOCK: u32 = 0o060_000;
/// Permissions, and the bits for set-uid, set-gid and sticky.
const PERMISSIONS: u32 = 0o7777;

/// A client's files. Entries are in the order of [`by_components`], each in a folder that is an entry before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    pub packs: Vec<Pack>,
    pub entries: Vec<Entry>,
}

/// A blob with contents of files.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pack {
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative and clean.
    pub path: String,
    /// Permissions with set-uid, set-gid and sticky, without the type.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime_ns: i64,
    /// By name.
    pub xattrs: Vec<(String, Vec<u8>)>,
    pub kind: Kind,
}

impl Entry {
    /// A folder of which nobody said anything: root's, 755.
    pub fn folder(path: String) -> Self {
        Self { path, mode: 0o755, uid: 0, gid: 0, mtime_ns: 0, xattrs: Vec::new(), kind: Kind::Folder }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Folder,
    File {
        content: Content,
        /// The entry before it that is the same file.
        hard_link: Option<String>,
    },
    Symlink {
        target: String,
    },
    Fifo,
    Character {
        major: u32,
        minor: u32,
    },
    Block {
        major: u32,
        minor: u32,
    },
}

/// A file's content and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub sha256: Sha256Digest,
    /// In bytes.
    pub size: u64,
    /// Position in [`Tree::packs`]; none for an empty file.
    pub pack: Option<usize>,
    /// In the pack, in bytes.
    pub offset: u64,
}

impl Tree {
    /// Media type of the blob.
    pub const MEDIA_TYPE: &'static str = "application/vnd.boxyard.context.v1";
    /// A larger blob is no tree.
    pub const MAX_BYTES: u64 = 512 << 20;

    /// The same tree has the same bytes.
    pub fn encode(&self) -> Vec<u8> {
        let packs =
            self.packs.iter().map(|pack| proto::ContextPack { sha256: hex_bytes(pack.digest.hex()), size: pack.size });
        let entries = self.entries.iter().map(to_wire);
        proto::ContextManifest { packs: packs.collect(), entries: entries.collect() }.encode_to_vec()
    }

    /// Reads a tree and checks all of it.
    ///
    /// # Errors
    /// `Corrupt` for what is no tree, `InvalidArgument` for paths that are not allowed.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let manifest = proto::ContextManifest::decode(bytes).map_err(|e| Error::Malformed(e.to_string()))?;
        let packs = manifest.packs.into_iter().map(|pack| {
            let sha256 = digest_of(&pack.sha256)?;
            Ok(Pack { digest: Digest::from_sha256(&sha256), size: pack.size })
        });
        let packs = packs.collect::<Result<Vec<_>, Error>>()?;
        let entries = manifest.entries.into_iter().map(|entry| from_wire(entry, &packs));
        let tree = Self { entries: entries.collect::<Result<Vec<_>, Error>>()?, packs };
        tree.check()?;
        Ok(tree)
    }

    fn check(&self) -> Result<(), Error> {
        let mut sequence = Sequence::default();
        for (at, entry) in self.entries.iter().enumerate() {
            sequence.next(&entry.path, entry.kind == Kind::Folder)?;
            if let Kind::File { content, hard_link: Some(first) } = &entry.kind {
                let wrong = || Error::Malformed(format!("hard link {:?} to {first:?}", entry.path));
                let target = find(&self.entries[..at], first).ok_or_else(wrong)?;
                match &target.kind {
                    Kind::File { content: same, hard_link: None } if same == content => {}
                    _ => return Err(wrong()),
                }
            }
        }
        Ok(())
    }

    pub fn find(&self, path: &str) -> Option<&Entry> {
        find(&self.entries, path)
    }

    /// The entry and all that lies in it; the whole tree for an empty path.
    pub fn under(&self, path: &str) -> &[Entry] {
        if path.is_empty() {
            return &self.entries;
        }
        let begin = self.entries.partition_point(|entry| by_components(&entry.path, path).is_lt());
        let rest = &self.entries[begin..];
        let inside = |entry: &Entry| entry.path.strip_prefix(path).is_some_and(|r| r.is_empty() || r.starts_with('/'));
        &rest[..rest.iter().position(|entry| !inside(entry)).unwrap_or(rest.len())]
    }

    /// Number of files.
    pub fn files(&self) -> u64 {
        self.entries.iter().filter(|entry| matches!(entry.kind, Kind::File { .. })).count() as u64
    }

    /// Sum of the files' sizes in bytes; hard links count once.
    pub fn bytes(&self) -> u64 {
        let sizes = self.entries.iter().filter_map(|entry| match &entry.kind {
            Kind::File { content, hard_link: None } => Some(content.size),
            _ => None,
        });
        sizes.sum()
    }
}

fn find<'a>(entries: &'a [Entry], path: &str) -> Option<&'a Entry> {
    entries.binary_search_by(|entry| by_components(&entry.path, path)).ok().map(|at| &entries[at])
}

fn to_wire(entry: &Entry) -> proto::ContextEntry {
    let Entry { path, mode, uid, gid, mtime_ns, xattrs, kind } = entry;
    let mut wire = proto::ContextEntry {
        path: path.clone(),
        uid: *uid,
        gid: *gid,
        mtime_ns: *mtime_ns,
        xattrs: xattrs
            .iter()
            .map(|(name, value)| proto::ContextXattr { name: name.clone(), value: value.clone() })
            .collect(),
        ..Default::default()
    };
    let of_type = match kind {
        Kind::Folder => FOLDER,
        Kind::File { content, hard_link } => {
            wire.sha256 = content.sha256.to_vec();
            wire.size = content.size;
            wire.pack = content.pack.map_or(0, |pack| u32::try_from(pack + 1).unwrap_or(u32::MAX));
            wire.offset = content.offset;
            wire.link = hard_link.clone().unwrap_or_default();
            FILE
        }
        Kind::Symlink { target } => {
            wire.link = target.clone();
            SYMLINK
        }
        Kind::Fifo => FIFO,
        Kind::Character { major, minor } | Kind::Block { major, minor } => {
            (wire.device_major, wire.device_minor) = (*major, *minor);
            if matches!(kind, Kind::Block { .. }) { BLOCK } else { CHARACTER }
        }
    };
    wire.mode = of_type | (mode & PERMISSIONS);
    wire
}

fn from_wire(wire: proto::ContextEntry, packs: &[Pack]) -> Result<Entry, Error> {
    let proto::ContextEntry {
        path,
        mode,
        uid,
        gid,
        mtime_ns,
        size,
        sha256,
        pack,
        offset,
        link,
        device_major,
        device_minor,
        xattrs,
    } = wire;
    let device = (device_major, device_minor);
    let kind = match mode & TYPE {
        FOLDER => Kind::Folder,
        FILE => {
            let content = Content { sha256: digest_of(&sha256)?, size, pack: (pack as usize).checked_sub(1), offset };
            let fits = match content.pack {
                None => size == 0,
                Some(at) => packs.get(at).is_some_and(|p| offset.checked_add(size).is_some_and(|end| end <= p.size)),
            };
            if !fits {
                return Err(Error::Malformed(format!("{path:?} lies outside of its pack")));
            }
            Kind::File { content, hard_link: (!link.is_empty()).then_some(link) }
        }
        SYMLINK => Kind::Symlink { target: link },
        FIFO => Kind::Fifo,
        CHARACTER => Kind::Character { major: device.0, minor: device.1 },
        BLOCK => Kind::Block { major: device.0, minor: device.1 },
        _ => return Err(Error::Mode { path, mode }),
    };
    let xattrs = xattrs.into_iter().map(|xattr| (xattr.name, xattr.value)).collect();
    Ok(Entry { path, mode: mode & PERMISSIONS, uid, gid, mtime_ns, xattrs, kind })
}

fn digest_of(bytes: &[u8]) -> Result<Sha256Digest, Error> {
    bytes.try_into().map_err(|_| Error::Malformed(format!("a digest of {} bytes", bytes.len())))
}

fn hex_bytes(hex: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map_or(0, |digit| digit as u8);
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: Kind) -> Entry {
        Entry { path: path.to_owned(), mode: 0o644, uid: 0, gid: 0, mtime_ns: -5, xattrs: Vec::new(), kind }
    }

    fn file(pack: Option<usize>, offset: u64, size: u64) -> Content {
        Content { sha256: [7; 32], size, pack, offset }
    }

    fn tree() -> Tree {
        let plain = |content| Kind::File { content, hard_link: None };
        Tree {
            packs: vec![Pack { digest: Digest::of(b"pack"), size: 10 }],
            entries: vec![
                entry("a", Kind::Folder),
                entry("a/b", plain(file(Some(0), 2, 8))),
                entry("a/c", Kind::File { content: file(Some(0), 2, 8), hard_link: Some("a/b".to_owned()) }),
                entry("a.d", Kind::Symlink { target: "/etc/passwd".to_owned() }),
                Entry { xattrs: vec![("user.x".to_owned(), vec![1])], ..entry("e", plain(file(None, 0, 0))) },
                entry("f", Kind::Block { major: 8, minor: 1 }),
                entry("g", Kind::Fifo),
            ],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let tree = tree();
        assert_eq!(Tree::decode(&tree.encode()), Ok(tree.clone()));
        assert_eq!(tree.encode(), tree.encode());
        assert_eq!((tree.files(), tree.bytes()), (3, 8));
        let under = |path| tree.under(path).iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>();
        assert_eq!(under("a"), ["a", "a/b", "a/c"]);
        assert_eq!(under("a/b"), ["a/b"]);
        assert_eq!(under("a/"), Vec::<&str>::new());
        assert_eq!(under("").len(), 7);
        assert_eq!(under("zz").len(), 0);
    }

    #[test]
    fn hostile_trees_are_refused() {
        type Spoil = fn(&mut Tree);
        let spoils: &[(&str, Spoil)] = &[
            ("escapes", |tree| tree.entries[0].path = "../a".to_owned()),
            ("absolute", |tree| tree.entries[0].path = "/a".to_owned()),
            ("not in order", |tree| tree.entries.swap(4, 5)),
            ("below a link", |tree| tree.entries[4].path = "a.d/x".to_owned()),
            ("outside of its pack", |tree| {
                tree.entries[1].kind = Kind::File { content: file(Some(0), 3, 8), hard_link: None };
            }),
            ("at the end of numbers", |tree| {
                tree.entries[1].kind = Kind::File { content: file(Some(0), u64::MAX, 8), hard_link: None };
            }),
            ("no such pack", |tree| tree.packs.clear()),
            ("a link to what comes later", |tree| {
                tree.entries[1].kind = Kind::File { content: file(Some(0), 2, 8), hard_link: Some("a/c".to_owned()) };
            }),
            ("a link to a folder", |tree| {
                tree.entries[2].kind = Kind::File { content: file(Some(0), 2, 8), hard_link: Some("a".to_owned()) };
            }),
        ];
        for (why, spoil) in spoils {
            let mut tree = tree();
            spoil(&mut tree);
            assert!(Tree::decode(&tree.encode()).is_err(), "{why}");
        }
        assert!(Tree::decode(b"no tree").is_err());
    }
}
