use std::io::{self, Read, Write};

use tar::{Builder, EntryType, Header};

use crate::{Content, Entry, Kind, Pack, Tree};

/// Contents that lie at most so far apart in a pack are read as one.
const GAP_BYTES: u64 = 256 << 10;
const SECOND_NS: i64 = 1_000_000_000;

/// Writes what lies in `folder` of a tree as a tar (pax): the folder itself as `./`, then folders and what else has no
/// content, then files in the order in which their contents lie in the packs, then hard links. `open` gives bytes of a pack
/// from an offset on, so many. Blocks.
///
/// # Errors
/// What reading and writing say; `NotFound` for a folder that is not there.
pub fn to_tar<R: Read>(
    tree: &Tree,
    folder: &str,
    mut open: impl FnMut(&Pack, u64, u64) -> io::Result<R>,
    out: impl Write,
) -> io::Result<()> {
    let mut tar = Builder::new(out);
    let mut files = Vec::new();
    let mut links = Vec::new();
    let entries = tree.under(folder);
    if entries.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("no folder {folder:?}")));
    }
    let name = |path: &str| format!(".{}", path.strip_prefix(folder).unwrap_or(path));
    for entry in entries {
        match &entry.kind {
            Kind::File { hard_link: Some(first), .. } => links.push((entry, name(first))),
            Kind::File { content: content @ Content { pack: Some(pack), .. }, .. } => {
                files.push((*pack, content, entry))
            }
            Kind::File { .. } => append(&mut tar, entry, &name(&entry.path), io::empty(), 0)?,
            Kind::Folder => append(&mut tar, entry, &format!("{}/", name(&entry.path)), io::empty(), 0)?,
            _ => append(&mut tar, entry, &name(&entry.path), io::empty(), 0)?,
        }
    }
    files.sort_by_key(|(pack, content, _)| (*pack, content.offset));
    let mut at = 0;
    while at < files.len() {
        let (pack, first, _) = files[at];
        let (mut last, mut end) = (at, first.offset + first.size);
        while let Some((_, next, _)) =
            files.get(last + 1).filter(|(of, next, _)| *of == pack && next.offset <= end + GAP_BYTES)
        {
            end = end.max(next.offset + next.size);
            last += 1;
        }
        let mut reader = open(&tree.packs[pack], first.offset, end - first.offset)?;
        let mut position = first.offset;
        for (_, content, entry) in &files[at..=last] {
            if content.offset < position {
                // Another file with content that has gone by.
                let again = open(&tree.packs[pack], content.offset, content.size)?;
                append(&mut tar, entry, &name(&entry.path), again, content.size)?;
                continue;
            }
            io::copy(&mut reader.by_ref().take(content.offset - position), &mut io::sink())?;
            append(&mut tar, entry, &name(&entry.path), reader.by_ref().take(content.size), content.size)?;
            position = content.offset + content.size;
        }
        at = last + 1;
    }
    for (entry, first) in links {
        let mut header = header(entry, 0);
        header.set_entry_type(EntryType::Link);
        tar.append_link(&mut header, name(&entry.path), first)?;
    }
    tar.into_inner()?.flush()
}

fn append<W: Write>(tar: &mut Builder<W>, entry: &Entry, name: &str, content: impl Read, size: u64) -> io::Result<()> {
    let below = entry.mtime_ns.rem_euclid(SECOND_NS);
    let seconds = entry.mtime_ns.div_euclid(SECOND_NS);
    let mut records: Vec<(String, Vec<u8>)> = Vec::new();
    if below != 0 && seconds >= 0 {
        records.push(("mtime".to_owned(), format!("{seconds}.{below:09}").into_bytes()));
    }
    records.extend(entry.xattrs.iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.clone())));
    if !records.is_empty() {
        tar.append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), value.as_slice())))?;
    }
    let mut header = header(entry, size);
    match &entry.kind {
        Kind::Symlink { target } => tar.append_link(&mut header, name, target),
        _ => tar.append_data(&mut header, name, content),
    }
}

