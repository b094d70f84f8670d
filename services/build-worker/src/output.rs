//! What a step's command prints: frames from the shim, to wherever it is told.

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::failure::{Doing as _, Failure};
use crate::log::Log;

pub const STDERR: u8 = 2;
const HEADER_BYTES: usize = 8;
/// A frame longer than this is not the shim's.
const FRAME_BYTES: usize = 1 << 20;

/// Where a step's output goes.
pub trait Output: Send {
    /// A piece of what it wrote to standard output (1) or standard error (2).
    fn write(&mut self, stream: u8, bytes: &[u8]) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Nothing more comes.
    fn end(&mut self) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Passes everything on until the command's output ends.
pub async fn pump(mut from: impl AsyncRead + Unpin, to: &mut impl Output) -> Result<(), Failure> {
    let mut frame = Vec::new();
    loop {
        let mut header = [0; HEADER_BYTES];
        match from.read_exact(&mut header).await {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error).doing(|| "reading a step's output".to_owned()),
        }
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        if length > FRAME_BYTES {
            return Err(Failure::internal("a step's output is malformed"));
        }
        frame.resize(length, 0);
        from.read_exact(&mut frame).await.doing(|| "reading a step's output".to_owned())?;
        to.write(header[0], &frame).await?;
    }
    to.end().await
}

/// The classic builder's log. Standard error is red, as Docker prints it.
pub struct Coloured<'a> {
    log: &'a Log,
    out: Text,
    err: Text,
}

impl<'a> Coloured<'a> {
    pub fn new(log: &'a Log) -> Self {
        Self { log, out: Text::default(), err: Text::default() }
    }
}

impl Output for Coloured<'_> {
    async fn write(&mut self, stream: u8, bytes: &[u8]) -> Result<(), Failure> {
        let text = if stream == STDERR { red(&self.err.next(bytes)) } else { self.out.next(bytes) };
        Ok(self.log.stream(&text).await?)
    }

    async fn end(&mut self) -> Result<(), Failure> {
        self.log.stream(&self.out.rest()).await?;
        Ok(self.log.stream(&red(&self.err.rest())).await?)
    }
}

fn red(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("\x1b[91m{text}\x1b[0m") }
}

/// Bytes to text; a character that is cut by the end of a frame waits for its rest.
#[derive(Default)]
struct Text {
    cut: Vec<u8>,
}

impl Text {
    fn next(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.cut);
        all.extend_from_slice(bytes);
        if let Err(error) = std::str::from_utf8(&all[all.len().saturating_sub(4)..])
            && error.error_len().is_none()
        {
            let start = all.len().saturating_sub(4) + error.valid_up_to();
            self.cut = all.split_off(start);
        }
        String::from_utf8_lossy(&all).into_owned()
    }

    fn rest(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.cut)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_cut_by_frames() {
        let mut text = Text::default();
        let euro = "€".as_bytes();
        assert_eq!(text.next(&[b"a", &euro[..1]].concat()), "a");
        assert_eq!(text.next(&euro[1..2]), "");
        assert_eq!(text.next(&euro[2..]), "€");
        assert_eq!(text.next(b"\xff!"), "\u{fffd}!");
        assert_eq!(text.next(&euro[..2]), "");
        assert_eq!(text.rest(), "\u{fffd}");
        assert_eq!(text.rest(), "");
    }
}
