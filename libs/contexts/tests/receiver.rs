//! A client's packets become a tree and packs, and the next time only what changed is asked for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bollard_buildkit_proto::fsutil::types::Stat;
use contexts::{Content, Indexed, Kind, Known, Limits, Output, Receiver, SHA256_XATTR, Tree};
use model::Digest;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

const GO_FOLDER: u32 = 1 << 31;

/// A client's folder: content by path, with a modification time.
type Files = BTreeMap<String, (Vec<u8>, i64)>;

/// The layer store.
#[derive(Default)]
struct Blobs {
    blobs: HashMap<Digest, Vec<u8>>,
    parts: HashMap<u32, Vec<u8>>,
}

impl Blobs {
    fn take(&mut self, output: Option<Output>) {
        match output {
            None => {}
            Some(Output::Pack { digest, bytes }) => {
                assert_eq!(Digest::of(&bytes), digest);
                self.blobs.insert(digest, bytes);
            }
            Some(Output::Part { id, bytes, whole }) => {
                self.parts.entry(id).or_default().extend(bytes);
                if let Some(whole) = whole {
                    let bytes = self.parts.remove(&id).expect("it began");
                    assert_eq!((Digest::of(&bytes), bytes.len() as u64), (whole.digest.clone(), whole.size));
                    self.blobs.insert(whole.digest, bytes);
                }
            }
        }
    }

    fn read(&self, tree: &Tree, content: &Content) -> Vec<u8> {
        let Some(pack) = content.pack else { return Vec::new() };
        let blob = &self.blobs[&tree.packs[pack].digest];
        let bytes = &blob[content.offset as usize..][..content.size as usize];
        assert_eq!(<[u8; 32]>::from(Sha256::digest(bytes)), content.sha256);
        bytes.to_vec()
    }
}

fn limits() -> Limits {
    Limits { large_bytes: 64, pack_bytes: 100, open_files: 3, open_bytes: 150, open_large: 2, ..Limits::default() }
}

fn stats(files: &Files, with_digest: bool) -> Vec<Stat> {
    let mut stats = BTreeMap::<Vec<&str>, Stat>::new();
    for (path, (content, mtime)) in files {
        let parts: Vec<&str> = path.split('/').collect();
        for length in 1..parts.len() {
            let path = parts[..length].join("/");
            stats.entry(parts[..length].to_vec()).or_insert(Stat { path, mode: GO_FOLDER | 0o755, ..Stat::default() });
        }
        let sha256 = with_digest.then(|| (SHA256_XATTR.to_owned(), Sha256::digest(content).to_vec()));
        let stat = Stat {
            path: path.clone(),
            mode: 0o644,
            size: content.len() as i64,
            mod_time: *mtime,
            xattrs: sha256.into_iter().collect(),
            ..Stat::default()
        };
        stats.insert(parts, stat);
    }
    stats.into_values().collect()
}

/// Plays a client that answers its requests round-robin in small pieces; gives the tree and how many were asked for.
fn sync(files: &Files, known: Known, blobs: &mut Blobs, with_digest: bool) -> (Tree, usize) {
    let mut receiver = Receiver::new(known, limits());
    let stats = stats(files, with_digest);
    let mut answering = Vec::<(u32, &[u8])>::new();
    let mut asked = 0;
    let mut listed = stats.iter().cloned().map(Some).chain([None]);
    while !receiver.is_complete() {
        if let Some(stat) = listed.next() {
            receiver.stat(stat).expect("taken");
        }
        while let Some(id) = receiver.next_request() {
            asked += 1;
            answering.push((id, &files[&stats[id as usize].path].0));
        }
        assert!(answering.len() <= 5, "no more than asked for at once");
        answering.retain_mut(|(id, rest)| {
            let (now, later) = rest.split_at(rest.len().min(30));
            *rest = later;
            blobs.take(receiver.data(*id, now.to_vec()).expect("asked for"));
            !now.is_empty()
        });
    }
    blobs.take(receiver.flush());
    let tree = receiver.finish().expect("complete");
    assert_eq!(Tree::decode(&tree.encode()).as_ref(), Ok(&tree));
    (tree, asked)
}

/// What a receiver knows of a tree whose packs are all in the store, or none.
fn known(tree: &Tree, is_stored: bool) -> Known {
    Known::new(vec![Arc::new(Indexed::new(tree.clone()))], |_| is_stored)
}

fn contents(tree: &Tree, blobs: &Blobs) -> BTreeMap<String, Vec<u8>> {
    let files = tree.entries.iter().filter_map(|entry| match &entry.kind {
        Kind::File { content, .. } => Some((entry.path.clone(), blobs.read(tree, content))),
        _ => None,
    });
    files.collect()
}

fn expected(files: &Files) -> BTreeMap<String, Vec<u8>> {
    files.iter().map(|(path, (content, _))| (path.clone(), content.clone())).collect()
}

