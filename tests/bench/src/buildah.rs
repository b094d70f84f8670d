//! buildah with storage of its own, as a peer of builds.

use std::path::{Path, PathBuf};
use std::process::Command;

use kit::{Output, run_command};

/// The name by which its Dockerfiles have busybox.
pub const BASE: &str = "docker.io/library/busybox:latest";

/// What it makes for the network of its steps.
const BRIDGE: &str = "cni-podman0";

/// Its storage in a folder of the caller's; emptied when this is dropped.
pub struct Buildah {
    folder: PathBuf,
    /// Somebody else's, which stays.
    had_bridge: bool,
}

impl Buildah {
    /// Makes the storage, with busybox in it.
    pub fn new(folder: &Path) -> Self {
        let had_bridge = Path::new("/sys/class/net").join(BRIDGE).exists();
        let buildah = Self { folder: folder.join("buildah"), had_bridge };
        std::fs::create_dir_all(&buildah.folder).expect("make the storage");
        let archive = buildah.folder.join("busybox.tar");
        std::fs::write(&archive, kit::busybox()).expect("write the image");
        buildah.run(folder, &["pull", "-q", &format!("docker-archive:{}", archive.display())]).ok();
        // An archive's names belong to localhost there.
        buildah.run(folder, &["tag", "localhost/busybox:latest", BASE]).ok();
        buildah
    }

    /// `buildah build` in a folder. By runc, since crun refuses a machine with both kinds of control groups.
    pub fn build(&self, context: &Path, args: &[&str]) {
        let all = [&["build", "-q", "--runtime", "runc", "--pull-never"], args, &["."]].concat();
        self.run(context, &all).ok();
    }

    fn run(&self, folder: &Path, args: &[&str]) -> Output {
        let mut command = Command::new("buildah");
        command.current_dir(folder).args(["--storage-driver", "overlay", "--root"]).arg(self.folder.join("root"));
        run_command(command.arg("--runroot").arg(self.folder.join("run")), args, None)
    }
}

impl Drop for Buildah {
    fn drop(&mut self) {
        // Its storage is a mount of itself.
        self.run(Path::new("/"), &["rmi", "-af"]);
        let mounted = self.folder.join("root/overlay");
        run_command(&mut Command::new("umount"), &[mounted], None);
        if !self.had_bridge {
            run_command(&mut Command::new("ip"), &["link", "delete", BRIDGE], None);
        }
    }
}
