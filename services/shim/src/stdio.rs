//! The shim's ends of the process' stdin, stdout and stderr, or of its terminal.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::process::Stdio;

use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::pipe2;

#[derive(Default)]
pub struct Stdio3 {
    /// Stream number and its reading end; a terminal is stream 1.
    outputs: Vec<(u8, OwnedFd)>,
    input: Option<OwnedFd>,
    tty: bool,
}

/// The process' ends.
pub struct ChildEnds {
    pub stdin: Stdio,
    pub stdout: Stdio,
    pub stderr: Stdio,
}

pub enum Read {
    Bytes(usize),
    /// Nothing now.
    Empty,
    End,
}

impl Stdio3 {
    pub fn pipes(open_stdin: bool) -> anyhow::Result<(Self, ChildEnds)> {
        let pipe = || pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe");
        let (out, out_child) = pipe()?;
        let (err, err_child) = pipe()?;
        let (stdin, input) = if open_stdin {
            let (child, input) = pipe()?;
            nonblocking(&input)?;
            (Stdio::from(child), Some(input))
        } else {
            (Stdio::null(), None)
        };
        nonblocking(&out)?;
        nonblocking(&err)?;
        let ends = ChildEnds { stdin, stdout: out_child.into(), stderr: err_child.into() };
        Ok((Self { outputs: vec![(1, out), (2, err)], input, tty: false }, ends))
    }

    pub fn terminal(master: OwnedFd) -> anyhow::Result<Self> {
        nonblocking(&master)?;
        let input = master.try_clone().context("cannot share the terminal")?;
        Ok(Self { outputs: vec![(1, master)], input: Some(input), tty: true })
    }

    pub fn outputs(&self) -> impl Iterator<Item = (u8, BorrowedFd<'_>)> {
        self.outputs.iter().map(|(stream, fd)| (*stream, fd.as_fd()))
    }

    pub fn input(&self) -> Option<BorrowedFd<'_>> {
        self.input.as_ref().map(AsFd::as_fd)
    }

    pub fn at_end(&self) -> bool {
        self.outputs.is_empty()
    }

    /// Reads from `stream`; at its end it is let go.
    pub fn read(&mut self, stream: u8, buffer: &mut [u8]) -> Read {
        let Some(at) = self.outputs.iter().position(|(own, _)| *own == stream) else { return Read::End };
        match nix::unistd::read(&self.outputs[at].1, buffer) {
            Ok(n) if n > 0 => Read::Bytes(n),
            Err(Errno::EAGAIN | Errno::EINTR) => Read::Empty,
            // A terminal whose other side is closed gives EIO.
            Ok(_) | Err(_) => {
                self.outputs.remove(at);
                Read::End
            }
        }
    }

    /// Bytes taken; 0 when the process reads nothing now. `None` when it reads no more.
    pub fn write(&mut self, bytes: &[u8]) -> Option<usize> {
        let input = self.input.as_ref()?;
        match nix::unistd::write(input, bytes) {
            Ok(n) => Some(n),
            Err(Errno::EAGAIN | Errno::EINTR) => Some(0),
            Err(_) => {
                self.input = None;
                None
            }
        }
    }

    /// A terminal has no end of its stdin.
    pub fn close_input(&mut self) {
        if !self.tty {
            self.input = None;
        }
    }

    pub fn resize(&self, rows: u16, columns: u16) -> bool {
        let Some((_, master)) = self.outputs.first().filter(|_| self.tty) else { return false };
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: TIOCSWINSZ reads one winsize, which lives through the call.
        unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &size) == 0 }
    }
}

fn nonblocking(fd: &OwnedFd) -> anyhow::Result<()> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("cannot set a pipe non-blocking")?;
    Ok(())
}

/// The terminal that the OCI runtime sends over its console socket.
pub fn receive_terminal(socket: &impl AsRawFd) -> anyhow::Result<OwnedFd> {
    let mut name = [0u8; 256];
    let mut iov = [IoSliceMut::new(&mut name)];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let message =
        recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).context("recvmsg")?;
    for control in message.cmsgs().context("control message")? {
        if let ControlMessageOwned::ScmRights(fds) = control
            && let Some(fd) = fds.first()
        {
            // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
            return Ok(unsafe { OwnedFd::from_raw_fd(*fd) });
        }
    }
    anyhow::bail!("the OCI runtime sent no terminal")
}