fn some_files() -> impl Strategy<Value = Files> {
    // Folders have other letters than files, so that no file is in the way of a folder.
    let path = proptest::collection::vec("[x-z]", 0..3)
        .prop_flat_map(|folders| "[a-e]".prop_map(move |name| [folders.clone(), vec![name]].concat().join("/")));
    proptest::collection::btree_map(path, (proptest::collection::vec(any::<u8>(), 0..200), 0..3i64), 0..20)
}

proptest! {
    #[test]
    fn every_file_arrives_and_only_changes_are_asked_for(before in some_files(), after in some_files(), digests: bool) {
        let mut blobs = Blobs::default();
        let (first, _) = sync(&before, Known::default(), &mut blobs, digests);
        prop_assert_eq!(contents(&first, &blobs), expected(&before));
        let (again, asked) = sync(&before, known(&first, true), &mut blobs, digests);
        prop_assert_eq!(asked, 0);
        prop_assert_eq!(again, first.clone());
        // A client that touches a file without a new time or size is not noticed, as in BuildKit; with digests it is.
        if digests {
            let (second, asked) = sync(&after, known(&first, true), &mut blobs, true);
            prop_assert_eq!(contents(&second, &blobs), expected(&after));
            let had = |content: &Vec<u8>| before.values().any(|(other, _)| other == content);
            let new = after.values().filter(|(content, _)| !content.is_empty() && !had(content)).count();
            prop_assert_eq!(asked, new);
        }
        let (_, asked) = sync(&before, known(&first, false), &mut blobs, digests);
        prop_assert_eq!(asked, before.values().filter(|(content, _)| !content.is_empty()).count());
    }

    #[test]
    fn hostile_packets_never_panic_and_never_make_a_bad_tree(
        packets in proptest::collection::vec((0..6u8, "[ab./\0]{0,4}", any::<u32>(), any::<i64>(), "[ab/]{0,3}"), 0..40)
    ) {
        let mut receiver = Receiver::new(Known::default(), limits());
        for (what, path, mode, size, linkname) in packets {
            let outcome = match what {
                0 | 1 => receiver.stat(Some(Stat { path, mode: mode & 0o644, size: size % 300, linkname, ..Stat::default() })),
                2 => receiver.stat(Some(Stat { path, mode, size, linkname, devmajor: size, ..Stat::default() })),
                3 => receiver.stat(Some(Stat { path, mode: GO_FOLDER, ..Stat::default() })),
                4 => receiver.data(mode % 8, vec![1; (size % 90).unsigned_abs() as usize]).map(drop),
                _ => {
                    let _ = receiver.next_request();
                    if size % 7 == 0 { receiver.stat(None) } else { Ok(()) }
                }
            };
            if outcome.is_err() {
                return Ok(());
            }
        }
        receiver.flush();
        if let Ok(tree) = receiver.finish() {
            prop_assert_eq!(Tree::decode(&tree.encode()), Ok(tree));
        }
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Tree::decode(&bytes);
    }
}

#[test]
fn hard_links_share_their_content_and_links_to_nothing_are_files() {
    let mut receiver = Receiver::new(Known::default(), limits());
    let file = |path: &str, link: &str| Stat {
        path: path.to_owned(),
        mode: 0o644,
        size: 3,
        linkname: link.to_owned(),
        ..Stat::default()
    };
    for stat in [file("a", ""), file("b", "a"), file("c", "b"), file("d", "left-out")] {
        receiver.stat(Some(stat)).expect("taken");
    }
    receiver.stat(None).expect("the end");
    for (id, content) in [(0, b"one"), (3, b"two")] {
        assert_eq!(receiver.next_request(), Some(id));
        receiver.data(id, content.to_vec()).expect("content");
        receiver.data(id, Vec::new()).expect("its end");
    }
    receiver.flush();
    let tree = receiver.finish().expect("complete");
    let kinds = tree.entries.iter().map(|entry| match &entry.kind {
        Kind::File { content, hard_link } => (content.offset, hard_link.as_deref()),
        _ => panic!("only files"),
    });
    assert_eq!(kinds.collect::<Vec<_>>(), [(0, None), (0, Some("a")), (0, Some("a")), (3, None)]);
}

/// Two files may be alike in size and times: fsutil compares the link, too.
#[test]
fn a_file_that_was_a_hard_link_is_asked_for() {
    let file = |path: &str, link: &str| Stat {
        path: path.to_owned(),
        mode: 0o644,
        size: 3,
        linkname: link.to_owned(),
        ..Stat::default()
    };
    let mut receiver = Receiver::new(Known::default(), limits());
    for stat in [Some(file("a", "")), Some(file("b", "a")), None] {
        receiver.stat(stat).expect("taken");
    }
    assert_eq!(receiver.next_request(), Some(0));
    receiver.data(0, b"one".to_vec()).expect("content");
    receiver.data(0, Vec::new()).expect("its end");
    receiver.flush();
    let before = known(&receiver.finish().expect("complete"), true);
    let mut receiver = Receiver::new(before, limits());
    for stat in [Some(file("a", "")), Some(file("b", "")), None] {
        receiver.stat(stat).expect("taken");
    }
    assert_eq!((receiver.next_request(), receiver.next_request()), (Some(1), None));
}
