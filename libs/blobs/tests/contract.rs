//! What a blob store promises, on the store of files.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use blobs::{Blobs, Error};
use bytes::Bytes;
use model::{Digest, ErrorKind};

const HOUR: Duration = Duration::from_secs(3600);

fn open(root: &Path) -> Blobs {
    Blobs::open(root, 0).expect("opens")
}

async fn store(blobs: &Blobs, content: &[u8]) -> Digest {
    let mut upload = blobs.upload(Some(content.len() as u64)).await.expect("starts");
    for chunk in content.chunks(100_000) {
        upload.write(Bytes::copy_from_slice(chunk)).await.expect("writes");
    }
    upload.commit(None, None).await.expect("commits").0
}

fn files_in(folder: &Path) -> usize {
    std::fs::read_dir(folder).expect("lists").count()
}

#[tokio::test]
async fn what_is_stored_comes_back_also_after_a_restart() {
    let root = tempfile::tempdir().expect("a folder");
    for content in [Vec::new(), b"abc".to_vec(), vec![7; 3_500_001]] {
        let digest = store(&open(root.path()), &content).await;
        assert_eq!(digest, Digest::of(&content));
        let (mut file, size) = open(root.path()).read(&digest).expect("is there");
        let mut read = Vec::new();
        file.read_to_end(&mut read).expect("reads");
        assert_eq!((read.len() as u64, read == content), (size, true));
        assert_eq!(files_in(&root.path().join("uploads")), 0);
    }
    assert_eq!(open(root.path()).usage().expect("counts").blob_count, 3);
}

#[tokio::test]
async fn a_wrong_digest_or_a_broken_upload_leaves_nothing() {
    let root = tempfile::tempdir().expect("a folder");
    let blobs = open(root.path());
    let mut upload = blobs.upload(None).await.expect("starts");
    upload.write(Bytes::from_static(b"abc")).await.expect("writes");
    let error = upload.commit(Some(&Digest::of(b"abd")), None).await.expect_err("is refused");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);

    let mut upload = blobs.upload(None).await.expect("starts");
    upload.write(Bytes::from(vec![1; 3 << 20])).await.expect("writes");
    drop(upload);
    // The batch that was on its way still ends on its own thread.
    for _ in 0..200 {
        if files_in(&root.path().join("uploads")) == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(files_in(&root.path().join("uploads")), 0);
    assert_eq!(blobs.usage().expect("counts").blob_count, 0);
}

#[tokio::test]
async fn leftovers_of_a_dead_process_are_forgotten() {
    let root = tempfile::tempdir().expect("a folder");
    std::fs::create_dir_all(root.path().join("uploads")).expect("creates");
    std::fs::write(root.path().join("uploads/.tmpdead"), "half").expect("writes");
    open(root.path());
    assert_eq!(files_in(&root.path().join("uploads")), 0);
}

#[tokio::test]
async fn below_the_floor_nothing_is_taken() {
    let root = tempfile::tempdir().expect("a folder");
    let blobs = Blobs::open(root.path(), u64::MAX / 2).expect("opens");
    let error = blobs.upload(None).await.err().expect("is refused");
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Exhausted, "no space left on device"));
    let blobs = open(root.path());
    assert!(matches!(blobs.upload(Some(u64::MAX / 2)).await.err(), Some(Error::NoSpace)));
}

#[tokio::test]
async fn a_pinned_blob_stays() {
    let root = tempfile::tempdir().expect("a folder");
    let blobs = open(root.path());
    let digest = store(&blobs, b"layer").await;
    let lease = blobs.lease("test", HOUR).expect("leases");
    blobs.pin(&lease, &digest).expect("pins");
    assert!(blobs.mark(std::slice::from_ref(&digest)).digests().is_empty());
    blobs.end(&lease);
    let again = blobs.lease("test", HOUR).expect("leases");
    let mut upload = blobs.upload(None).await.expect("starts");
    upload.write(Bytes::from_static(b"layer")).await.expect("writes");
    upload.commit(Some(&digest), Some(&again)).await.expect("commits");
    assert!(blobs.mark(std::slice::from_ref(&digest)).digests().is_empty(), "pinned while it was written");
    blobs.end(&again);
    let marked = blobs.mark(std::slice::from_ref(&digest));
    assert_eq!(blobs.remove(marked, |_| true).expect("removes"), [(digest.clone(), 5)]);
    assert!(matches!(blobs.read(&digest), Err(Error::NotFound(_))));
}

#[tokio::test]
async fn a_pin_or_a_write_after_the_mark_saves_the_blob() {
    let root = tempfile::tempdir().expect("a folder");
    let blobs = open(root.path());
    let digest = store(&blobs, b"layer").await;

    // Pinned, recorded elsewhere and let go again, all while the remover was asking.
    let marked = blobs.mark(std::slice::from_ref(&digest));
    let lease = blobs.lease("test", HOUR).expect("leases");
    blobs.pin(&lease, &digest).expect("pins");
    blobs.end(&lease);
    assert!(blobs.remove(marked, |_| true).expect("removes").is_empty());

    let marked = blobs.mark(std::slice::from_ref(&digest));
    store(&blobs, b"layer").await;
    assert!(blobs.remove(marked, |_| true).expect("removes").is_empty());

    let marked = blobs.mark(std::slice::from_ref(&digest));
    assert!(blobs.remove(marked, |_| false).expect("removes").is_empty());
    assert_eq!(blobs.size(&digest).expect("looks"), Some(5));
}
