//! Layers on a real file system, with real overlay mounts. Needs root.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use model::{DiffId, Digest, ErrorKind};
use snapshots::{Change, ChangeKind, MountSpec, Snapshots, unmount};
use tempfile::TempDir;

enum Item<'a> {
    File(&'a str, &'a str),
    Dir(&'a str),
    Symlink(&'a str, &'a str),
    Hardlink(&'a str, &'a str),
}
use Item::{Dir, File, Hardlink, Symlink};

fn tar_of(items: &[Item<'_>]) -> (DiffId, Vec<u8>) {
    let mut builder = tar::Builder::new(Vec::new());
    for item in items {
        let (kind, name, link, content) = match item {
            File(name, content) => (tar::EntryType::Regular, name, "", *content),
            Dir(name) => (tar::EntryType::Directory, name, "", ""),
            Symlink(name, to) => (tar::EntryType::Symlink, name, *to, ""),
            Hardlink(name, to) => (tar::EntryType::Link, name, *to, ""),
        };
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        // Straight into the header: the crate's own setters refuse the hostile names that are tried here.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_mode(if matches!(item, Dir(_)) { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).expect("in memory");
    }
    let bytes = builder.into_inner().expect("in memory");
    (DiffId::new(Digest::of(&bytes)), bytes)
}

fn open() -> (TempDir, Snapshots) {
    let folder = tempfile::tempdir().expect("a folder");
    let snapshots = Snapshots::open(folder.path().join("snapshots")).expect("opens");
    (folder, snapshots)
}

fn apply(snapshots: &Snapshots, items: &[Item<'_>]) -> DiffId {
    let (diff_id, bytes) = tar_of(items);
    snapshots.apply(&diff_id, bytes.as_slice()).expect("applies");
    diff_id
}

/// A mounted stack, unmounted when it goes.
struct Mounted {
    upper: PathBuf,
    target: PathBuf,
}

impl Mounted {
    fn new(base: &Path, snapshots: &Snapshots, layers: &[DiffId]) -> Self {
        let name = |what: &str| {
            let path = base.join(format!("{what}-{}", layers.len()));
            fs::create_dir_all(&path).expect("a folder");
            path
        };
        let (upper, work, target) = (name("upper"), name("work"), name("target"));
        snapshots.mount(&MountSpec { layers, upper: &upper, work: &work, target: &target }).expect("mounts");
        Self { upper, target }
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.target.join(path)).ok()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.target).expect("unmounts");
    }
}

#[test]
fn hostile_entries_stay_inside() {
    let (folder, snapshots) = open();
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).expect("a folder");
    fs::write(outside.join("kept"), "kept").expect("a file");
    let out = outside.to_str().expect("utf-8");
    let through = format!("{}/new", out.trim_start_matches('/'));
    for (what, items, refused) in [
        ("dots", vec![File("../../outside/new", "x")], true),
        ("absolute", vec![File("/outside/new", "x")], false),
        ("through an absolute link", vec![Symlink("a", out), File("a/new", "x")], true),
        ("through a dotted link", vec![Symlink("a", "../../../outside"), File("a/new", "x")], true),
        ("over a link", vec![Symlink("a", out), File("a", "x")], false),
        ("hard link out", vec![Hardlink("a", "../../../outside/kept"), File("a", "x")], true),
        ("hard link through a link", vec![Symlink("l", out), Hardlink("a", "l/kept")], true),
        ("folder over a link", vec![Symlink("a", out), Dir("a"), File("a/new", "x")], false),
        ("whiteout of dots", vec![File("a/.wh...", "")], true),
        ("a file as a folder", vec![File("a", ""), File("a/b", "")], true),
        ("name of the outside", vec![File(&through, "x")], false),
    ] {
        let (diff_id, bytes) = tar_of(&items);
        let outcome = snapshots.apply(&diff_id, bytes.as_slice());
        assert_eq!(outcome.is_err(), refused, "{what}: {outcome:?}");
        if let Err(error) = outcome {
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{what}: {error}");
        }
        assert_eq!(fs::read_dir(&outside).expect("there").count(), 1, "{what}: something came out");
        assert_eq!(fs::read_to_string(outside.join("kept")).expect("there"), "kept", "{what}");
    }
    let left: Vec<_> = fs::read_dir(folder.path().join("snapshots/t")).expect("there").collect();
    assert!(left.is_empty(), "half-done folders stay behind: {left:?}");
}

