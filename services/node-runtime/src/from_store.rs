//! A blob on its way from the layer store into an archive's reader.

use std::io::{self, Read};

use bus::Error;

/// Remembers what the layer store said when it did not give a blob: whoever reads the archive only knows that it could
/// not be read, and would blame the archive.
pub struct FromStore<R> {
    blob: R,
    /// The first failure of the store.
    pub failure: Option<Error>,
}

impl<R: Read> FromStore<R> {
    pub fn new(blob: R) -> Self {
        Self { blob, failure: None }
    }
}

impl<R: Read> Read for FromStore<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.blob.read(buffer);
        if let Err(error) = &read
            && let Some(said) = error.get_ref().and_then(|inner| inner.downcast_ref::<distribution::Error>())
        {
            self.failure.get_or_insert_with(|| Error::new(said.kind(), said.to_string()));
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use model::{DiffId, Digest, ErrorKind};
    use snapshots::Snapshots;

    use super::*;

    /// What the store says is kept, at the first byte and in the middle; a broken archive stays one.
    #[test]
    fn the_store_is_not_taken_for_the_archive() {
        let folder = tempfile::tempdir().expect("a folder");
        let snapshots = Snapshots::open(folder.path()).expect("opens");
        let layer = DiffId::new(Digest::of(b"a layer"));
        let refused = |kind, message: &str| distribution::Error::Refused { kind, message: message.to_owned() };
        for begin in [0, 300] {
            for (kind, message) in [(ErrorKind::Unavailable, "away"), (ErrorKind::NotFound, "not here")] {
                let fails = distribution::when_read(|| Err::<&[u8], _>(io::Error::other(refused(kind, message))));
                let mut blob = FromStore::new(io::repeat(0).take(begin).chain(fails));
                snapshots.apply(&layer, &mut blob).expect_err("it cannot be read");
                let failure = blob.failure.expect("the store's failure");
                assert_eq!((failure.kind(), failure.message()), (kind, message), "after {begin} bytes");
            }
        }
        let mut broken = FromStore::new(&b"no archive"[..]);
        let error = snapshots.apply(&layer, &mut broken).expect_err("it is none");
        assert!(broken.failure.is_none() && error.kind() == ErrorKind::InvalidArgument, "{error}");
    }
}
