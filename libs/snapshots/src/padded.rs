use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

const BLOCK: u64 = 512;

/// An archive whose last block is short, read as if it were whole: Go's `tar` takes such archives, and the docker
/// command sends one when the Dockerfile comes by itself (`build -f -`). Only padding may be missing, never content.
pub struct Padded<R> {
    inner: R,
    count: u64,
    end: End,
}

/// Where the archive's own bytes ended, once that is known.
#[derive(Clone, Default)]
pub struct End(Rc<Cell<Option<u64>>>);

impl End {
    /// Whether content that lies here was really there.
    pub fn holds(&self, position: u64, size: u64) -> bool {
        self.0.get().is_none_or(|end| position.saturating_add(size) <= end)
    }
}

impl<R: Read> Padded<R> {
    pub fn new(inner: R) -> (Self, End) {
        let end = End::default();
        (Self { inner, count: 0, end: end.clone() }, end)
    }
}

impl<R: Read> Read for Padded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let mut count = 0;
        if self.end.0.get().is_none() {
            count = self.inner.read(buffer)?;
            if count == 0 {
                self.end.0.set(Some(self.count));
            }
        }
        if count == 0 {
            let missing = (BLOCK - self.count % BLOCK) % BLOCK;
            count = usize::try_from(missing).unwrap_or(0).min(buffer.len());
            buffer[..count].fill(0);
        }
        self.count += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_padding_is_made_up() {
        for (length, whole) in [(0, 0), (1, 512), (512, 512), (700, 1024)] {
            let (mut padded, end) = Padded::new(io::repeat(1).take(length));
            let mut read = Vec::new();
            padded.read_to_end(&mut read).expect("read");
            assert_eq!(read.len(), whole);
            assert!(end.holds(0, length) && !end.holds(1, length), "{length}");
        }
    }
}