#[test]
fn a_tar_with_another_digest_is_no_layer() {
    let (_folder, snapshots) = open();
    let (_, bytes) = tar_of(&[File("a", "x")]);
    let wanted = DiffId::new(Digest::of(b"another"));
    let error = snapshots.apply(&wanted, bytes.as_slice()).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(!snapshots.has_layer(&wanted));
    let (diff_id, bytes) = tar_of(&[File("a", "0123456789")]);
    assert!(snapshots.apply(&diff_id, &bytes[..600]).is_err(), "cut off");
    assert!(!snapshots.has_layer(&diff_id));
    assert_eq!(snapshots.apply(&diff_id, bytes.as_slice()).expect("whole").content_bytes, 10);
    assert!(snapshots.apply(&diff_id, &b""[..]).is_ok(), "a second time needs no bytes");
}

/// The docker command's own tar of `build -f -` ends without padding and trailer.
#[test]
fn a_tar_may_end_with_its_last_byte_of_content() {
    let (_, bytes) = tar_of(&[File("a", "0123456789")]);
    let folder = tempfile::tempdir().expect("a folder");
    let unpack = |length: usize| {
        snapshots::unpack(folder.path(), Path::new(""), &bytes[..length], &snapshots::UnpackOptions::default())
    };
    assert_eq!(unpack(522).expect("whole content"), 10);
    assert!(unpack(521).is_err(), "a byte of content is missing");
    assert!(unpack(500).is_err(), "half a header");
}

#[test]
fn whiteouts_hide_what_is_below() {
    let (folder, snapshots) = open();
    let base = apply(
        &snapshots,
        &[Dir("d"), File("d/a", "a"), File("d/b", "b"), Dir("e"), File("e/old", "o"), Dir("f"), File("f/old", "o")],
    );
    let next = apply(
        &snapshots,
        &[
            Dir("d"),
            File("d/.wh.a", ""),
            Dir("e"),
            File("e/.wh..wh..opq", ""),
            File("e/new", "n"),
            File(".wh.f", ""),
            Dir("f"),
            File("f/new", "n"),
        ],
    );
    let mounted = Mounted::new(folder.path(), &snapshots, &[base, next]);
    for (path, content) in [
        ("d/a", None),
        ("d/b", Some("b")),
        ("e/old", None),
        ("e/new", Some("n")),
        ("f/old", None),
        ("f/new", Some("n")),
    ] {
        assert_eq!(mounted.read(path).as_deref(), content, "{path}");
    }
}

#[test]
fn a_diff_unpacked_again_is_the_same_tree() {
    let (folder, snapshots) = open();
    let base = apply(&snapshots, &[Dir("d"), File("d/a", "a"), File("gone", "x"), Dir("od"), File("od/x", "x")]);
    let layers = [base];
    let mounted = Mounted::new(folder.path(), &snapshots, &layers);
    let target = &mounted.target;
    let long = format!("{}/{}", "n".repeat(90), "m".repeat(90));
    fs::create_dir(target.join("n".repeat(90))).expect("made");
    fs::write(target.join(&long), "long").expect("made");
    fs::write(target.join("d/a"), "changed").expect("made");
    fs::remove_file(target.join("gone")).expect("removed");
    fs::remove_dir_all(target.join("od")).expect("removed");
    fs::create_dir(target.join("od")).expect("made");
    fs::write(target.join("od/y"), "y").expect("made");
    symlink("d/a", target.join("s")).expect("made");
    fs::hard_link(target.join(&long), target.join("h")).expect("made");
    fs::set_permissions(target.join("h"), fs::Permissions::from_mode(0o4755)).expect("set");
    xattr::set(target.join("h"), "user.note", b"\xff\x00").expect("set");
    let changes = snapshots.changes(&mounted.upper, &layers).expect("listed");
    let expect = |kind, path: &str| Change { kind, path: PathBuf::from(path) };
    for change in [
        expect(ChangeKind::Modified, "/d"),
        expect(ChangeKind::Modified, "/d/a"),
        expect(ChangeKind::Deleted, "/gone"),
        expect(ChangeKind::Added, "/s"),
        expect(ChangeKind::Added, "/od/y"),
    ] {
        assert!(changes.contains(&change), "{change:?} in {changes:?}");
    }
    let mut tar = Vec::new();
    let stat = snapshots.diff(&mounted.upper, &layers, &mut tar).expect("written");
    assert_eq!((stat.content_bytes, stat.empty), (4 + 7 + 1 + "d/a".len() as u64, false));
    let mut again = Vec::new();
    snapshots.diff(&mounted.upper, &layers, &mut again).expect("written");
    assert!(tar == again, "the same tree gives other bytes");
    drop(mounted);

    let diff_id = DiffId::new(Digest::of(&tar));
    snapshots.apply(&diff_id, tar.as_slice()).expect("applies");
    let stack = [layers[0].clone(), diff_id];
    let mounted = Mounted::new(folder.path(), &snapshots, &stack);
    for (path, content) in [
        (long.as_str(), Some("long")),
        ("d/a", Some("changed")),
        ("gone", None),
        ("od/x", None),
        ("od/y", Some("y")),
        ("s", Some("changed")),
        ("h", Some("long")),
    ] {
        assert_eq!(mounted.read(path).as_deref(), content, "{path}");
    }
    let (h, l) = (
        fs::metadata(mounted.target.join("h")).expect("there"),
        fs::metadata(mounted.target.join(&long)).expect("there"),
    );
    assert_eq!((h.mode() & 0o7777, h.ino()), (0o4755, l.ino()));
    assert_eq!(xattr::get(mounted.target.join("h"), "user.note").expect("read").as_deref(), Some(&b"\xff\x00"[..]));
}

