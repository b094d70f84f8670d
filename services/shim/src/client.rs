//! A connection to the shim's socket: one request, then perhaps a stream.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use runtime::wire::{Answer, Request, frame_header};

/// With more than this waiting for one client, the process' output is not read.
pub const HIGH_WATER_BYTES: usize = 1024 * 1024;
/// How long a client may take nothing while bytes wait before it is cut off.
pub const STALL: Duration = Duration::from_secs(5);
const MAX_REQUEST_BYTES: usize = 4096;

pub enum Kind {
    /// The request's bytes so far.
    Asking(Vec<u8>),
    /// For the end of the process.
    Waiting,
    /// For its start.
    Starting,
    Attached {
        stdin: bool,
        stdout: bool,
        stderr: bool,
    },
    /// Answered; goes when all is sent.
    Answered,
}

pub struct Client {
    stream: UnixStream,
    pub kind: Kind,
    out: VecDeque<u8>,
    /// Its side of the connection has ended.
    pub in_ended: bool,
    /// The peer has closed both ways; what it sent may still be unread.
    pub hung_up: bool,
    /// No more will be added to `out`.
    closing: bool,
    pub broken: bool,
    /// When it last took something, or had nothing to take.
    progress: Instant,
}

impl Client {
    pub fn new(stream: UnixStream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            kind: Kind::Asking(Vec::new()),
            out: VecDeque::new(),
            in_ended: false,
            hung_up: false,
            closing: false,
            broken: false,
            progress: Instant::now(),
        })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    pub fn wants_write(&self) -> bool {
        !self.out.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.out.len() >= HIGH_WATER_BYTES
    }

    /// When it is cut off if it takes nothing until then.
    pub fn deadline(&self) -> Option<Instant> {
        (self.is_full() || (self.closing && self.wants_write())).then(|| self.progress + STALL)
    }

    pub fn is_done(&self) -> bool {
        self.broken || (self.closing && self.out.is_empty())
    }

    /// The request, once its line is whole. Bytes behind it (stdin sent early) are given back too.
    pub fn request(&mut self) -> Option<(Result<Request, String>, Vec<u8>)> {
        let mut buffer = [0; 1024];
        let n = self.read(&mut buffer);
        let Kind::Asking(line) = &mut self.kind else { return None };
        line.extend_from_slice(&buffer[..n]);
        let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
            self.broken |= self.in_ended || line.len() > MAX_REQUEST_BYTES;
            return None;
        };
        let rest = line.split_off(end + 1);
        Some((serde_json::from_slice(line).map_err(|e| e.to_string()), rest))
    }

    /// Bytes read; 0 for none now or the end (`in_ended`).
    pub fn read(&mut self, buffer: &mut [u8]) -> usize {
        match self.stream.read(buffer) {
            Ok(0) => {
                self.in_ended = true;
                0
            }
            Ok(n) => n,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
            Err(_) => {
                self.broken = true;
                0
            }
        }
    }

    pub fn answer(&mut self, answer: &Answer) {
        // An Answer has no map with other than string keys, nor anything else that JSON can't say.
        let line = serde_json::to_vec(answer).unwrap_or_default();
        self.push(&line);
        self.push(b"\n");
    }

    /// Answers, and ends the connection when that is sent.
    pub fn answer_last(&mut self, answer: &Answer) {
        self.answer(answer);
        self.kind = Kind::Answered;
        self.closing = true;
    }

    /// Output of the process, if this client wants it.
    pub fn output(&mut self, stream: u8, tty: bool, bytes: &[u8]) {
        let wanted = match self.kind {
            Kind::Attached { stdout, stderr, .. } => {
                if stream == 2 {
                    stderr
                } else {
                    stdout
                }
            }
            _ => false,
        };
        if wanted && !self.broken {
            if !tty {
                self.push(&frame_header(stream, bytes.len() as u32));
            }
            self.push(bytes);
        }
    }

    /// No more output will come.
    pub fn end_output(&mut self) {
        if matches!(self.kind, Kind::Attached { .. }) {
            self.closing = true;
        }
    }

    pub fn flush(&mut self, now: Instant) {
        while !self.out.is_empty() {
            match self.stream.write(self.out.as_slices().0) {
                Ok(n) => {
                    self.out.drain(..n);
                    self.progress = now;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.broken = true;
                    return;
                }
            }
        }
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.broken = true;
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.out.is_empty() {
            self.progress = Instant::now();
        }
        self.out.extend(bytes);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
