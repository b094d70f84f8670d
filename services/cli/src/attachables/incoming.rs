//! A blob on its way into an OCI layout: in its place once it is whole and has the digest that it is said to have.

use std::io::{self, Write as _};
use std::path::PathBuf;

use contexts::content as api;
use model::Digest;
use sha2::{Digest as _, Sha256};
use tonic::Status;

use super::content::failed;
use crate::{draft, layout};

pub struct Incoming {
    folder: PathBuf,
    /// Until it is in its place.
    draft: Option<tempfile::NamedTempFile>,
    hash: Sha256,
    bytes: i64,
    /// What the messages have said so far.
    total: i64,
    expected: String,
}

impl Incoming {
    /// # Errors
    /// What the file system says.
    pub fn begin(folder: PathBuf) -> io::Result<Self> {
        let blobs = layout::blobs(&folder);
        std::fs::create_dir_all(&blobs)?;
        let draft = Some(draft::begin(&blobs)?);
        Ok(Self { folder, draft, hash: Sha256::new(), bytes: 0, total: 0, expected: String::new() })
    }

    /// Does what a message says; its answer.
    ///
    /// # Errors
    /// `AlreadyExists` for a blob that is there, `OutOfRange` for a part that does not follow, `FailedPrecondition` for
    /// one that is not what it was said to be.
    pub fn take(&mut self, message: api::WriteRequest) -> Result<api::WriteResponse, Status> {
        let action = message.action();
        if message.total > 0 {
            self.total = message.total;
        }
        if !message.expected.is_empty() {
            self.expected = message.expected;
            if self.place()?.exists() {
                return Err(Status::already_exists(format!("content {}: already exists", self.expected)));
            }
        }
        if !message.data.is_empty() {
            if message.offset != self.bytes {
                return Err(Status::out_of_range(format!("{} bytes are there, not {}", self.bytes, message.offset)));
            }
            let draft = self.draft.as_mut().ok_or_else(over)?;
            draft.write_all(&message.data).map_err(|e| failed("a blob", &e))?;
            self.hash.update(&message.data);
            self.bytes = self.bytes.saturating_add(i64::try_from(message.data.len()).unwrap_or(i64::MAX));
        }
        let mut digest = String::new();
        if action == api::Action::Commit {
            digest = self.commit()?;
        }
        Ok(api::WriteResponse { action: action.into(), offset: self.bytes, total: self.total, digest })
    }

    fn place(&self) -> Result<PathBuf, Status> {
        let digest: Result<Digest, _> = self.expected.parse();
        let digest = digest.map_err(|_| Status::invalid_argument(format!("{:?} is no digest", self.expected)))?;
        Ok(layout::blob(&self.folder, &digest))
    }

    fn commit(&mut self) -> Result<String, Status> {
        let digest = Digest::from_sha256(&self.hash.finalize_reset().into());
        let is_other = !self.expected.is_empty() && self.expected != digest.as_str();
        if (self.total > 0 && self.total != self.bytes) || is_other {
            let (bytes, expected, total) = (self.bytes, &self.expected, self.total);
            let text = format!("{bytes} bytes of {digest} came instead of {total} bytes of {expected}");
            return Err(Status::failed_precondition(text));
        }
        let whole = self.draft.take().ok_or_else(over)?;
        draft::finish(whole, &layout::blob(&self.folder, &digest)).map_err(|e| failed(digest.as_str(), &e))?;
        Ok(digest.to_string())
    }
}

fn over() -> Status {
    Status::failed_precondition("the blob is in its place already")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(action: api::Action, offset: i64, data: &[u8]) -> api::WriteRequest {
        api::WriteRequest { action: action.into(), offset, data: data.to_vec(), ..Default::default() }
    }

    #[test]
    fn what_comes_whole_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let digest = Digest::of(b"abcd");
        let begin = || Incoming::begin(folder.path().to_owned()).expect("begun");
        let said = |expected: &str| api::WriteRequest {
            expected: expected.to_owned(),
            total: 4,
            ..message(api::Action::Stat, 0, b"")
        };
        let mut incoming = begin();
        assert_eq!(incoming.take(said(digest.as_str())).expect("taken").total, 4);
        assert_eq!(incoming.take(message(api::Action::Write, 0, b"ab")).expect("taken").offset, 2);
        let code = |answer: Result<api::WriteResponse, Status>| answer.expect_err("refused").code();
        assert_eq!(code(incoming.take(message(api::Action::Write, 3, b"d"))), tonic::Code::OutOfRange);
        assert_eq!(code(incoming.take(message(api::Action::Commit, 2, b""))), tonic::Code::FailedPrecondition);
        drop(incoming);
        let mut incoming = begin();
        incoming.take(said(digest.as_str())).expect("taken");
        let done = incoming.take(message(api::Action::Commit, 0, b"abcd")).expect("whole");
        assert_eq!(done.digest, digest.to_string());
        drop(incoming);
        assert_eq!(std::fs::read(layout::blob(folder.path(), &digest)).expect("kept"), b"abcd");
        assert_eq!(std::fs::read_dir(layout::blobs(folder.path())).expect("blobs").count(), 1, "no draft is left");
        assert_eq!(code(begin().take(said(digest.as_str()))), tonic::Code::AlreadyExists);
        assert_eq!(code(begin().take(said("sha256:../../x"))), tonic::Code::InvalidArgument);
    }
}
