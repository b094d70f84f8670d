use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Component, Path};

use sha2::{Digest as _, Sha256};
use tar::EntryType;

use crate::{Content, Entry, Error, Kind, Pack, Tree, by_components};

const SECOND_NS: i64 = 1_000_000_000;

/// The tree of a tar that lies in the layer store as `blob`: contents stay where they are in it. The last entry of a
/// path counts; folders that the tar leaves out belong to root. Reads to the end of the tar; blocks.
///
/// # Errors
/// `Corrupt` for what is no tar or breaks off, `InvalidArgument` for paths that are not allowed.
pub fn of_tar(reader: impl Read, blob: Pack) -> Result<Tree, Error> {
    Ok(of_tar_with_root(reader, blob)?.0)
}

/// The same, with what the tar says of the folder that all lies in (an entry `.`): mode, owner and time. Its path is empty.
///
/// # Errors
/// As [`of_tar`].
pub fn of_tar_with_root(reader: impl Read, blob: Pack) -> Result<(Tree, Option<Entry>), Error> {
    let broken = |error: std::io::Error| Error::Malformed(error.to_string());
    let mut archive = tar::Archive::new(reader);
    let mut entries = BTreeMap::<Vec<String>, Entry>::new();
    // Further names of a file, by its first one.
    let mut links = Vec::<(Vec<String>, Vec<String>)>::new();
    let mut root = None;
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let path = parts(&entry.path().map_err(broken)?)?;
        let target = entry.link_name().map_err(broken)?.map(|target| target.into_owned());
        if entry.header().entry_type() == EntryType::Link && !path.is_empty() {
            links.push((path, parts(&target.unwrap_or_default())?));
            continue;
        }
        let Some(kind) = kind(&mut entry, target.as_deref())? else { continue };
        let Pax { xattrs, mtime_ns } = pax(&mut entry)?;
        let header = entry.header();
        let made = Entry {
            path: path.join("/"),
            mode: header.mode().map_err(broken)? & 0o7777,
            uid: header.uid().map_err(broken)?.try_into().unwrap_or(0),
            gid: header.gid().map_err(broken)?.try_into().unwrap_or(0),
            mtime_ns: match mtime_ns {
                Some(ns) => ns,
                None => i64::try_from(header.mtime().map_err(broken)?).unwrap_or(0).saturating_mul(SECOND_NS),
            },
            xattrs,
            kind,
        };
        match path.is_empty() {
            true => root = (made.kind == Kind::Folder).then_some(made),
            false => drop(entries.insert(path, made)),
        }
    }
    std::io::copy(&mut archive.into_inner(), &mut std::io::sink()).map_err(broken)?;
    with_links(&mut entries, links)?;
    with_parents(&mut entries);
    let mut entries: Vec<Entry> = entries.into_values().collect();
    entries.sort_by(|a, b| by_components(&a.path, &b.path));
    let tree = Tree { packs: vec![blob], entries };
    // What the tar says is as little to be trusted as any other tree.
    Ok((Tree::decode(&tree.encode())?, root))
}

fn parts(path: &Path) -> Result<Vec<String>, Error> {
    let invalid = || Error::Path(path.display().to_string());
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => parts.push(name.to_str().ok_or_else(invalid)?.to_owned()),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(invalid()),
        }
    }
    Ok(parts)
}

/// None for what is no file of the tree.
fn kind(entry: &mut tar::Entry<impl Read>, target: Option<&Path>) -> Result<Option<Kind>, Error> {
    let broken = |error: std::io::Error| Error::Malformed(error.to_string());
    let device = |entry: &tar::Entry<_>| {
        let number = |number: std::io::Result<Option<u32>>| Ok(number.map_err(broken)?.unwrap_or_default());
        Ok::<_, Error>((number(entry.header().device_major())?, number(entry.header().device_minor())?))
    };
    Ok(Some(match entry.header().entry_type() {
        EntryType::Directory => Kind::Folder,
        EntryType::Symlink => {
            let target = target.and_then(Path::to_str);
            let target = target.ok_or_else(|| Error::Malformed("a link without a target".to_owned()))?;
            Kind::Symlink { target: target.to_owned() }
        }
        EntryType::Fifo => Kind::Fifo,
        EntryType::Char => device(entry).map(|(major, minor)| Kind::Character { major, minor })?,
        EntryType::Block => device(entry).map(|(major, minor)| Kind::Block { major, minor })?,
        EntryType::Regular | EntryType::Continuous => {
            let (size, offset) = (entry.size(), entry.raw_file_position());
            let mut hash = Hashing(Sha256::new());
            let copied = std::io::copy(entry, &mut hash).map_err(broken)?;
            if copied != size {
                return Err(Error::Malformed("a file breaks off".to_owned()));
            }
            let content = Content { sha256: hash.0.finalize().into(), size, pack: (size > 0).then_some(0), offset };
            Kind::File { content, hard_link: None }
        }
        _ => return Ok(None),
    }))
}

#[derive(Default)]
struct Pax {
    xattrs: Vec<(String, Vec<u8>)>,
    mtime_ns: Option<i64>,
}

fn pax(entry: &mut tar::Entry<impl Read>) -> Result<Pax, Error> {
    let broken = |error: std::io::Error| Error::Malformed(error.to_string());
    let mut pax = Pax::default();
    for record in entry.pax_extensions().map_err(broken)?.into_iter().flatten() {
        let record = record.map_err(broken)?;
        match record.key().unwrap_or_default() {
            "mtime" => pax.mtime_ns = record.value().ok().and_then(nanoseconds),
            key => {
                if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                    pax.xattrs.push((name.to_owned(), record.value_bytes().to_vec()));
                }
            }
        }
    }
    pax.xattrs.sort();
    Ok(pax)
}

