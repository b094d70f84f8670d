//! The cap of what is unpacked on this machine. Layers that nobody holds go, the one held longest ago first; one that is wanted
//! again is unpacked again from the layer store. Several workers and a node of one machine share its layers: the smallest
//! cap of the workers holds for all.

use std::path::Path;
use std::time::Duration;

use snapshots::Snapshots;
use tokio_util::sync::CancellationToken;

/// Looked at so often: reading the sizes of a thousand layers takes some ten milliseconds.
const PERIOD: Duration = Duration::from_secs(5);
/// Without a cap of its own a machine's layers have this part of its disk.
const DISK_PART: u64 = 2;

/// The cap that was given, else a part of the disk of this folder.
pub fn cap_bytes(given: u64, folder: &Path) -> u64 {
    if given != 0 {
        return given;
    }
    // A disk that cannot be asked has no cap.
    nix::sys::statvfs::statvfs(folder).map_or(u64::MAX, |disk| disk.blocks() * disk.fragment_size() / DISK_PART)
}

/// Holds the unpacked layers under the cap until `stop`, also while builds go on.
pub async fn hold_cap(snapshots: Snapshots, cap_bytes: u64, stop: CancellationToken) {
    let mut past = false;
    loop {
        let layers = snapshots.clone();
        match tokio::task::spawn_blocking(move || layers.trim(cap_bytes)).await {
            Ok(Ok(trimmed)) => {
                if trimmed.freed_bytes > 0 {
                    tracing::info!(trimmed.freed_bytes, trimmed.left_bytes, cap_bytes, "layers went for the cap");
                }
                let is_past = trimmed.left_bytes > cap_bytes;
                if is_past && !past {
                    tracing::warn!(trimmed.left_bytes, cap_bytes, "what builds and containers hold is past the cap");
                }
                past = is_past;
            }
            Ok(Err(error)) => tracing::warn!(%error, "unpacked layers may be past their cap"),
            Err(error) => tracing::warn!(%error, "unpacked layers may be past their cap"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}
