use std::future::Future;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder, Retryable as _};

use super::Error;

/// How often something is tried in all, as often as dockerd tries a layer.
const TRIES: usize = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A registry that wants to be left alone for longer is told to the user instead.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Runs `work` again while it fails with what may pass; a registry's `Retry-After` is honoured up to a minute.
pub(super) async fn retried<T, F: Future<Output = Result<T, Error>>>(work: impl FnMut() -> F) -> Result<T, Error> {
    work.retry(policy())
        .when(Error::is_retryable)
        .adjust(pause)
        .notify(|error, pause| tracing::warn!(%error, pause_ms = pause.as_millis() as u64, "a registry is asked again"))
        .await
}

/// The pauses between tries, for who counts its tries itself.
pub(super) fn pauses() -> ExponentialBackoff {
    policy().build()
}

/// The pause after `error`, if it is to be tried again at all; `planned` is the next of [`pauses`].
pub(super) fn pause(error: &Error, planned: Option<Duration>) -> Option<Duration> {
    let planned = planned?;
    match error.retry_after() {
        Some(wanted) if wanted > LONGEST_WAIT => None,
        Some(wanted) => Some(wanted.max(planned)),
        None => Some(planned),
    }
}

fn policy() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_max_times(TRIES - 1)
        .with_jitter()
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn a_registry_says_how_long_to_wait() {
        let error = |seconds| {
            Error::answer(StatusCode::TOO_MANY_REQUESTS, None, b"{}").after(Some(Duration::from_secs(seconds)))
        };
        let planned = Some(Duration::from_secs(1));
        assert_eq!(pause(&error(0), planned), planned);
        assert_eq!(pause(&error(7), planned), Some(Duration::from_secs(7)));
        assert_eq!(pause(&error(3600), planned), None, "an hour is not waited for");
        assert_eq!(pause(&error(7), None), None, "the tries are used up");
        assert_eq!(pauses().count(), TRIES - 1);
    }
}