#[test]
fn an_untouched_upper_is_empty() {
    let (folder, snapshots) = open();
    let layers = [apply(&snapshots, &[File("a", "a")])];
    let mounted = Mounted::new(folder.path(), &snapshots, &layers);
    assert!(snapshots.diff(&mounted.upper, &layers, Vec::new()).expect("written").empty);
    assert_eq!(snapshots.changes(&mounted.upper, &layers).expect("listed"), []);
}

#[test]
fn an_upper_folder_becomes_a_layer() {
    let (folder, snapshots) = open();
    let base = apply(&snapshots, &[Dir("d"), File("d/a", "a"), File("b", "b")]);
    let mounted = Mounted::new(folder.path(), &snapshots, std::slice::from_ref(&base));
    fs::write(mounted.target.join("d/new"), "new").expect("made");
    fs::remove_file(mounted.target.join("b")).expect("removed");
    let upper = mounted.upper.clone();
    drop(mounted);
    let mut tar = Vec::new();
    let diff = snapshots.diff(&upper, std::slice::from_ref(&base), &mut tar).expect("written");
    assert_eq!(snapshots::upper_size(&upper).expect("walked"), diff.content_bytes, "both count alike");
    let next = DiffId::new(Digest::of(&tar));
    snapshots.adopt(&upper, &next, diff.content_bytes).expect("adopted");
    assert!(!upper.exists());
    let mounted = Mounted::new(folder.path(), &snapshots, &[base, next]);
    assert_eq!(
        (mounted.read("d/a").as_deref(), mounted.read("d/new").as_deref(), mounted.read("b")),
        (Some("a"), Some("new"), None)
    );
}

#[test]
fn as_many_layers_mount_as_docker_allows() {
    let (folder, snapshots) = open();
    let layers: Vec<_> =
        (0..125).map(|n| apply(&snapshots, &[File(&format!("f{n}"), "x"), File("last", &n.to_string())])).collect();
    let deep = folder.path().join("a-folder-name-as-long-as-a-container-id-0123456789abcdef0123456789abcdef");
    fs::create_dir(&deep).expect("made");
    let mounted = Mounted::new(&deep, &snapshots, &layers);
    assert_eq!((mounted.read("last").as_deref(), mounted.read("f0").as_deref()), (Some("124"), Some("x")));
}

#[test]
fn a_layer_may_occur_twice_and_none_may_occur() {
    let (folder, snapshots) = open();
    let one = apply(&snapshots, &[File("a", "1")]);
    let two = apply(&snapshots, &[File("a", "2"), File("b", "2")]);
    let mounted = Mounted::new(folder.path(), &snapshots, &[one.clone(), two, one]);
    assert_eq!((mounted.read("a").as_deref(), mounted.read("b").as_deref()), (Some("1"), Some("2")));
    drop(mounted);
    let scratch = Mounted::new(folder.path(), &snapshots, &[]);
    fs::write(scratch.target.join("x"), "x").expect("writable");
    assert_eq!(fs::read_dir(&scratch.upper).expect("there").count(), 1);
}

