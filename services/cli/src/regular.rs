//! Files that are read for a build. Only a regular file has an end that surely comes: a FIFO, a device or a socket in its place
//! would keep its reader waiting, and is refused; a pipe that the person names (`<(…)` of a shell) is read while somebody
//! writes into it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A pipe that nobody opens for writing for so long is not waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// So often it is looked whether somebody has opened it, which wakes nobody.
const LOOK: Duration = Duration::from_millis(50);

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
/// As [`open`]; `TimedOut` for a pipe that nobody opens for writing. One that somebody has opened is waited for without end:
/// a command that writes into it may ask for a password first.
pub fn read(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let file = opened(path, O_NONBLOCK)?;
    let mut content = Vec::new();
    if file.metadata()?.file_type().is_fifo() {
        Pipe { file, until: Instant::now() + PATIENCE }.take(max_bytes.saturating_add(1)).read_to_end(&mut content)?;
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

struct Pipe {
    file: File,
    /// When a writer must have come.
    until: Instant,
}

impl Pipe {
    /// Waits for bytes or for the last writer's end; whether that is it.
    fn is_left(&self, patience: PollTimeout) -> io::Result<bool> {
        let mut ready = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, patience)?;
        let seen = ready[0].revents().unwrap_or(PollFlags::empty());
        Ok(seen.contains(PollFlags::POLLHUP) && !seen.contains(PollFlags::POLLIN))
    }
}

impl io::Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let look = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO);
        loop {
            match self.file.read(buffer) {
                // Somebody has it open for writing.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_left(PollTimeout::NONE)?;
                }
                // Nobody has: all writers have gone, or none has come yet.
                Ok(0) if !self.is_left(look)? => {
                    if Instant::now() >= self.until {
                        return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody writes into the pipe"));
                    }
                }
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

    #[test]
    fn a_writer_is_waited_for_and_nobody_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("fifo");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("a FIFO");
        // Patience has ended already.
        let pipe = || Pipe { file: opened(&path, O_NONBLOCK).expect("opened"), until: Instant::now() };
        let writer = || OpenOptions::new().write(true).open(&path).expect("a reader");
        let mut content = Vec::new();

        let (mut late, mut writing) = (pipe(), writer());
        let writer_thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            writing.write_all(b"late").expect("written");
        });
        late.read_to_end(&mut content).expect("waited for");
        writer_thread.join().expect("ended");
        assert_eq!(content, b"late");

        let mut silent = pipe();
        drop(writer());
        assert_eq!(silent.read_to_end(&mut content).expect("its writer has gone"), 0);

        let failure = pipe().read_to_end(&mut content).expect_err("nobody has come");
        assert_eq!(failure.kind(), io::ErrorKind::TimedOut);
    }
}
