//! What a client sends may be compressed, and its first bytes say how.

use std::io::{self, BufReader, Cursor, Read};

/// Longest of the magic numbers.
const MAGIC_BYTES: u64 = 6;

/// Gzip, bzip2, xz, zstd, or as it is.
pub fn decompress<'a>(mut source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut first = Vec::new();
    source.by_ref().take(MAGIC_BYTES).read_to_end(&mut first)?;
    let kind = first.clone();
    let whole = Cursor::new(first).chain(source);
    Ok(match kind.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::new(whole))),
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::bufread::MultiBzDecoder::new(BufReader::new(whole))),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => {
            Box::new(xz2::bufread::XzDecoder::new_multi_decoder(BufReader::new(whole)))
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::stream::read::Decoder::with_buffer(BufReader::new(whole))?),
        _ => Box::new(whole),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_and_what_is_not() {
        let mut gzip = flate2::read::GzEncoder::new(&b"text"[..], flate2::Compression::fast());
        let mut packed = Vec::new();
        gzip.read_to_end(&mut packed).expect("packed");
        for bytes in [packed, zstd::encode_all(&b"text"[..], 1).expect("packed"), b"text".to_vec()] {
            let mut out = String::new();
            decompress(bytes.as_slice()).expect("begun").read_to_string(&mut out).expect("whole");
            assert_eq!(out, "text");
        }
    }
}
