//! `docker cp`: paths are hostile and are resolved by the kernel inside the container's root.

use std::io::Write;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bus::Error;
use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::mount::MsFlags;
use nix::sys::stat::{FileStat, fstat};
use proto::mount::Type;
use proto::{ArchiveGet, ArchivePut, ArchiveStat, Empty, PathStat};
use streams::Writer;
use tokio::io::AsyncReadExt as _;

use crate::commit::blocking;
use crate::containers::Container;
use crate::node::Node;
use crate::start::snapshot;

/// A container's root for as long as this lives; of a container that does not run it was mounted for this.
pub struct Tree {
    pub path: PathBuf,
    mounted: bool,
    _held: Vec<tokio::sync::OwnedMutexGuard<()>>,
}

impl Drop for Tree {
    fn drop(&mut self) {
        if self.mounted
            && let Err(error) = snapshots::unmount(&self.path)
        {
            tracing::warn!(%error, "a root could not be unmounted");
        }
    }
}

impl Node {
    /// Binds and volumes on the mounted root of a container that does not run; they go with the root's mount. A place
    /// that is not there yet is made at the start.
    fn mount_volumes(&self, container: &Container) -> Result<(), Error> {
        for mount in &container.spec().mounts {
            let source = match mount.r#type() {
                Type::Bind => PathBuf::from(&mount.source),
                Type::Volume => self.volume_data(&mount.source)?,
                Type::Tmpfs => continue,
            };
            let Ok(place) = open(&container.dir.join("rootfs"), &mount.target, OFlag::O_PATH) else { continue };
            let place = format!("/proc/self/fd/{}", place.as_raw_fd());
            let bound = nix::mount::mount(Some(&source), place.as_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>);
            bound.map_err(|e| Error::internal(format!("binding {}: {e}", source.display())))?;
            if self.is_read_only(mount) {
                // The flag of a bind is set by a second call, on the mount that is on top now.
                let Ok(top) = open(&container.dir.join("rootfs"), &mount.target, OFlag::O_PATH) else { continue };
                let place = format!("/proc/self/fd/{}", top.as_raw_fd());
                let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
                nix::mount::mount(None::<&str>, place.as_str(), None::<&str>, flags, None::<&str>)
                    .map_err(|e| Error::internal(format!("binding {}: {e}", source.display())))?;
            }
        }
        Ok(())
    }

    /// A running one is seen as its processes see it.
    pub async fn tree(&self, container: &Arc<Container>, volumes: bool) -> Result<Tree, Error> {
        let layers = self.stack(&container.spec()).await?;
        let busy = container.busy.clone().lock_owned().await;
        let pid = container.status().pid;
        if container.is_running() && pid > 0 {
            return Ok(Tree { path: format!("/proc/{pid}/root").into(), mounted: false, _held: Vec::new() });
        }
        let resources = container.resources.clone().lock_owned().await;
        self.mount_quiet(container, layers).await?;
        if volumes && let Err(error) = self.mount_volumes(container) {
            tracing::warn!(%error, "a stopped container's volumes could not be shown");
        }
        Ok(Tree { path: container.dir.join("rootfs"), mounted: true, _held: vec![busy, resources] })
    }

    pub async fn archive_stat(&self, request: ArchiveStat) -> Result<PathStat, Error> {
        let container = self.container(&request.id)?;
        let tree = self.tree(&container, true).await?;
        blocking(move || stat(&tree.path, &request.path, &request.name)).await
    }

    /// Answers with the stat; the tar follows.
    pub async fn archive_get(&self, request: ArchiveGet) -> Result<PathStat, Error> {
        let container = self.container(&request.id)?;
        let tree = self.tree(&container, true).await?;
        let (root, path, name) = (tree.path.clone(), request.path.clone(), request.name);
        let stat = blocking(move || stat(&root, &path, &name)).await?;
        let writer = crate::attach::dial(request.ticket).await?.writer;
        let name = PathBuf::from(if stat.name == "/" { "." } else { &stat.name });
        tokio::spawn(send(writer, move |out| {
            snapshots::pack(&tree.path, Path::new(&request.path), &name, out).map_err(snapshot)
        }));
        Ok(stat)
    }

    pub async fn archive_put(&self, request: ArchivePut) -> Result<Empty, Error> {
        let container = self.container(&request.id)?;
        let tree = self.tree(&container, true).await?;
        let (root, path, name) = (tree.path.clone(), request.path.clone(), request.name);
        blocking(move || {
            let at = open(&root, &path, OFlag::O_PATH).map_err(|errno| missing(errno, &path, &name))?;
            match is_folder(&fstat(at.as_fd()).map_err(|e| Error::internal(e.to_string()))?) {
                true => Ok(()),
                false => Err(Error::invalid("extraction point is not a directory")),
            }
        })
        .await?;
        let reader = crate::attach::dial(request.ticket).await?.reader;
        let tar = tokio_util::io::SyncIoBridge::new(Box::pin(reader.into_async_read()));
        let user = container.spec().user;
        blocking(move || {
            // As Docker: with this option all belongs to the container's user, if it has one.
            let owner = match request.copy_uid_gid && !user.is_empty() {
                true => Some(runtime::bundle::owner(&tree.path, &user).map_err(crate::start::runtime_error)?),
                false => None,
            };
            let options = snapshots::UnpackOptions {
                no_overwrite_dir_non_dir: request.no_overwrite_dir_non_dir,
                owner,
                ..snapshots::UnpackOptions::default()
            };
            let tar = crate::compression::decompress(tar).map_err(|e| Error::invalid(e.to_string()))?;
            snapshots::unpack(&tree.path, Path::new(&request.path), tar, &options).map_err(snapshot)?;
            Ok(Empty {})
        })
        .await
    }
}

