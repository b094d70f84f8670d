//! Layers as folders of one machine: unpack a layer, mount a stack of them, read back what was changed.
//!
//! Entry point: [`Snapshots`]. Several processes of a machine (node, build workers) use one root at the same time; the
//! state is on disk only:
//!
//! ```text
//! ids/<64 hex>      a layer that is complete: its folder's name, its size in bytes, and the boot id until it is on disk
//! l/<12 hex>        the unpacked layer; short names, so that 125 of them fit into one mount's options
//! refs/<owner>      the layers that a container or a build step holds
//! t/…               unpacking; named after the process, swept when that process is gone
//! locks/<64 hex>    who unpacks a layer; its time says when a byte of it came last
//! gc.lock           shared while a folder becomes a layer, exclusive while layers are removed
//! ```
//!
//! Invariants: a layer is there only when its whole tar had its diff id; it never changes afterwards. Every path of a tar
//! entry is hostile and is resolved by the kernel inside the folder (`openat2`, RESOLVE_IN_ROOT). Whiteouts are kept as
//! overlayfs wants them (character device 0/0, `trusted.overlay.opaque`) and become `.wh.` entries in a tar (OCI
//! image-spec, Layer Filesystem Changeset). Everything here blocks: call it where blocking is allowed.

mod changes;
mod durable;
mod error;
mod holds;
mod layers;
mod locks;
mod mount;
mod pack;
mod padded;
mod root;
mod squash;
mod unpack;
mod walk;
mod whiteout;

pub use changes::{Change, ChangeKind};
pub use error::Error;
pub use holds::Unpacking;
pub use layers::{LayerStat, Snapshots};
pub use locks::{lock_shared_within, lock_within};
pub use mount::{MountSpec, mount_over, unmount};
pub use pack::{DiffStat, export, export_all, pack};
pub use unpack::{UnpackOptions, unpack};
pub use walk::upper_size;
pub use whiteout::is_portable_xattr;
