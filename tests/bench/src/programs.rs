//! Bytes of real programs, so that they compress and spread as an image's files do.

use std::fs;

const FOLDER: &str = "/usr/bin";
/// More than what any compression remembers, so that what comes round again is new to it.
const MOST_BYTES: usize = 128 << 20;

/// Pieces of this machine's programs. Each begins with a stamp of its own: no run has a layer of an earlier one.
pub struct Programs {
    bytes: Vec<u8>,
    at: usize,
    stamp: u128,
}

impl Programs {
    pub fn new() -> Self {
        let mut paths: Vec<_> = fs::read_dir(FOLDER).expect("programs").flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let mut bytes = Vec::new();
        for path in paths {
            if path.is_symlink() || !path.is_file() || bytes.len() >= MOST_BYTES {
                continue;
            }
            bytes.extend(fs::read(path).expect("a program"));
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        Self { bytes, at: 0, stamp: now.as_nanos() }
    }

    /// The next piece, of exactly `bytes` bytes; at least 16.
    pub fn piece(&mut self, bytes: usize) -> Vec<u8> {
        self.stamp += 1;
        let mut piece = self.stamp.to_le_bytes().to_vec();
        while piece.len() < bytes {
            let end = self.bytes.len().min(self.at + bytes - piece.len());
            piece.extend_from_slice(&self.bytes[self.at..end]);
            self.at = end % self.bytes.len();
        }
        piece
    }
}
