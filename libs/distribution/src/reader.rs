//! Streams as blocking readers.

use std::io::{self, Read};

use bytes::Bytes;
use futures::Stream;
use tokio_util::io::{StreamReader, SyncIoBridge};

/// A stream as a blocking reader, to be read inside `spawn_blocking`.
pub fn reader(bytes: impl Stream<Item = io::Result<Bytes>> + Send + Unpin + 'static) -> impl Read + Send + 'static {
    SyncIoBridge::new(StreamReader::new(bytes))
}

/// What is asked for when its first byte is read: who waits for another to bring the same moves nothing.
pub fn when_read<R: Read>(open: impl FnOnce() -> io::Result<R>) -> impl Read {
    WhenRead::Closed(Some(open))
}

enum WhenRead<O, R> {
    /// Without a way to open it once that was tried.
    Closed(Option<O>),
    Open(R),
}

impl<R: Read, O: FnOnce() -> io::Result<R>> Read for WhenRead<O, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Self::Closed(open) = self {
            // What could not be opened has no end either: who reads on must not take it for empty.
            let open = open.take().ok_or_else(|| io::Error::other("what is read could not be opened before"))?;
            *self = Self::Open(open()?);
        }
        match self {
            Self::Open(reader) => reader.read(buffer),
            Self::Closed(_) => Ok(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_read_is_not_asked_for() {
        let mut asked = false;
        drop(when_read(|| {
            asked = true;
            Ok(&b""[..])
        }));
        assert!(!asked);
        let mut text = String::new();
        when_read(|| Ok(&b"text"[..])).read_to_string(&mut text).expect("read");
        assert_eq!(text, "text");
        let mut failing = when_read(|| Err::<&[u8], _>(io::Error::other("gone")));
        assert_eq!(failing.read(&mut [0; 8]).expect_err("the open's").to_string(), "gone");
        assert!(failing.read(&mut [0; 8]).is_err() && failing.read_to_string(&mut text).is_err(), "it is not empty");
    }
}
