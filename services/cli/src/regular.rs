//! Files that are read for a build. Only a regular file has an end that surely comes: a FIFO, a device or a socket in its place
//! would keep its reader waiting, and is refused; a pipe that the person names (`<(…)` of a shell) is read while somebody
//! writes into it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A pipe into which nobody writes for so long is not read on.
const SILENCE: Duration = Duration::from_secs(10);

/// Opens a regular file, through links.
///
/// # Errors
/// `InvalidInput` for what is none; what the file system says.
pub fn open(path: &Path) -> io::Result<File> {
    checked(opened(path, O_NONBLOCK)?)
}

/// Opens a regular file that was seen at this very path: a link that is there now is none.
///
/// # Errors
/// As [`open`].
pub fn open_itself(path: &Path) -> io::Result<File> {
    checked(opened(path, O_NONBLOCK | O_NOFOLLOW)?)
}

/// Reads a file that the person names, which may be a pipe; at most one byte more than `max_bytes`.
///
/// # Errors
/// As [`open`]; `TimedOut` for a pipe into which nobody writes.
pub fn read(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let file = opened(path, O_NONBLOCK)?;
    let mut content = Vec::new();
    if file.metadata()?.file_type().is_fifo() {
        Pipe(file).take(max_bytes.saturating_add(1)).read_to_end(&mut content)?;
    } else {
        checked(file)?.take(max_bytes.saturating_add(1)).read_to_end(&mut content)?;
    }
    Ok(content)
}

/// Whether what the person names can be read only once.
pub fn is_pipe(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo())
}

fn opened(path: &Path, flags: i32) -> io::Result<File> {
    match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        // So it is for a socket.
        Err(error) if error.raw_os_error() == Some(nix::libc::ENXIO) => Err(not_regular()),
        opened => opened,
    }
}

fn checked(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

struct Pipe(File);

impl io::Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            let patience = PollTimeout::try_from(SILENCE).unwrap_or(PollTimeout::MAX);
            if poll(&mut ready, patience)? == 0 {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody writes into the pipe"));
            }
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixListener;

    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn only_regular_files_are_opened() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "text").expect("written");
        std::os::unix::fs::symlink("file", at("link")).expect("a link");
        nix::unistd::mkfifo(&at("fifo"), Mode::S_IRWXU).expect("a FIFO");
        let _listening = UnixListener::bind(at("socket")).expect("a socket");
        for (name, follows, itself) in
            [("file", true, true), ("link", true, false), ("fifo", false, false), ("socket", false, false)]
        {
            assert_eq!((open(&at(name)).is_ok(), open_itself(&at(name)).is_ok()), (follows, itself), "{name}");
        }
        for path in [at("fifo"), at("socket"), "/dev/zero".into(), folder.path().to_owned()] {
            assert_eq!(open(&path).expect_err("refused").to_string(), "not a regular file", "{path:?}");
        }
        assert_eq!(read(&at("file"), 2).expect("read"), b"tex", "one byte more tells that there is more");
    }

    #[test]
    fn a_pipe_is_read_while_somebody_writes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("fifo");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("a FIFO");
        assert!(is_pipe(&path));
        let writing = path.clone();
        let writer = std::thread::spawn(move || {
            let mut pipe = OpenOptions::new().write(true).open(writing).expect("a reader");
            pipe.write_all(b"one ").and_then(|()| pipe.write_all(b"two")).expect("written");
        });
        assert_eq!(read(&path, 100).expect("read"), b"one two");
        writer.join().expect("ended");
    }
}
