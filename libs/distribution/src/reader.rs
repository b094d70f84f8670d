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
    WhenRead { open: Some(open), reader: None }
}

struct WhenRead<O, R> {
    open: Option<O>,
    reader: Option<R>,
}

impl<R: Read, O: FnOnce() -> io::Result<R>> Read for WhenRead<O, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(open) = self.open.take() {
            self.reader = Some(open()?);
        }
        self.reader.as_mut().map_or(Ok(0), |reader| reader.read(buffer))
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
        assert!(when_read(|| Err::<&[u8], _>(io::Error::other("gone"))).read_to_string(&mut text).is_err());
    }
}
