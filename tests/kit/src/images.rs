//! Images that tests start from, made on this machine: busybox from Debian's static build, and a Debian root.

use std::path::PathBuf;

/// A tar in memory, written entry by entry.
pub struct Archive {
    builder: tar::Builder<Vec<u8>>,
}

impl Default for Archive {
    fn default() -> Self {
        Self::new()
    }
}

impl Archive {
    pub fn new() -> Self {
        Self { builder: tar::Builder::new(Vec::new()) }
    }

    /// Adds a file. The name is written as it stands, so that tests can make hostile archives.
    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> &mut Self {
        self.entry(name, tar::EntryType::Regular, mode, "", content)
    }

    pub fn folder(&mut self, name: &str) -> &mut Self {
        self.entry(name, tar::EntryType::Directory, 0o755, "", &[])
    }

    pub fn symlink(&mut self, name: &str, target: &str) -> &mut Self {
        self.entry(name, tar::EntryType::Symlink, 0o777, target, &[])
    }

    pub fn hard_link(&mut self, name: &str, target: &str) -> &mut Self {
        self.entry(name, tar::EntryType::Link, 0o644, target, &[])
    }

    /// Any entry, with the bytes of its name and target unchecked.
    pub fn entry(&mut self, name: &str, kind: tar::EntryType, mode: u32, target: &str, content: &[u8]) -> &mut Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        // Of a device: the machine's first loop device, where it has one.
        header.set_device_major(7).and_then(|()| header.set_device_minor(0)).expect("a header with room for them");
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        self.builder.append(&header, content).expect("write to memory");
        self
    }

    pub fn finish(&mut self) -> Vec<u8> {
        self.builder.finish().expect("write to memory");
        self.builder.get_ref().clone()
    }
}

/// The layer of the busybox image: the static busybox, its links, and the folders a container expects.
fn busybox_layer() -> Vec<u8> {
    let program = std::fs::read("/bin/busybox").expect("busybox-static is installed: run make setup");
    let list = std::process::Command::new("/bin/busybox").arg("--list").output().expect("busybox runs");
    let mut layer = Archive::new();
    for folder in ["bin/", "etc/", "root/", "tmp/", "home/", "var/"] {
        layer.folder(folder);
    }
    layer.file("bin/busybox", 0o755, &program);
    for applet in String::from_utf8_lossy(&list.stdout).lines().filter(|name| *name != "busybox") {
        layer.symlink(&format!("bin/{applet}"), "busybox");
    }
    layer.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000::/home:/bin/sh\n");
    layer.file("etc/group", 0o644, b"root:x:0:\nguest:x:1000:\nextra:x:2000:guest\n");
    layer.finish()
}

/// A docker-archive of `busybox:latest`, as `docker load` takes it. The same bytes every time on one machine.
pub fn busybox() -> Vec<u8> {
    let layer = busybox_layer();
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))]},
        "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "busybox-static"}],
    })
    .to_string();
    let manifest = serde_json::json!([{
        "Config": "config.json", "RepoTags": ["busybox:latest"], "Layers": ["layer.tar"],
    }])
    .to_string();
    let mut archive = Archive::new();
    archive.file("config.json", 0o644, config.as_bytes());
    archive.file("layer.tar", 0o644, &layer);
    archive.file("manifest.json", 0o644, manifest.as_bytes());
    archive.finish()
}

/// The sha256 of these bytes in hex, by the machine's own sha256sum: a second opinion on the product's.
pub fn sha256(bytes: &[u8]) -> String {
    let mut command = std::process::Command::new("sha256sum");
    let output = crate::engine::run_command(&mut command, &[] as &[&str], Some(bytes));
    output.ok().split(' ').next().unwrap_or_default().to_owned()
}

/// The Debian root with apt that `make setup` made, for `docker import FILE ubuntu`.
pub fn debian_root() -> PathBuf {
    let path = crate::boxyard::cache_dir().join("debian-root-1.tar");
    assert!(path.is_file(), "{} is missing: run make setup", path.display());
    path
}
