use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use blobs::Upload;

use super::refusal::Refusal;
use crate::repositories::Name;

/// An upload that nobody went on with for this long is dropped.
const IDLE: Duration = Duration::from_secs(60 * 60);
const MOST: usize = 256;

/// Uploads between two requests. A request takes its upload out, so that two requests never write to one, and it
/// comes back when the request ends, also when its body broke off: the client may go on from there.
#[derive(Clone, Default)]
pub struct Sessions {
    waiting: Arc<Mutex<HashMap<String, Session>>>,
}

struct Session {
    repository: Name,
    upload: Upload,
    since: Instant,
}

/// An upload that one request holds. Dropped, it waits again for the next request.
pub struct Taken {
    sessions: Sessions,
    repository: Name,
    id: String,
    upload: Option<Upload>,
}

impl Sessions {
    /// Keeps a new upload under a random id.
    pub fn begin(&self, repository: Name, upload: Upload) -> Result<String, Refusal> {
        self.sweep();
        let mut waiting = self.waiting();
        if waiting.len() >= MOST {
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", "too many uploads are open"));
        }
        let id = format!("{:032x}", rand::random::<u128>());
        waiting.insert(id.clone(), Session { repository, upload, since: Instant::now() });
        Ok(id)
    }

    pub fn take(&self, repository: &Name, id: &str) -> Result<Taken, Refusal> {
        let mut waiting = self.waiting();
        match waiting.get(id) {
            Some(session) if session.repository == *repository => {}
            _ => return Err(Refusal::upload_unknown()),
        }
        let session = waiting.remove(id).ok_or_else(Refusal::upload_unknown)?;
        let (sessions, repository) = (self.clone(), repository.clone());
        Ok(Taken { sessions, repository, id: id.to_owned(), upload: Some(session.upload) })
    }

    /// Drops uploads that were left.
    pub fn sweep(&self) {
        self.waiting().retain(|_, session| session.since.elapsed() < IDLE);
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    pub fn upload(&mut self) -> &mut Upload {
        self.upload.as_mut().expect("held until it is taken for good")
    }

    /// It does not go back: it is put in place, or no use any more.
    pub fn for_good(mut self) -> Upload {
        self.upload.take().expect("held until now")
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(upload) = self.upload.take() {
            let session = Session { repository: self.repository.clone(), upload, since: Instant::now() };
            self.sessions.waiting().insert(std::mem::take(&mut self.id), session);
        }
    }
}