fn header(entry: &Entry, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(entry.mode);
    header.set_uid(entry.uid.into());
    header.set_gid(entry.gid.into());
    header.set_mtime(u64::try_from(entry.mtime_ns.div_euclid(SECOND_NS)).unwrap_or(0));
    header.set_size(size);
    let kind = match &entry.kind {
        Kind::Folder => EntryType::Directory,
        Kind::File { .. } => EntryType::Regular,
        Kind::Symlink { .. } => EntryType::Symlink,
        Kind::Fifo => EntryType::Fifo,
        Kind::Character { major, minor } | Kind::Block { major, minor } => {
            // A GNU header has room for both.
            let _ = header.set_device_major(*major).and_then(|()| header.set_device_minor(*minor));
            if matches!(entry.kind, Kind::Block { .. }) { EntryType::Block } else { EntryType::Char }
        }
    };
    header.set_entry_type(kind);
    header
}

#[cfg(test)]
mod tests {
    use model::Digest;
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::of_tar_with_root;

    #[test]
    fn a_tree_is_the_same_after_a_tar() {
        let bytes = b"onetwothree";
        let pack = Pack { digest: Digest::of(bytes), size: bytes.len() as u64 };
        let file = |offset: usize, size: usize, hard_link: Option<&str>| {
            let sha256 = Sha256::digest(&bytes[offset..offset + size]).into();
            let pack = (size > 0).then_some(0);
            let content = Content { sha256, size: size as u64, pack, offset: offset as u64 };
            Kind::File { content, hard_link: hard_link.map(str::to_owned) }
        };
        let entry = |path: &str, mode, mtime_ns, kind| {
            let xattrs = vec![("user.x".to_owned(), b"y".to_vec())];
            let xattrs = if matches!(path, "root/a" | "root/b") { xattrs } else { Vec::new() };
            Entry { path: path.to_owned(), mode, uid: 7, gid: 8, mtime_ns, xattrs, kind }
        };
        let long = format!("root/{}", "x".repeat(200));
        let tree = Tree {
            packs: vec![pack],
            entries: vec![
                entry("root", 0o1777, 5_000_000_000, Kind::Folder),
                entry("root/a", 0o4755, 1_500_000_000, file(3, 3, None)),
                entry("root/b", 0o4755, 1_500_000_000, file(3, 3, Some("root/a"))),
                entry("root/c", 0o600, 0, file(3, 3, None)),
                entry("root/d", 0o644, 9_000_000_000, file(0, 3, None)),
                entry("root/e", 0o644, 9_000_000_000, file(0, 0, None)),
                entry("root/l", 0o777, 1_000_000_000, Kind::Symlink { target: "/etc/passwd".to_owned() }),
                entry(&long, 0o644, 1_000_000_000, file(6, 5, None)),
            ],
        };
        let mut tar = Vec::new();
        let open = |_: &Pack, offset: u64, size: u64| Ok(&bytes[offset as usize..(offset + size) as usize]);
        to_tar(&tree, "root", open, &mut tar).expect("written");
        let blob = Pack { digest: Digest::of(&tar), size: tar.len() as u64 };
        let (read, root) = of_tar_with_root(tar.as_slice(), blob).expect("read");
        let root = root.expect("the folder itself");
        assert_eq!((root.mode, root.uid, root.mtime_ns), (0o1777, 7, 5_000_000_000));
        for (read, wrote) in read.entries.iter().zip(&tree.entries[1..]) {
            let of = |entry: &Entry| (entry.mode, entry.uid, entry.gid, entry.mtime_ns, entry.xattrs.clone());
            assert_eq!((format!("root/{}", read.path), of(read)), (wrote.path.clone(), of(wrote)));
        }
        assert_eq!(read.entries.len(), tree.entries.len() - 1);
        assert_eq!((read.files(), read.bytes()), (tree.files(), tree.bytes()));
    }
}