/// Sends what `work` writes, while it writes; its failure is the stream's.
pub async fn send<W>(mut writer: Writer, work: W) -> Result<(), Error>
where
    W: FnOnce(Box<dyn Write + Send>) -> Result<(), Error> + Send + 'static,
{
    let (mut reader, sink) = tokio::io::duplex(256 * 1024);
    let working = tokio::task::spawn_blocking(move || work(Box::new(tokio_util::io::SyncIoBridge::new(sink))));
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = reader.read(&mut buffer).await {
        if writer.send(Bytes::copy_from_slice(&buffer[..n])).await.is_err() {
            // Nobody reads any more: the work's next write fails.
            drop(reader);
            let _ = working.await;
            return Ok(());
        }
    }
    match working.await.map_err(|e| Error::internal(e.to_string()))? {
        Ok(()) => {
            let _ = writer.finish().await;
            Ok(())
        }
        Err(error) => {
            let _ = writer.fail(error.message()).await;
            Err(error)
        }
    }
}

fn open(root: &Path, path: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
    let root = std::fs::File::open(root).map_err(|_| Errno::ENOENT)?;
    let inside = path.trim_start_matches('/');
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    loop {
        match openat2(&root, if inside.is_empty() { "." } else { inside }, how) {
            // The kernel could not prove that a racing rename stayed inside.
            Err(Errno::EAGAIN) => {}
            other => return other,
        }
    }
}

/// `name` is the container's, for errors.
fn stat(root: &Path, path: &str, name: &str) -> Result<PathStat, Error> {
    let file = open(root, path, OFlag::O_PATH | OFlag::O_NOFOLLOW).map_err(|errno| missing(errno, path, name))?;
    let stat = fstat(file.as_fd()).map_err(|e| Error::internal(e.to_string()))?;
    let link_target = match stat.st_mode & nix::libc::S_IFMT {
        nix::libc::S_IFLNK => {
            let target = readlinkat(&file, "").map_err(|e| Error::internal(e.to_string()))?;
            let parent = Path::new("/").join(Path::new(path).parent().unwrap_or(Path::new("/")));
            lexical(&parent.join(target)).to_string_lossy().into_owned()
        }
        _ => String::new(),
    };
    Ok(PathStat {
        name: base(path),
        size: stat.st_size,
        mode: go_mode(stat.st_mode),
        mtime_ns: stat.st_mtime * 1_000_000_000 + stat.st_mtime_nsec,
        link_target,
    })
}

/// Without `.` and `..`, for people; nothing is opened by it.
fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path {
        match part.to_str() {
            Some("..") => drop(out.pop()),
            Some("." | "/") => {}
            _ => out.push(part),
        }
    }
    out
}

/// Go's `filepath.Base`, where a last `.` stays.
fn base(path: &str) -> String {
    match path.trim_end_matches('/').rsplit('/').next() {
        None | Some("") => "/".to_owned(),
        Some(last) => last.to_owned(),
    }
}

fn is_folder(stat: &FileStat) -> bool {
    stat.st_mode & nix::libc::S_IFMT == nix::libc::S_IFDIR
}

/// Go's `os.FileMode` of a Unix mode.
fn go_mode(mode: u32) -> u32 {
    let kind = match mode & nix::libc::S_IFMT {
        nix::libc::S_IFDIR => 1 << 31,
        nix::libc::S_IFLNK => 1 << 27,
        nix::libc::S_IFBLK => 1 << 26,
        nix::libc::S_IFCHR => 1 << 26 | 1 << 21,
        nix::libc::S_IFIFO => 1 << 25,
        nix::libc::S_IFSOCK => 1 << 24,
        _ => 0,
    };
    let bit = |own: u32, go: u32| if mode & own != 0 { go } else { 0 };
    kind | mode & 0o777 | bit(0o4000, 1 << 23) | bit(0o2000, 1 << 22) | bit(0o1000, 1 << 20)
}

fn missing(errno: Errno, path: &str, name: &str) -> Error {
    match errno {
        Errno::ENOENT | Errno::ENOTDIR => {
            Error::not_found(format!("Could not find the file {path} in container {name}"))
        }
        errno => Error::internal(format!("opening {path}: {errno}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_names_are_gos() {
        assert_eq!(go_mode(nix::libc::S_IFDIR | 0o1755), (1 << 31) | (1 << 20) | 0o755);
        assert_eq!(go_mode(nix::libc::S_IFREG | 0o4711), (1 << 23) | 0o711);
        for (path, name) in [("/", "/"), ("/a/b", "b"), ("/a/b/", "b"), ("/a/.", "."), ("", "/")] {
            assert_eq!(base(path), name, "{path}");
        }
        assert_eq!(lexical(Path::new("/a/../../b/./c")), Path::new("/b/c"));
    }

    #[test]
    fn a_link_that_leads_out_is_resolved_inside() {
        let root = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink("/etc", root.path().join("out")).expect("a link");
        std::fs::create_dir(root.path().join("etc")).expect("a folder");
        std::fs::write(root.path().join("etc/only-here"), "x").expect("a file");
        assert_eq!(stat(root.path(), "/out/only-here", "c").expect("inside").size, 1);
        let error = stat(root.path(), "/out/passwd", "c").expect_err("the machine's file must not be seen");
        assert_eq!(error.kind(), model::ErrorKind::NotFound);
    }
}
