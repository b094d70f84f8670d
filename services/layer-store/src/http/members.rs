use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use model::Digest;

/// The hashes of limited tokens, with their users, from a file that may change while it is used.
pub struct Members {
    file: PathBuf,
    read: Mutex<Read>,
}

#[derive(Default)]
struct Read {
    /// Of the file that the hashes are from.
    stamp: Option<(SystemTime, u64, u64)>,
    users: HashMap<String, String>,
}

impl Members {
    pub fn new(file: PathBuf) -> Self {
        Self { file, read: Mutex::default() }
    }

    /// Looks whether the file has changed at every question, so that a token that was taken out is void at once.
    pub fn know(&self, hash: &Digest) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        // The map is whole after every statement.
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp =
            std::fs::metadata(&self.file).ok().and_then(|file| Some((file.modified().ok()?, file.len(), file.ino())));
        if stamp.is_none() || stamp != read.stamp {
            let text = std::fs::read_to_string(&self.file).unwrap_or_else(|error| {
                tracing::warn!(file = %self.file.display(), %error, "no limited token is known");
                String::new()
            });
            let pairs = text.lines().filter_map(|line| line.split_once(' '));
            read.users = pairs.map(|(hash, user)| (hash.to_owned(), user.trim().to_owned())).collect();
            read.stamp = stamp;
        }
        read.users.contains_key(hash.hex())
    }
}
