//! Builds that a client has named itself (`buildid`): it can cancel one by that name, and bring its context by another
//! request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::ErrorKind;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::lease::Lease;
use super::{App, Failure, Outcome, lock};

/// Both requests are sent at the same time.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Default)]
pub struct Jobs {
    by_id: Mutex<HashMap<String, Known>>,
    begun: Notify,
}

struct Known {
    cancel: CancellationToken,
    /// There until the context is on its way.
    wants: Option<oneshot::Sender<Brought>>,
}

/// A context in the layer store, and what keeps it there.
pub struct Brought {
    pub context: proto::Descriptor,
    pub lease: Lease,
}

/// A build under the name that its client gave it; the name is free again when this is dropped.
pub struct Job {
    app: Arc<App>,
    id: String,
    cancel: CancellationToken,
    brought: Option<oneshot::Receiver<Brought>>,
}

/// A build that waits for its context.
pub struct Bringing(oneshot::Sender<Brought>);

impl Bringing {
    /// The build may have gone meanwhile; its context then goes with the lease.
    pub fn bring(self, context: proto::Descriptor, lease: Lease) {
        let _ = self.0.send(Brought { context, lease });
    }
}

impl Job {
    /// The context that another request brings.
    ///
    /// # Errors
    /// `Cancelled` by the client, or where that request broke off.
    pub async fn upload(&mut self) -> Outcome<Brought> {
        let cancelled = || Failure::new(ErrorKind::Cancelled, "context canceled");
        let brought = self.brought.take().ok_or_else(cancelled)?;
        tokio::select! {
            brought = brought => brought.map_err(|_| cancelled()),
            () = self.cancel.cancelled() => Err(cancelled()),
        }
    }

    pub async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.id.is_empty() {
            lock(&self.app.jobs.by_id).remove(&self.id);
        }
    }
}

impl App {
    /// A build that its client calls `id`; without one nobody can name it.
    pub fn begin_job(self: &Arc<Self>, id: &str, wants_context: bool) -> Job {
        let cancel = CancellationToken::new();
        let (sender, receiver) = oneshot::channel();
        if !id.is_empty() {
            let wants = wants_context.then_some(sender);
            lock(&self.jobs.by_id).insert(id.to_owned(), Known { cancel: cancel.clone(), wants });
            self.jobs.begun.notify_waiters();
        }
        Job { app: self.clone(), id: id.to_owned(), cancel, brought: wants_context.then_some(receiver) }
    }

    /// The build of that name that waits for its context; it may be about to begin.
    ///
    /// # Errors
    /// `Timeout` when no such build begins.
    pub async fn job_that_waits(&self, id: &str) -> Outcome<Bringing> {
        let wait = async {
            loop {
                let begun = self.jobs.begun.notified();
                tokio::pin!(begun);
                begun.as_mut().enable();
                if let Some(wants) = lock(&self.jobs.by_id).get_mut(id).and_then(|known| known.wants.take()) {
                    return Bringing(wants);
                }
                begun.await;
            }
        };
        let late = |_| Failure::new(ErrorKind::Timeout, "context deadline exceeded");
        tokio::time::timeout(PATIENCE, wait).await.map_err(late)
    }

    /// A build that is not known has nothing to cancel.
    pub fn cancel_job(&self, id: &str) {
        if let Some(known) = lock(&self.jobs.by_id).get(id) {
            known.cancel.cancel();
        }
    }
}
