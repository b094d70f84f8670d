//! What of the layers has reached the disk. A layer's files are not forced out while somebody waits for the layer;
//! instead its record carries the machine's boot id until a later `syncfs` has written all of it. A record of another
//! boot counts as no layer: after a crash of the machine such a layer is unpacked anew from its blob.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::layers::list;
use crate::{Error, Snapshots};

/// Layers of one build come one after the other; one `syncfs` does for all of them.
const PAUSE: Duration = Duration::from_secs(5);

/// This boot of the machine. Where the kernel does not tell, nothing is trusted until it has been written.
pub static BOOT_ID: LazyLock<String> = LazyLock::new(|| {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let id = text.trim().replace('-', "");
    if id.is_empty() { format!("process{}", std::process::id()) } else { id }
});

static WAITING: AtomicBool = AtomicBool::new(false);

/// Writes new layers to the disk a little later, in a thread of its own.
pub fn write_soon(snapshots: &Snapshots) {
    if WAITING.swap(true, Ordering::AcqRel) {
        return;
    }
    let snapshots = snapshots.clone();
    let started = std::thread::Builder::new().name("sync-layers".to_owned()).spawn(move || {
        std::thread::sleep(PAUSE);
        // What is published from here on is another thread's.
        WAITING.store(false, Ordering::Release);
        if let Err(error) = write_now(&snapshots) {
            tracing::warn!(%error, "layers could not be forced to the disk; after a crash they are unpacked anew");
        }
    });
    if started.is_err() {
        WAITING.store(false, Ordering::Release);
    }
}

/// Forces all layers to the disk and then says so in their records.
pub fn write_now(snapshots: &Snapshots) -> Result<(), Error> {
    let mark = format!(" {}\n", *BOOT_ID);
    let fresh = |text: &str| text.ends_with(&mark);
    let mut records = Vec::new();
    for path in list(&snapshots.root().join("ids"))? {
        match fs::read_to_string(&path) {
            Ok(text) if fresh(&text) => records.push((path, text)),
            _ => {}
        }
    }
    if records.is_empty() {
        return Ok(());
    }
    let root = File::open(snapshots.root()).map_err(Error::io("opening", snapshots.root()))?;
    nix::unistd::syncfs(root.as_fd())
        .map_err(|errno| Error::io("syncing", snapshots.root())(io::Error::from(errno)))?;
    // Nobody removes a layer meanwhile, so that no record comes back.
    let _lock = snapshots.gc_shared()?;
    for (path, text) in records {
        if fs::read_to_string(&path).is_ok_and(|now| now == text) {
            let draft = snapshots.draft();
            let kept = format!("{}\n", text.trim_end_matches(&mark));
            fs::write(&draft, kept).and_then(|()| fs::rename(&draft, &path)).map_err(Error::io("writing", path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use model::{DiffId, Digest};

    use super::*;

    #[test]
    fn layers_of_another_boot_are_none_until_they_are_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let snapshots = Snapshots::open(folder.path()).expect("opens");
        let tar = tar::Builder::new(Vec::new()).into_inner().expect("an empty tar");
        let layer = DiffId::new(Digest::of(&tar));
        snapshots.apply(&layer, tar.as_slice()).expect("unpacked");
        let record = snapshots.id_file(&layer);
        let crash = |record: &std::path::Path| {
            let text = fs::read_to_string(record).expect("a record");
            fs::write(record, text.replace(BOOT_ID.as_str(), "before")).expect("written");
        };
        assert!(snapshots.has_layer(&layer), "this boot made it");
        crash(&record);
        assert!(!snapshots.has_layer(&layer), "nobody knows what reached the disk");
        snapshots.apply(&layer, tar.as_slice()).expect("unpacked anew");
        assert!(snapshots.has_layer(&layer));
        write_now(&snapshots).expect("synced");
        crash(&record);
        assert!(snapshots.has_layer(&layer), "all of it is on disk");
        assert_eq!(snapshots.remove_unheld(std::slice::from_ref(&layer)).expect("removed").len(), 1);
        snapshots.apply(&layer, tar.as_slice()).expect("unpacked");
        crash(&record);
        Snapshots::open(folder.path()).expect("opens");
        assert!(!record.exists(), "the sweep takes what is no layer");
    }
}
