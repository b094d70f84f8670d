//! A busybox root and a shim on it; needs root and crun.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use runtime::bundle::{self, BundleSpec, ProcessSpec};
use runtime::shim::{Handle, Spawn};
use runtime::wire::{LogConfig, ShimConfig};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

pub struct Room {
    pub dir: tempfile::TempDir,
    pub id: String,
}

impl Room {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = dir.path().join("root");
        for folder in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
            std::fs::create_dir_all(root.join(folder)).expect("mkdir");
        }
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
        for name in [
            "sh", "true", "cat", "echo", "sleep", "id", "env", "grep", "stty", "head", "yes", "dd", "kill", "ls",
            "mkdir", "test",
        ] {
            symlink("busybox", root.join("bin").join(name)).expect("symlink");
        }
        std::fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/home/web:/bin/sh\n")
            .expect("passwd");
        std::fs::write(root.join("etc/group"), "root:x:0:\nwww:x:34:\n").expect("group");
        std::fs::write(root.join("etc/plain"), "no program").expect("plain");
        let id = format!("t{}", dir.path().file_name().expect("a name").to_string_lossy().replace('.', ""));
        Self { dir, id }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn spec(&self, args: &[&str]) -> BundleSpec {
        BundleSpec {
            rootfs: self.path("root"),
            hostname: "boxy".into(),
            process: ProcessSpec { args: args.iter().map(|a| a.to_string()).collect(), ..ProcessSpec::default() },
            cgroup_path: format!("/boxyard/{}", self.id),
            ..BundleSpec::default()
        }
    }

    pub fn spawn(&self, spec: &BundleSpec) -> Spawn {
        bundle::write(&self.path("bundle"), spec).expect("a bundle");
        Spawn {
            shim_binary: Path::new(env!("CARGO_BIN_EXE_boxyard-shim")).into(),
            dir: self.path("shim"),
            config: ShimConfig {
                runtime_binary: std::env::var_os("OCI_RUNTIME").unwrap_or_else(|| "/usr/bin/crun".into()).into(),
                runtime_root: self.path("crun"),
                id: self.id.clone(),
                bundle: self.path("bundle"),
                tty: spec.process.tty,
                open_stdin: false,
                stdin_once: false,
                log: Some(LogConfig { path: self.path("log"), max_bytes: 0, max_files: 1 }),
                watch: false,
                deadline_ms: 0,
                exec: None,
                cgroup_path: spec.cgroup_path.clone(),
                tty_size: (0, 0),
            },
        }
    }

    pub fn exec(&self, spawn: &Spawn, rootfs: &Path, spec: &bundle::ExecSpec) -> Spawn {
        let mut exec = spawn.clone();
        exec.dir = self.path("exec");
        exec.config.exec = Some(bundle::exec_process(&self.path("bundle"), rootfs, spec).expect("a process"));
        exec.config.log = None;
        exec.config.tty = spec.tty;
        exec
    }

    pub async fn run(&self, spec: &BundleSpec) -> (i32, String) {
        let handle = self.spawn(spec).spawn().await.expect("a shim");
        let stream = attach(&handle).await;
        handle.start().await.expect("it starts");
        let (out, err) = read_frames(stream).await;
        let status = handle.wait_exit().await.expect("it ends");
        handle.wait_gone().await;
        (status.code, out + &err)
    }
}

pub async fn attach(handle: &Handle) -> UnixStream {
    handle
        .attach(runtime::shim::Streams { stdin: true, stdout: true, stderr: true })
        .await
        .expect("the shim lets us attach")
}

/// stdout and stderr up to the end.
pub async fn read_frames(mut stream: UnixStream) -> (String, String) {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.expect("the stream ends well");
    let mut texts = [Vec::new(), Vec::new()];
    let mut rest = all.as_slice();
    while let [kind, 0, 0, 0, a, b, c, d, tail @ ..] = rest {
        let len = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        texts[usize::from(*kind == 2)].extend_from_slice(&tail[..len]);
        rest = &tail[len..];
    }
    assert!(rest.is_empty(), "half a frame");
    texts.map(|text| String::from_utf8_lossy(&text).into_owned()).into()
}
