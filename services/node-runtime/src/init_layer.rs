//! The layer between an image and a container's own: places for what is mounted over, so that they are no changes of
//! the container. Made once for a machine.

use std::path::Path;

use anyhow::Context as _;
use model::{DiffId, Digest};
use snapshots::Snapshots;
use tar::{Builder, EntryType, Header};

const FILE: &str = "init-layer.tar";

pub fn ensure(machine_dir: &Path, snapshots: &Snapshots) -> anyhow::Result<DiffId> {
    let path = machine_dir.join(FILE);
    if !path.exists() {
        let draft = path.with_extension("new");
        std::fs::write(&draft, tar()?).context("writing the init layer")?;
        std::fs::rename(&draft, &path).context("writing the init layer")?;
    }
    let bytes = std::fs::read(&path).context("reading the init layer")?;
    let id = DiffId::new(Digest::of(&bytes));
    snapshots.apply(&id, bytes.as_slice()).context("unpacking the init layer")?;
    snapshots.hold(std::slice::from_ref(&id), "init-layer").context("holding the init layer")?;
    Ok(id)
}

fn tar() -> std::io::Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    let now = runtime::wire::now_ns().unsigned_abs() / 1_000_000_000;
    let mut entry = |name: &str, kind: EntryType, mode: u32, link: Option<&str>| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(now);
        header.set_size(0);
        match link {
            Some(link) => tar.append_link(&mut header, name, link),
            None => tar.append_data(&mut header, name, std::io::empty()),
        }
    };
    for folder in ["dev", "dev/pts", "dev/shm", "etc", "proc", "sys"] {
        entry(folder, EntryType::Directory, 0o755, None)?;
    }
    for file in [".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf"] {
        entry(file, EntryType::Regular, 0o755, None)?;
    }
    entry("etc/mtab", EntryType::Symlink, 0o777, Some("/proc/mounts"))?;
    tar.into_inner()
}
