//! What a hostile client may do to the gateway, and a broken store to a worker: be refused, no more.

use bollard_buildkit_proto::fsutil::types::Stat;
use contexts::{Content, Entry, Kind, Known, Limits, Output, Pack, Receiver, Tree};
use model::Digest;
use proptest::prelude::*;

const OPEN_BYTES: u64 = 1000;
const LARGE_BYTES: u64 = 600;
const PACKET_BYTES: usize = 90;

/// A tree with one of everything, whose packs hold `sizes`.
fn tree(sizes: &[u64]) -> Tree {
    let entry = |path: &str, kind: Kind| Entry {
        path: path.to_owned(),
        mode: 0o644,
        uid: 1,
        gid: 2,
        mtime_ns: 3,
        xattrs: vec![("user.a".to_owned(), b"b".to_vec())],
        kind,
    };
    let mut tree = Tree::default();
    tree.entries.push(entry("d", Kind::Folder));
    for (pack, size) in sizes.iter().enumerate() {
        tree.packs.push(Pack { digest: Digest::of(&pack.to_le_bytes()), size: *size });
        let content = Content { sha256: [7; 32], size: *size, pack: (*size > 0).then_some(pack), offset: 0 };
        tree.entries.push(entry(&format!("d/f{pack:03}"), Kind::File { content, hard_link: None }));
    }
    tree.entries.push(entry("l", Kind::Symlink { target: "d".to_owned() }));
    tree.entries.push(entry("n", Kind::Character { major: 1, minor: 3 }));
    tree.entries.push(entry("p", Kind::Fifo));
    tree
}

/// Whoever unpacks it stays in its root and reads inside its packs.
fn assert_sound(tree: &Tree) {
    let mut folders = vec![String::new()];
    for entry in &tree.entries {
        let names: Vec<&str> = entry.path.split('/').collect();
        assert!(names.iter().all(|name| !["", ".", ".."].contains(name)), "{:?}", entry.path);
        let parent = names[..names.len() - 1].join("/");
        assert!(folders.contains(&parent), "{:?} lies in no folder", entry.path);
        match &entry.kind {
            Kind::Folder => folders.push(entry.path.clone()),
            Kind::File { content: Content { pack: Some(pack), offset, size, .. }, .. } => {
                let end = offset.checked_add(*size).expect("no overflow");
                assert!(end <= tree.packs[*pack].size, "{:?} lies outside of its pack", entry.path);
            }
            _ => {}
        }
    }
    let mut paths: Vec<&str> = tree.entries.iter().map(|entry| entry.path.as_str()).collect();
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), tree.entries.len(), "a path is there twice");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_changed_tree_is_refused_or_sound(
        sizes in proptest::collection::vec(0..300u64, 0..5),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        is_cut: bool,
    ) {
        let mut bytes = tree(&sizes).encode();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(tree) = Tree::decode(&bytes) {
            assert_sound(&tree);
        }
    }

    #[test]
    fn what_is_received_is_sound(
        packets in proptest::collection::vec(("[ab./\0é]{0,5}", any::<u32>(), 0..400i64, "[ab/.]{0,3}", any::<bool>()), 0..60)
    ) {
        let mut receiver = Receiver::new(Known::default(), Limits::default());
        for (path, mode, size, linkname, is_folder) in packets {
            let mode = if is_folder { 1 << 31 | 0o755 } else { mode };
            // A refused packet ends a real session; here the next one is tried all the same.
            let _ = receiver.stat(Some(Stat { path, mode, size, linkname, ..Stat::default() }));
            if let Some(id) = receiver.next_request() {
                let _ = receiver.data(id, vec![1; 5]);
                let _ = receiver.data(id, Vec::new());
            }
        }
        let _ = receiver.stat(None);
        while let Some(id) = receiver.next_request() {
            let _ = receiver.data(id, Vec::new());
        }
        receiver.flush();
        if let Ok(tree) = receiver.finish() {
            assert_sound(&tree);
        }
    }

    /// Sizes that were told do not bound what comes: what is held in memory does.
    #[test]
    fn files_that_grow_without_end_are_not_held_in_memory(
        told in proptest::collection::vec(1..50i64, 1..20),
        turns in proptest::collection::vec((0..20usize, 1..PACKET_BYTES), 0..400),
    ) {
        let limits = Limits { open_bytes: OPEN_BYTES, large_bytes: LARGE_BYTES, ..Limits::default() };
        let mut receiver = Receiver::new(Known::default(), limits);
        for (number, size) in told.iter().enumerate() {
            let stat = Stat { path: format!("f{number:02}"), mode: 0o644, size: *size, ..Stat::default() };
            receiver.stat(Some(stat)).expect("taken");
        }
        let mut asked = Vec::new();
        while let Some(id) = receiver.next_request() {
            asked.push(id);
        }
        let mut held = 0;
        for (which, bytes) in turns {
            let id = asked[which % asked.len()];
            held += bytes;
            if let Some(Output::Part { bytes, .. }) = receiver.data(id, vec![0; bytes]).expect("asked for") {
                held -= bytes.len();
            }
            prop_assert!(held as u64 <= OPEN_BYTES + PACKET_BYTES as u64, "{held} bytes are held");
        }
    }
}
