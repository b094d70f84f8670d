use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::Error;

/// Bars need no more; the bus has other things to carry.
const PAUSE: Duration = Duration::from_millis(100);

/// Docker's lines of a load, a pull or a push, to whoever asked for it.
#[derive(Clone)]
pub struct Lines {
    pub to: bus::ProgressSender,
}

impl Lines {
    /// `id` as it is shown, the first twelve digits of a digest.
    pub async fn tell(&self, id: &str, status: &str) {
        self.tell_bar(id, status, 0, 0).await;
    }

    pub async fn tell_bar(&self, id: &str, status: &str, current: u64, total: u64) {
        let number = |value| i64::try_from(value).unwrap_or(i64::MAX);
        let (id, status) = (id.to_owned(), status.to_owned());
        let line = proto::Progress { id, status, current: number(current), total: number(total), ..Default::default() };
        self.to.send(&line).await;
    }

    /// A layer of a pull is done, and in the layer store.
    pub async fn tell_pulled(&self, id: &str, layer: &proto::Layer) {
        self.tell(id, "Pull complete").await;
        self.to.send(&proto::Progress { stored: Some(layer.clone()), ..Default::default() }).await;
    }

    /// Waits for one of a few places.
    pub async fn turn<'a>(&self, id: &str, places: &'a Semaphore) -> Result<SemaphorePermit<'a>, Error> {
        if let Ok(turn) = places.try_acquire() {
            return Ok(turn);
        }
        self.tell(id, "Waiting").await;
        places.acquire().await.map_err(|_| Error::Task)
    }
}

/// When a bar is due again.
#[derive(Default)]
pub struct Pace {
    told: Option<Instant>,
}

impl Pace {
    pub fn is_due(&mut self) -> bool {
        let due = self.told.is_none_or(|told| told.elapsed() >= PAUSE);
        if due {
            self.told = Some(Instant::now());
        }
        due
    }
}
