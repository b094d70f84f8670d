//! Why a step may have to end before its time.

use tokio_util::sync::CancellationToken;

use crate::flight::Flight;

#[derive(Clone)]
pub struct Ends {
    /// The build is to end, for whatever reason.
    pub cancel: CancellationToken,
    /// Nobody wants the build any more.
    pub gone: CancellationToken,
    /// The worker ends.
    pub stop: CancellationToken,
}

impl Ends {
    /// Returns when a step is to end: its build is, and nobody follows it whom that concerns not.
    pub async fn unwanted(&self, flight: Option<&Flight>) {
        self.cancel.cancelled().await;
        if let Some(flight) = flight.filter(|_| self.gone.is_cancelled()) {
            tokio::select! {
                () = flight.unfollowed() => {}
                () = self.stop.cancelled() => {}
            }
        }
    }
}