#[test]
fn only_layers_that_nobody_holds_are_removed() {
    let (_folder, snapshots) = open();
    let held = apply(&snapshots, &[File("a", "1")]);
    let free = apply(&snapshots, &[File("a", "2")]);
    snapshots.hold(std::slice::from_ref(&held), "container-1").expect("held");
    let both = [held.clone(), free.clone()];
    assert_eq!(snapshots.remove_unheld(&both).expect("removed"), std::slice::from_ref(&free));
    assert!(snapshots.has_layer(&held) && !snapshots.has_layer(&free));
    snapshots.release("container-1").expect("released");
    snapshots.release("container-1").expect("twice");
    assert_eq!(snapshots.remove_unheld(&both).expect("removed"), [held]);
    assert_eq!(snapshots.hold(&[], "../x").expect_err("refused").kind(), ErrorKind::InvalidArgument);
}

#[test]
fn a_start_sweeps_what_a_dead_process_left() {
    let (folder, snapshots) = open();
    let kept = apply(&snapshots, &[File("a", "1")]);
    let root = folder.path().join("snapshots");
    let (half, orphan) = (root.join("t/4194305-1-00"), root.join("l/0123456789ab"));
    fs::create_dir(&half).expect("made");
    fs::create_dir(&orphan).expect("made");
    fs::write(orphan.join("x"), "x").expect("made");
    let snapshots = Snapshots::open(&root).expect("opens");
    assert!(!half.exists() && !orphan.exists());
    assert!(snapshots.folder(&kept).expect("there").join("a").exists());
}

#[test]
fn devices_and_unknown_attributes() {
    let (_folder, snapshots) = open();
    let mut builder = tar::Builder::new(Vec::new());
    let records: [(&str, &[u8]); 2] = [("SCHILY.xattr.trusted.overlay.opaque", b"y"), ("SCHILY.xattr.user.ok", b"1")];
    builder.append_pax_extensions(records).expect("in memory");
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_path("d/").expect("short");
    header.set_mode(0o700);
    header.set_size(0);
    header.set_cksum();
    builder.append(&header, std::io::empty()).expect("in memory");
    header.set_entry_type(tar::EntryType::Char);
    header.set_path("null").expect("short");
    header.set_mode(0o666);
    header.set_device_major(1).expect("small");
    header.set_device_minor(3).expect("small");
    header.set_cksum();
    builder.append(&header, std::io::empty()).expect("in memory");
    let mut bytes = builder.into_inner().expect("in memory");
    bytes.write_all(&[0; 512]).expect("in memory");
    let diff_id = DiffId::new(Digest::of(&bytes));
    snapshots.apply(&diff_id, bytes.as_slice()).expect("applies");
    let folder = snapshots.folder(&diff_id).expect("there");
    assert_eq!(xattr::get(folder.join("d"), "trusted.overlay.opaque").expect("read"), None);
    assert_eq!(xattr::get(folder.join("d"), "user.ok").expect("read").as_deref(), Some(&b"1"[..]));
    let null = fs::metadata(folder.join("null")).expect("there");
    assert!(null.file_type().is_char_device());
    assert_eq!((null.mode() & 0o777, null.rdev()), (0o666, nix::sys::stat::makedev(1, 3)));
}

#[test]
fn a_tree_is_packed_from_inside() {
    let (folder, _snapshots) = open();
    let (root, outside) = (folder.path().join("root"), folder.path().join("secret"));
    fs::write(&outside, "secret").expect("made");
    fs::create_dir_all(root.join("a/b")).expect("made");
    fs::write(root.join("a/b/c"), "inside").expect("made");
    symlink("/a", root.join("link")).expect("made");
    symlink(&outside, root.join("trap")).expect("made");
    symlink(folder.path(), root.join("up")).expect("made");
    let names = |path: &str| {
        let mut bytes = Vec::new();
        snapshots::pack(&root, Path::new(path), Path::new("top"), &mut bytes)?;
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().expect("a tar").map(|entry| {
            let entry = entry.expect("an entry");
            (entry.path().expect("a path").display().to_string(), entry.header().entry_type())
        });
        Ok::<_, snapshots::Error>(entries.collect::<Vec<_>>())
    };
    let (dir, file, link) = (tar::EntryType::Directory, tar::EntryType::Regular, tar::EntryType::Symlink);
    let list = |items: &[(&str, tar::EntryType)]| items.iter().map(|(n, k)| ((*n).to_owned(), *k)).collect::<Vec<_>>();
    assert_eq!(names("/link/b").expect("packs"), list(&[("top/", dir), ("top/c", file)]));
    assert_eq!(names("/a/b/c").expect("packs"), list(&[("top", file)]));
    assert_eq!(names("/trap").expect("packs"), list(&[("top", link)]));
    assert_eq!(names("/").expect("packs").len(), 7);
    assert_eq!(names("/up/secret").expect_err("outside").kind(), ErrorKind::NotFound);
    assert_eq!(names("/nothing").expect_err("missing").kind(), ErrorKind::NotFound);
}

