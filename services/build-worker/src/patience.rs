//! A gateway that has ended is started again: what is asked of it meanwhile waits.

use std::time::{Duration, Instant};

/// So long a gateway is waited for, and the client that is to come back to it.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const PAUSE: Duration = Duration::from_millis(500);

/// Asks again while nobody has answered. Only for what may be asked twice: the one who fell silent may have done it.
pub async fn patiently<T, F: Future<Output = Result<T, bus::Error>>>(ask: impl Fn() -> F) -> Result<T, bus::Error> {
    let until = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Err(error) if error.is_lost() && Instant::now() < until => {
                tracing::info!(%error, "it is asked again");
                tokio::time::sleep(PAUSE).await;
            }
            done => return done,
        }
    }
}
