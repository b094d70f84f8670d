use std::io::{self, BufRead, BufReader, Read};

const BUFFER_BYTES: usize = 128 << 10;
/// The most that tells how bytes are packed.
pub const MAGIC_BYTES: u64 = 6;
/// What unpacking xz may take; its highest level needs half of it.
const XZ_MEMORY_BYTES: u64 = 128 << 20;

/// How bytes are packed, by their first few.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

impl Compression {
    /// By the first [`MAGIC_BYTES`].
    pub fn of(start: &[u8]) -> Self {
        let magic: [(&[u8], Self); 4] = [
            (&[0x1f, 0x8b, 0x08], Self::Gzip),
            (b"BZh", Self::Bzip2),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Self::Xz),
            (&[0x28, 0xb5, 0x2f, 0xfd], Self::Zstd),
        ];
        magic.into_iter().find(|(magic, _)| start.starts_with(magic)).map_or(Self::None, |(_, kind)| kind)
    }
}

/// Unpacks whatever `from` is packed with; also several streams one after the other.
///
/// # Errors
/// What `from` says at its first bytes.
pub fn decompress<'a>(from: impl Read + 'a) -> io::Result<(Compression, Box<dyn Read + 'a>)> {
    let mut from = BufReader::with_capacity(BUFFER_BYTES, Start { start: Vec::new(), inner: from, read: false });
    let kind = Compression::of(from.fill_buf()?);
    let reader: Box<dyn Read + 'a> = match kind {
        Compression::None => Box::new(from),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(from)),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(from)),
        Compression::Xz => {
            let stream = xz2::stream::Stream::new_auto_decoder(XZ_MEMORY_BYTES, xz2::stream::CONCATENATED)?;
            Box::new(xz2::bufread::XzDecoder::new_stream(from, stream))
        }
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(from)?),
    };
    Ok((kind, reader))
}

/// Hands out enough bytes at once for the first look, although a stream may come byte by byte.
struct Start<R> {
    start: Vec<u8>,
    inner: R,
    read: bool,
}

impl<R: Read> Read for Start<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.read {
            self.read = true;
            (&mut self.inner).take(MAGIC_BYTES).read_to_end(&mut self.start)?;
            let count = self.start.len().min(buffer.len());
            buffer[..count].copy_from_slice(&self.start[..count]);
            return Ok(count);
        }
        self.inner.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn every_kind_is_unpacked() {
        let text = b"what was packed ".repeat(10_000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).expect("in memory");
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(&text).expect("in memory");
        let mut xz = xz2::write::XzEncoder::new(Vec::new(), 0);
        xz.write_all(&text).expect("in memory");
        let zstd = zstd::encode_all(text.as_slice(), 1).expect("in memory");
        for (kind, packed) in [
            (Compression::None, text.clone()),
            (Compression::Gzip, gzip.finish().expect("in memory")),
            (Compression::Bzip2, bzip2.finish().expect("in memory")),
            (Compression::Xz, xz.finish().expect("in memory")),
            (Compression::Zstd, zstd),
        ] {
            let (found, mut reader) = decompress(OneByOne(&packed)).expect("starts");
            let mut unpacked = Vec::new();
            reader.read_to_end(&mut unpacked).expect("unpacks");
            assert_eq!(found, kind);
            assert!(unpacked == text, "{kind:?} gave other bytes");
            if kind != Compression::None {
                let (_, mut reader) = decompress(&packed[..packed.len() / 2]).expect("starts");
                assert!(reader.read_to_end(&mut Vec::new()).is_err(), "{kind:?}: half of it passed");
            }
        }
        assert_eq!(decompress(&b""[..]).expect("starts").0, Compression::None);
    }

    struct OneByOne<'a>(&'a [u8]);

    impl Read for OneByOne<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len().min(1);
            self.0.read(&mut buffer[..count])
        }
    }
}
