use std::io::{self, Read};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

/// Bars need no more; the bus has other things to carry.
const PAUSE: Duration = Duration::from_millis(100);

/// Tells the caller of a load how far its layers are.
#[derive(Clone)]
pub struct Teller {
    /// None for a quiet load.
    pub to: Option<bus::ProgressSender>,
    pub runtime: Handle,
}

impl Teller {
    /// Docker's line for a layer of which `current` of `total` bytes are in. Blocks.
    fn tell(&self, id: &str, current: u64, total: u64) {
        let Some(to) = &self.to else { return };
        let number = |value| i64::try_from(value).unwrap_or(i64::MAX);
        let (current, total) = (number(current), number(total));
        let (id, status) = (id.to_owned(), "Loading layer".to_owned());
        self.runtime.block_on(to.send(&proto::Progress { id, status, current, total, ..Default::default() }));
    }
}

/// A layer that tells how much of it has been read.
pub struct Counted<'a, R> {
    inner: R,
    teller: &'a Teller,
    id: String,
    read: u64,
    total: u64,
    told: Option<Instant>,
}

impl<'a, R: Read> Counted<'a, R> {
    /// `name` is the layer's name in its archive: a digest or the identity of an old archive, which Docker shows too.
    pub fn new(inner: R, teller: &'a Teller, name: &str, total: u64) -> Self {
        Self { inner, teller, id: shown(name), read: 0, total, told: None }
    }
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.read += count as u64;
        let over = count > 0 && self.read == self.total;
        if count > 0 && (over || self.told.is_none_or(|told| told.elapsed() >= PAUSE)) {
            self.told = Some(Instant::now());
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
