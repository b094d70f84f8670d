//! Tars in whatever compression.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _};
use std::path::Path;

use tar::Archive;

use crate::rooted::{Root, is_file};

/// Longest magic number that is looked at.
const MAGIC_BYTES: u64 = 6;

/// Reads on, decompressed: gzip, bzip2, xz, zstd, or as it is.
pub fn decompress<'a>(mut source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut magic = Vec::new();
    source.by_ref().take(MAGIC_BYTES).read_to_end(&mut magic)?;
    let whole = io::Cursor::new(magic.clone()).chain(source);
    Ok(match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::read::MultiBzDecoder::new(whole)),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Box::new(xz2::read::XzDecoder::new_multi_decoder(whole)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::stream::read::Decoder::new(whole)?),
        _ => Box::new(whole),
    })
}

/// Opens what a path leads to where that is an archive.
pub fn open(root: &Root, path: &Path) -> io::Result<Option<File>> {
    if !is_file(&root.stat(path)?) {
        return Ok(None);
    }
    let mut file = root.read(path)?;
    Ok(is_archive(&mut file)?.then_some(file))
}

/// Whether a file is a tar with at least one entry, in any compression; leaves the file at its start.
pub fn is_archive(file: &mut File) -> io::Result<bool> {
    let found = decompress(BufReader::new(&mut *file)).is_ok_and(is_tar);
    file.rewind()?;
    Ok(found)
}

/// Whether plain bytes begin as a tar with at least one entry.
pub fn is_tar(bytes: impl Read) -> bool {
    let mut archive = Archive::new(bytes);
    archive.entries().is_ok_and(|mut entries| matches!(entries.next(), Some(Ok(_))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn plain() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        builder.append_data(&mut header, "a/b", &b"data"[..]).expect("entry");
        builder.into_inner().expect("tar")
    }

    #[test]
    fn every_compression() {
        let plain = plain();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).expect("gzip");
        let mut bzip = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip.write_all(&plain).expect("bzip2");
        let mut xz = xz2::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&plain).expect("xz");
        let packed = [
            gzip.finish().expect("gzip"),
            bzip.finish().expect("bzip2"),
            xz.finish().expect("xz"),
            zstd::encode_all(plain.as_slice(), 1).expect("zstd"),
            plain.clone(),
        ];
        let temp = tempfile::tempdir().expect("temp folder");
        for tar in packed {
            let mut read = Vec::new();
            decompress(tar.as_slice()).expect("known").read_to_end(&mut read).expect("whole");
            assert_eq!(read, plain);
            let path = temp.path().join("t");
            std::fs::write(&path, &tar).expect("written");
            assert!(is_archive(&mut File::open(&path).expect("open")).expect("read"));
        }
    }

    #[test]
    fn what_is_no_archive() {
        let temp = tempfile::tempdir().expect("temp folder");
        let path = temp.path().join("t");
        for content in [&b"text"[..], b"", b"\x1f\x8bbroken", &[0; 10240]] {
            std::fs::write(&path, content).expect("written");
            assert!(!is_archive(&mut File::open(&path).expect("open")).expect("read"));
        }
    }
}