/// `1700000000.25` as POSIX' pax has it.
fn nanoseconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let below: i64 = digits.parse().ok()?;
    let seconds: i64 = whole.parse().ok()?;
    let below = if whole.starts_with('-') { -below } else { below };
    seconds.checked_mul(SECOND_NS)?.checked_add(below)
}

/// The first name in the order of the tree holds the content, the others are links to it.
fn with_links(entries: &mut BTreeMap<Vec<String>, Entry>, links: Vec<(Vec<String>, Vec<String>)>) -> Result<(), Error> {
    let mut names = BTreeMap::<Vec<String>, Vec<Vec<String>>>::new();
    let mut first_of = BTreeMap::<Vec<String>, Vec<String>>::new();
    for (path, target) in links {
        let first = first_of.get(&target).cloned().unwrap_or(target);
        first_of.insert(path.clone(), first.clone());
        names.entry(first).or_default().push(path);
    }
    for (first, mut others) in names {
        let missing = || Error::Malformed(format!("a hard link to {:?}", first.join("/")));
        let file = entries.get(&first).cloned().ok_or_else(missing)?;
        let Kind::File { content, .. } = &file.kind else { return Err(missing()) };
        others.push(first.clone());
        others.sort();
        others.dedup();
        let main = others[0].join("/");
        for path in others {
            let hard_link = (path.join("/") != main).then(|| main.clone());
            let kind = Kind::File { content: content.clone(), hard_link };
            entries.insert(path.clone(), Entry { path: path.join("/"), kind, ..file.clone() });
        }
    }
    Ok(())
}

fn with_parents(entries: &mut BTreeMap<Vec<String>, Entry>) {
    let paths: Vec<Vec<String>> = entries.keys().cloned().collect();
    for path in paths {
        for length in 1..path.len() {
            let parent = &path[..length];
            entries.entry(parent.to_vec()).or_insert_with(|| Entry::folder(parent.join("/")));
        }
    }
}

struct Hashing(Sha256);

impl std::io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use model::Digest;

    use super::*;

    fn tar(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, kind, text) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(*kind);
            header.set_mode(0o640);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            // Written as they are, so that hostile paths are written too.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            let content = if *kind == EntryType::Regular { text.as_bytes() } else { b"" };
            if matches!(kind, EntryType::Link | EntryType::Symlink) {
                header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
            }
            header.set_size(content.len() as u64);
            header.set_cksum();
            tar.append(&header, content).expect("appended");
        }
        tar.into_inner().expect("ended")
    }

    fn read(tar: &[u8]) -> Result<Tree, Error> {
        of_tar(tar, Pack { digest: Digest::of(tar), size: tar.len() as u64 })
    }

    #[test]
    fn contents_are_found_in_the_tar() {
        use EntryType::{Directory, Link, Regular, Symlink};
        let bytes = tar(&[
            ("z", Regular, "content of z"),
            ("d/sub/file", Regular, "deep"),
            ("./d", Directory, ""),
            ("a", Link, "z"),
            ("b", Link, "a"),
            ("l", Symlink, "/etc"),
            ("e", Regular, ""),
        ]);
        let tree = read(&bytes).expect("a tree");
        let paths: Vec<&str> = tree.entries.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, ["a", "b", "d", "d/sub", "d/sub/file", "e", "l", "z"]);
        let text = |path: &str| match &tree.find(path).expect("there").kind {
            Kind::File { content, hard_link } => {
                let at = content.offset as usize;
                let bytes = content.pack.map_or(&b""[..], |_| &bytes[at..at + content.size as usize]);
                (String::from_utf8_lossy(bytes).into_owned(), hard_link.clone())
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(text("d/sub/file"), ("deep".to_owned(), None));
        assert_eq!(text("a"), ("content of z".to_owned(), None));
        assert_eq!(text("z"), ("content of z".to_owned(), Some("a".to_owned())));
        assert_eq!(text("e"), (String::new(), None));
        assert_eq!(tree.find("d").expect("there").mode, 0o640, "as the tar says");
        assert_eq!(tree.find("d/sub").expect("there").mode, 0o755, "the tar leaves it out");
    }

    #[test]
    fn times_have_fractions() {
        for (text, wanted) in [
            ("1.5", Some(1_500_000_000)),
            ("-1.25", Some(-1_250_000_000)),
            ("7", Some(7_000_000_000)),
            ("0.0000000019", Some(1)),
            ("x", None),
            ("1.x", None),
            ("9223372036854775807", None),
        ] {
            assert_eq!(nanoseconds(text), wanted, "{text}");
        }
    }

    #[test]
    fn hostile_tars_are_refused() {
        use EntryType::{Link, Regular, Symlink};
        for entries in [
            &[("../a", Regular, "x")][..],
            &[("a/../../b", Regular, "x")],
            &[("l", Symlink, "/etc"), ("l/x", Regular, "x")],
            &[("a", Link, "nothing")],
            &[("a", Link, "a")],
        ] {
            assert!(read(&tar(entries)).is_err(), "{entries:?}");
        }
        let mut cut = tar(&[("a", Regular, "content")]);
        cut.truncate(514);
        assert!(read(&cut).is_err());
    }
}
