use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use blobs::Upload;

use super::refusal::Refusal;
use crate::repositories::Name;

/// An upload that nobody went on with for this long is dropped when the next one begins.
const IDLE: Duration = Duration::from_secs(15 * 60);
const MOST: usize = 256;

/// Uploads between two requests. A request takes its upload out and gives it back when all went well; so two
/// requests never write to one upload, and one that breaks off takes its upload with it.
#[derive(Default)]
pub struct Sessions {
    waiting: Mutex<HashMap<String, Session>>,
}

struct Session {
    repository: Name,
    upload: Upload,
    since: Instant,
}

impl Sessions {
    /// Keeps a new upload under a random id.
    pub fn begin(&self, repository: Name, upload: Upload) -> Result<String, Refusal> {
        let mut waiting = self.waiting();
        waiting.retain(|_, session| session.since.elapsed() < IDLE);
        if waiting.len() >= MOST {
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", "too many uploads are open"));
        }
        let id = format!("{:032x}", rand::random::<u128>());
        waiting.insert(id.clone(), Session { repository, upload, since: Instant::now() });
        Ok(id)
    }

    pub fn take(&self, repository: &Name, id: &str) -> Result<Upload, Refusal> {
        let mut waiting = self.waiting();
        match waiting.get(id) {
            Some(session) if session.repository == *repository => {}
            _ => return Err(Refusal::upload_unknown()),
        }
        waiting.remove(id).map(|session| session.upload).ok_or_else(Refusal::upload_unknown)
    }

    pub fn give_back(&self, repository: &Name, id: &str, upload: Upload) {
        let session = Session { repository: repository.clone(), upload, since: Instant::now() };
        self.waiting().insert(id.to_owned(), session);
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
