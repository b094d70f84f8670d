//! Work that may have to end before its time. It runs in a scope, and what takes long in it looks by itself whether the work
//! is still wanted, so that nothing is dropped in the middle of what it does:
//!
//! ```text
//! Halt::scope(work)            a build
//!   └─ until(unwanted, work)   a step: wanted for as long as somebody follows it, also when its build is not any more
//!        ├─ wait(future)       waits for locks, calls and transfers: ends where it stands
//!        ├─ blocking(work)     threads: they look at every file or chunk (check), read the store by a reader
//!        │                     that breaks off, and are waited for
//!        └─ cancelled()        a container is killed
//! ```
//!
//! A scope rather than an argument, since nearly every function from a build down to a chunk of a file would have to hand it
//! on. A task that is spawned is outside of it.

use std::io::{self, Read};
use std::pin::pin;
use std::time::Duration;

use distribution::BlobStream;
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::failure::Failure;

/// A thread that has not noticed in this time is left to itself.
const NOTICED: Duration = Duration::from_secs(10);

tokio::task_local! {
    static SCOPE: Halt;
}

/// Whether work is still wanted, and the threads that do it.
#[derive(Clone, Debug)]
pub struct Halt {
    token: CancellationToken,
    threads: TaskTracker,
}

impl Halt {
    pub fn new(token: CancellationToken) -> Self {
        Self { token, threads: TaskTracker::new() }
    }

    /// Does work that ends early once the token is cancelled. None of its threads goes on after it.
    pub fn scope<T>(self, work: impl Future<Output = T>) -> impl Future<Output = T> {
        // What a build does is a large future: it is not to be part of those around it.
        let done = SCOPE.scope(self.clone(), Box::pin(work));
        async move {
            let done = done.await;
            self.threads.close();
            if tokio::time::timeout(NOTICED, self.threads.wait()).await.is_err() {
                tracing::warn!("what is no longer wanted goes on for a while");
            }
            done
        }
    }
}

/// Does work in a scope of its own, which ends early once it is `unwanted`, whatever becomes of the scope around it.
pub fn until<T>(unwanted: impl Future<Output = ()>, work: impl Future<Output = T>) -> impl Future<Output = T> {
    let token = CancellationToken::new();
    let work = Halt::new(token.clone()).scope(work);
    async move {
        let mut work = pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = unwanted => token.cancel(),
        }
        work.await
    }
}

/// Returns when the work of this scope is to end.
pub async fn cancelled() {
    match SCOPE.try_with(|halt| halt.token.clone()) {
        Ok(token) => token.cancelled_owned().await,
        Err(_) => std::future::pending().await,
    }
}

fn is_cancelled() -> bool {
    SCOPE.try_with(|halt| halt.token.is_cancelled()).unwrap_or_default()
}

/// For loops that block.
///
/// # Errors
/// An error of kind `Other` when the work of this scope is to end.
pub fn check() -> io::Result<()> {
    match is_cancelled() {
        true => Err(stopped()),
        false => Ok(()),
    }
}

/// Of no kind that a reader tries again, as it does after `Interrupted`.
fn stopped() -> io::Error {
    io::Error::other(Failure::Cancelled.to_string())
}

/// Waits for something that may be dropped where it stands.
///
/// # Errors
/// `Cancelled` when the work of this scope is to end before.
pub fn wait<T>(work: impl Future<Output = T>) -> impl Future<Output = Result<T, Failure>> {
    let work = Box::pin(work);
    async move {
        tokio::select! {
            biased;
            () = cancelled() => Err(Failure::Cancelled),
            done = work => Ok(done),
        }
    }
}

/// The same of something that may fail.
///
/// # Errors
/// Its own, and as [`wait`].
pub fn wanted<T>(work: impl Future<Output = Result<T, Failure>>) -> impl Future<Output = Result<T, Failure>> {
    let work = wait(work);
    async move { work.await? }
}

/// Runs what blocks on a thread for it, in the same scope.
///
/// # Errors
/// The work's own; `Cancelled` in place of whatever it has failed with where it was to end.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let Ok(halt) = SCOPE.try_with(Halt::clone) else {
        return tokio::task::spawn_blocking(work).await.map_err(Failure::caused)?;
    };
    let scope = halt.clone();
    let thread = halt.threads.spawn_blocking(move || SCOPE.sync_scope(scope, work));
    let done = thread.await.map_err(Failure::caused)?;
    done.map_err(|error| if halt.token.is_cancelled() { Failure::Cancelled } else { error })
}

/// Bytes of the layer store as a blocking reader, to be read in [`blocking`]. It breaks off with an error when the work of
/// this scope is to end, also while no byte comes.
///
/// # Errors
/// The store's own, `Cancelled`.
pub async fn reader(
    opened: impl Future<Output = Result<BlobStream, distribution::Error>>,
) -> Result<Box<dyn Read + Send>, Failure> {
    let stream = wanted(async { opened.await.map_err(Failure::caused) }).await?;
    let token = SCOPE.try_with(|halt| halt.token.clone()).unwrap_or_default();
    let end = token.clone();
    let broken = futures::stream::once(async move { end.is_cancelled().then(|| Err(stopped())) });
    let bytes = stream.map(|chunk| chunk.map_err(io::Error::other)).take_until(token.cancelled_owned());
    Ok(Box::new(distribution::reader(bytes.chain(broken.filter_map(std::future::ready)).boxed())))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Fails the test rather than to hang.
    async fn soon<T>(work: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(20), work).await.expect("it ends")
    }

    #[tokio::test]
    async fn threads_end_with_the_work_and_are_waited_for() {
        let (token, ended) = (CancellationToken::new(), Arc::<AtomicBool>::default());
        let (stop, told) = (token.clone(), ended.clone());
        let work = Halt::new(token).scope(wanted(blocking(move || {
            stop.cancel();
            while check().is_ok() {}
            std::thread::sleep(Duration::from_millis(50));
            told.store(true, Ordering::Release);
            Err::<(), _>(Failure::internal("any"))
        })));
        assert!(matches!(soon(work).await, Err(Failure::Cancelled)));
        assert!(ended.load(Ordering::Acquire), "though nobody has waited for its result");
    }

    #[tokio::test]
    async fn a_step_goes_on_without_its_build_until_it_is_unwanted() {
        let (build, step) = (CancellationToken::new(), CancellationToken::new());
        build.cancel();
        let work = async {
            let unwanted = step.cancelled();
            until(unwanted, async {
                assert!(check().is_ok(), "its build counts not");
                step.cancel();
                cancelled().await;
                check().is_err()
            })
            .await
        };
        assert!(soon(Halt::new(build).scope(work)).await);
        assert!(check().is_ok(), "outside of all scopes");
    }

    #[tokio::test]
    async fn a_reader_of_a_store_that_has_fallen_silent_breaks_off() {
        let token = CancellationToken::new();
        let stop = token.clone();
        let work = Halt::new(token).scope(async {
            let first = futures::stream::once(async { Ok(bytes::Bytes::from_static(b"some")) });
            let silent: BlobStream = first.chain(futures::stream::pending()).boxed();
            let mut reader = reader(async { Ok(silent) }).await?;
            blocking(move || {
                let mut some = [0; 4];
                reader.read_exact(&mut some).map_err(Failure::caused)?;
                stop.cancel();
                match reader.read(&mut some) {
                    Err(_) => Ok(some),
                    Ok(count) => Err(Failure::internal(format!("{count} bytes of nothing"))),
                }
            })
            .await
        });
        assert_eq!(&soon(work).await.expect("an error, not an end"), b"some");
    }
}
