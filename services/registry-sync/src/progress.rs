use std::io::{self, Read};

use tokio::runtime::Handle;

use crate::lines::{Lines, Pace};

/// Tells the caller of a load how far its layers are.
#[derive(Clone)]
pub struct Teller {
    /// None for a quiet load.
    pub to: Option<Lines>,
    pub runtime: Handle,
}

impl Teller {
    /// Docker's line for a layer of which `current` of `total` bytes are in. Blocks.
    fn tell(&self, id: &str, current: u64, total: u64) {
        if let Some(lines) = &self.to {
            self.runtime.block_on(lines.tell_bar(id, "Loading layer", current, total));
        }
    }
}

/// A layer that tells how much of it has been read.
pub struct Counted<'a, R> {
    inner: R,
    teller: &'a Teller,
    id: String,
    read: u64,
    total: u64,
    pace: Pace,
}

impl<'a, R: Read> Counted<'a, R> {
    /// `name` is the layer's name in its archive: a digest or the identity of an old archive, which Docker shows too.
    pub fn new(inner: R, teller: &'a Teller, name: &str, total: u64) -> Self {
        Self { inner, teller, id: shown(name), read: 0, total, pace: Pace::default() }
    }
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.read += count as u64;
        let over = count > 0 && self.read == self.total;
        if count > 0 && (self.pace.is_due() || over) {
            self.teller.tell(&self.id, self.read, self.total);
        }
        Ok(count)
    }
}

/// The first twelve digits of the last part of a name that has so many.
fn shown(name: &str) -> String {
    let digits = |part: &&str| part.len() >= 12 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let part = name.split(['/', '.', ':']).rev().find(digits).map_or(name, |part| &part[..12]);
    part.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_show_their_short_ids() {
        let hex = "0123456789abcdef0123456789abcdef";
        for (name, id) in [
            (format!("blobs/sha256/{hex}"), "0123456789ab"),
            (format!("{hex}/layer.tar"), "0123456789ab"),
            (format!("{hex}.tar"), "0123456789ab"),
            ("layer.tar".to_owned(), "layer.tar"),
        ] {
            assert_eq!(shown(&name), id, "{name}");
        }
    }
}