/// Names in a tar, in their order.
fn names(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().expect("a tar");
    entries.map(|entry| entry.expect("an entry").path().expect("a path").display().to_string()).collect()
}

#[test]
fn several_layers_become_one_that_shows_the_same() {
    let (folder, snapshots) = open();
    let base = apply(
        &snapshots,
        &[
            Dir("kept"),
            File("kept/a", "base"),
            Dir("gone"),
            File("gone/x", "base"),
            File("gone/y", "base"),
            Dir("again"),
            File("again/old", "base"),
            File("file", "base"),
            Dir("emptied"),
            File("emptied/one", "base"),
        ],
    );
    let first = apply(
        &snapshots,
        &[
            Dir("kept"),
            File("kept/b", "first"),
            File("kept/passing", "first"),
            File(".wh.gone", ""),
            File(".wh.again", ""),
            File("twin", "first"),
            Hardlink("other-twin", "twin"),
        ],
    );
    let second = apply(
        &snapshots,
        &[
            Dir("kept"),
            File("kept/.wh.passing", ""),
            File("kept/a", "second"),
            Dir("again"),
            File("again/new", "second"),
            File(".wh.file", ""),
            Dir("emptied"),
            File("emptied/.wh..wh..opq", ""),
            Symlink("link", "kept/a"),
        ],
    );
    let all = [base.clone(), first.clone(), second.clone()];
    let mounted = Mounted::new(folder.path(), &snapshots, &all);
    let below = std::slice::from_ref(&base);
    let mut tar = Vec::new();
    let above = [first, second];
    let stat = snapshots.squash(below, &above, &mounted.target, &mut tar).expect("squashed");
    assert!(!stat.empty);
    let mut again = Vec::new();
    snapshots.squash(below, &above, &mounted.target, &mut again).expect("squashed");
    assert_eq!(tar, again);
    let found = names(&tar);
    assert!(!found.iter().any(|name| name.contains("passing")), "{found:?}");
    assert!(found.contains(&".wh.gone".to_owned()) && found.contains(&".wh.file".to_owned()), "{found:?}");
    let one = DiffId::new(Digest::of(&tar));
    snapshots.apply(&one, tar.as_slice()).expect("applies");
    let squashed = Mounted::new(folder.path(), &snapshots, &[base.clone(), one]);
    let tree = |mounted: &Mounted| {
        let mut tar = Vec::new();
        snapshots::export(&mounted.target, &mut tar).expect("exported");
        tar
    };
    assert_eq!(names(&tree(&squashed)), names(&tree(&mounted)));
    for (path, content) in [
        ("kept/a", Some("second")),
        ("kept/b", Some("first")),
        ("kept/passing", None),
        ("gone/x", None),
        ("again/old", None),
        ("again/new", Some("second")),
        ("file", None),
        ("emptied/one", None),
        ("other-twin", Some("first")),
        ("link", Some("second")),
    ] {
        assert_eq!((path, squashed.read(path).as_deref()), (path, content));
    }
    let inode = |path: &str| fs::metadata(squashed.target.join(path)).expect("there").ino();
    assert_eq!(inode("twin"), inode("other-twin"));
    // On nothing, all of it is what there is.
    let mut whole = Vec::new();
    snapshots.squash(&[], &all, &mounted.target, &mut whole).expect("squashed");
    assert!(names(&whole).iter().all(|name| !name.contains(".wh.")), "{:?}", names(&whole));
    let mut nothing = Vec::new();
    assert!(snapshots.squash(below, &[], &mounted.target, &mut nothing).expect("squashed").empty);
}
