//! Contents of a tree's files out of their packs.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use contexts::{Content, Kind, Pack, Tree};
use distribution::Store;
use futures::{StreamExt as _, TryStreamExt as _};
use sha2::{Digest as _, Sha256};

use super::change::{Changed, Names, split};
use crate::failure::{Doing as _, Failure};
use crate::halt;
use crate::layers::blocking;
use crate::rooted::{Owner, Place, describe};

/// Packs that are read at once.
const PACKS: usize = 2;
/// A pack of which less than this part is wanted is read by ranges.
const WHOLE_PART: u64 = 4;

/// A file that is made: its content, and the path that it goes to.
#[derive(Clone)]
struct File {
    content: Content,
    path: String,
    about: About,
}

/// What is told of a file besides its content. It belongs to root until its entry is described.
#[derive(Clone, Copy)]
struct About {
    mode: u32,
    mtime_ns: i64,
}

/// Writes the files; their content is checked by its digest.
pub async fn write(store: &Store, tree: &Tree, changed: &Changed) -> Result<(), Failure> {
    let mut of_packs = BTreeMap::<usize, Vec<File>>::new();
    let mut empty = Vec::new();
    for at in &changed.files {
        let entry = &tree.entries[*at];
        let Kind::File { content, .. } = &entry.kind else { continue };
        match content.pack {
            Some(pack) => of_packs.entry(pack).or_default().push(File {
                content: content.clone(),
                path: entry.path.clone(),
                about: About { mode: entry.mode, mtime_ns: entry.mtime_ns },
            }),
            None => empty.push(entry.path.clone()),
        }
    }
    let writing = || "writing a context's files".to_owned();
    let folder = changed.folder.clone();
    blocking(move || {
        let mut names = Names::open(&folder).doing(writing)?;
        empty.iter().try_for_each(|path| names.place(path)?.create().map(drop)).doing(writing)
    })
    .await?;
    let packs = of_packs.into_iter().map(|(pack, files)| {
        let (pack, folder) = (tree.packs[pack].clone(), changed.folder.clone());
        async move {
            let wanted: u64 = files.iter().map(|file| file.content.size).sum();
            let spans = match wanted * WHOLE_PART >= pack.size {
                true => vec![(0, pack.size, files)],
                false => files.into_iter().map(|file| (file.content.offset, file.content.size, vec![file])).collect(),
            };
            for (offset, size, files) in spans {
                let reader = open(store, &pack, offset, size).await?;
                let folder = folder.clone();
                blocking(move || {
                    let mut names = Names::open(&folder).doing(writing)?;
                    write_span(reader, offset, files, &mut names).doing(writing)
                })
                .await?;
            }
            Ok::<_, Failure>(())
        }
    });
    futures::stream::iter(packs).buffer_unordered(PACKS).try_collect().await
}

/// Part of a pack; the whole is checked against the pack's digest by who reads it to its end.
async fn open(store: &Store, pack: &Pack, offset: u64, size: u64) -> Result<Box<dyn Read + Send>, Failure> {
    let is_whole = (offset, size) == (0, pack.size);
    halt::reader(async move {
        match is_whole {
            true => store.get(&pack.digest).await,
            false => store.get_range(&pack.digest, offset, size).await,
        }
    })
    .await
}

/// Writes files out of bytes that begin at `offset` of their pack.
fn write_span(mut reader: impl Read, offset: u64, mut files: Vec<File>, names: &mut Names) -> io::Result<()> {
    files.sort_by_key(|file| file.content.offset);
    let mut at = offset;
    let mut files = files.into_iter().peekable();
    while let Some(File { content, path, about }) = files.next() {
        let gap = content.offset.checked_sub(at).ok_or_else(|| io::Error::other("contents of a pack overlap"))?;
        skip(&mut reader, gap)?;
        let first = names.place(&path)?;
        copy(&mut reader, &first, &content, about)?;
        at = content.offset + content.size;
        // Further files with this content.
        while let Some(same) = files.next_if(|next| next.content.offset == content.offset) {
            let place = names.place(&same.path)?;
            copy(&mut first.read()?, &place, &content, same.about)?;
        }
    }
    skip(&mut reader, u64::MAX).map(drop)
}

fn skip(reader: &mut impl Read, bytes: u64) -> io::Result<u64> {
    io::copy(&mut reader.take(bytes), &mut io::sink())
}

fn copy(reader: &mut impl Read, place: &Place, content: &Content, about: About) -> io::Result<()> {
    let mut file = place.create()?;
    let mut hash = Sha256::new();
    let mut left = content.size;
    let mut buffer = vec![0; usize::try_from(left.min(128 << 10)).unwrap_or_default()];
    while left > 0 {
        halt::check()?;
        let chunk = usize::try_from(left.min(buffer.len() as u64)).unwrap_or(buffer.len());
        reader.read_exact(&mut buffer[..chunk])?;
        hash.update(&buffer[..chunk]);
        file.write_all(&buffer[..chunk])?;
        left -= chunk as u64;
    }
    match <[u8; 32]>::from(hash.finalize()) == content.sha256 {
        true => describe(&file, Owner::ROOT, about.mode, split(about.mtime_ns)),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "a file's content has another digest")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_cut_out_of_a_span() {
        let temp = tempfile::tempdir().expect("temp folder");
        let content = |text: &str, offset| Content {
            sha256: Sha256::digest(text.as_bytes()).into(),
            size: text.len() as u64,
            pack: Some(0),
            offset,
        };
        let write = |files: &[(&str, u64, &str)], bytes: &[u8]| {
            let file = |(text, offset, path): &(&str, u64, &str)| File {
                content: content(text, *offset),
                path: (*path).to_owned(),
                about: About { mode: 0o640, mtime_ns: -1 },
            };
            let files = files.iter().map(file).collect();
            write_span(bytes, 10, files, &mut Names::open(temp.path()).expect("opened"))
        };
        let text = |path: &str| std::fs::read_to_string(temp.path().join(path)).expect("written");
        write(&[("cd", 12, "x"), ("a", 10, "y"), ("cd", 12, "z")], b"abcdef").expect("written");
        assert_eq!((text("x"), text("y"), text("z")), ("cd".to_owned(), "a".to_owned(), "cd".to_owned()));
        assert!(write(&[("cd", 12, "x")], b"abXdef").is_err(), "another content");
        assert!(write(&[("cd", 12, "x")], b"abc").is_err(), "too few bytes");
        assert!(write(&[("abc", 10, "x"), ("cd", 12, "y")], b"abcdef").is_err(), "overlaps are nobody's packs");
    }
}
