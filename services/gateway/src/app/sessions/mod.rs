//! Sessions of clients: a connection on which the client is a gRPC server, and the gateway asks it for what a build needs
//! (BuildKit's session protocol): files, secrets, agents, credentials; and gives it what was built.
//!
//! A worker asks by the calls of this gateway (`Target::GatewayAt`); [`App::session_of`] lets only the worker that holds
//! the build reach its client. A session lives in the memory of the gateway that its client is connected to.

mod connection;
mod content;
pub mod context;
mod credentials;
mod files;
mod output;
mod secrets;
mod ssh;
mod trees;
mod upload;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard_buildkit_proto::health::health_client::HealthClient;
use bollard_buildkit_proto::health::{HealthCheckRequest, health_check_response::ServingStatus};
use model::ErrorKind;
use prost::Message as _;
use tokio::sync::Notify;

use super::{App, Failure, Outcome, lock};
pub use connection::Connection;
pub use trees::KnownTrees;

/// A client opens its session and asks for a build at the same time.
const PATIENCE: Duration = Duration::from_secs(5);
const HEALTH: Duration = Duration::from_secs(5);
const HEALTH_PATIENCE: Duration = Duration::from_secs(30);

/// What a client says of its session when it opens it.
#[derive(Debug, Clone, Default)]
pub struct Told {
    pub id: String,
    /// Names the folder that it sends, over many sessions.
    pub shared_key: String,
    /// Paths of the gRPC methods that it serves.
    pub methods: HashSet<String>,
}

/// An open session.
pub struct Session {
    pub told: Told,
    pub connection: Connection,
}

#[derive(Default)]
pub struct Sessions {
    by_id: Mutex<HashMap<String, Option<Arc<Session>>>>,
    opened: Notify,
}

impl Session {
    /// # Errors
    /// `Unimplemented` for a method that the client does not serve.
    fn must_serve(&self, method: &str) -> Outcome<()> {
        if self.told.methods.contains(&method.to_ascii_lowercase()) {
            return Ok(());
        }
        Err(Failure::not_built(format!("method {method} not supported by the client")))
    }
}

impl App {
    /// Takes the id of a session that will be opened; it is given back when [`Opening`] ends.
    ///
    /// # Errors
    /// `Conflict` for an id that is in use.
    pub fn open_session(self: &Arc<Self>, mut told: Told) -> Outcome<Opening> {
        told.methods = told.methods.iter().map(|method| method.to_ascii_lowercase()).collect();
        let mut sessions = lock(&self.sessions.by_id);
        if sessions.contains_key(&told.id) {
            return Err(Failure::conflict(format!("session {} already exists", told.id)));
        }
        sessions.insert(told.id.clone(), None);
        Ok(Opening { app: self.clone(), told })
    }

    /// The session with this id, which may be about to be opened.
    ///
    /// # Errors
    /// `Unavailable` where there is none.
    pub async fn session(&self, id: &str) -> Outcome<Arc<Session>> {
        let wait = async {
            loop {
                let opened = self.sessions.opened.notified();
                tokio::pin!(opened);
                opened.as_mut().enable();
                if let Some(Some(session)) = lock(&self.sessions.by_id).get(id) {
                    return session.clone();
                }
                opened.await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.map_err(|_| {
            Failure::new(ErrorKind::Unavailable, format!("no active session for {id}: context deadline exceeded"))
        })
    }

    /// The session of the client whose build this user of the bus runs.
    ///
    /// # Errors
    /// As [`App::held_by`]; `Unavailable` where the client has gone.
    async fn session_of(
        &self,
        user: &str,
        build_id: &str,
        attempt: u32,
    ) -> Outcome<(Arc<Session>, proto::BuildOptions)> {
        let build = self.held_by(user, build_id, attempt).await?;
        let options = proto::BuildOptions::decode(build.options.as_slice())
            .map_err(|e| Failure::invalid(format!("options of build {build_id}: {e}")))?;
        if options.session_id.is_empty() {
            return Err(Failure::invalid("the build's client has no session"));
        }
        Ok((self.session(&options.session_id).await?, options))
    }
}

/// A session whose client waits for its connection to be taken over.
pub struct Opening {
    app: Arc<App>,
    told: Told,
}

impl Opening {
    /// Serves the session until the client goes or does not answer any more.
    pub async fn serve(self, io: impl hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static) {
        let (connection, running) = match Connection::open(io).await {
            Ok(open) => open,
            Err(error) => return tracing::debug!(%error, "a client's session could not be opened"),
        };
        let session = Arc::new(Session { told: self.told.clone(), connection });
        lock(&self.app.sessions.by_id).insert(self.told.id.clone(), Some(session.clone()));
        self.app.sessions.opened.notify_waiters();
        tokio::select! {
            () = running => {}
            () = health(session) => {}
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        lock(&self.app.sessions.by_id).remove(&self.told.id);
    }
}

/// Returns when the client does not answer any more.
async fn health(session: Arc<Session>) {
    let mut client = HealthClient::with_origin(session.connection.clone(), Connection::origin());
    loop {
        tokio::time::sleep(HEALTH).await;
        let asked = tokio::time::timeout(HEALTH_PATIENCE, client.check(HealthCheckRequest::default())).await;
        let well = match asked {
            Ok(Ok(answer)) => answer.get_ref().status() != ServingStatus::NotServing,
            // A client without the service is well as long as its connection is.
            Ok(Err(status)) => status.code() == tonic::Code::Unimplemented,
            Err(_) => false,
        };
        if !well {
            return tracing::info!(session = session.told.id, "a client's session does not answer: it is closed");
        }
    }
}

/// What a client answers instead of a result. Only one that cannot be reached is `Unavailable`, since it may come back;
/// one that says so of itself has answered.
fn refused(status: &tonic::Status) -> Failure {
    use std::error::Error as _;
    use tonic::Code;
    // Of our own side of the connection, not of the client's.
    let is_broken = status.source().is_some();
    let kind = match status.code() {
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled if is_broken => ErrorKind::Unavailable,
        Code::NotFound => ErrorKind::NotFound,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => ErrorKind::InvalidArgument,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::PermissionDenied => ErrorKind::Denied,
        Code::Unauthenticated => ErrorKind::Unauthenticated,
        Code::Unimplemented => ErrorKind::Unimplemented,
        Code::ResourceExhausted => ErrorKind::Exhausted,
        Code::Cancelled | Code::Aborted => ErrorKind::Cancelled,
        Code::DeadlineExceeded => ErrorKind::Timeout,
        _ => ErrorKind::Internal,
    };
    Failure::new(kind, status.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_says_that_it_is_unavailable_is_there() {
        let broken = tonic::Status::from_error(Box::new(std::io::Error::from(std::io::ErrorKind::BrokenPipe)));
        for (status, kind) in [
            (tonic::Status::unavailable("the disk is away"), ErrorKind::Internal),
            (tonic::Status::unknown("why not"), ErrorKind::Internal),
            (tonic::Status::not_found("x"), ErrorKind::NotFound),
            (tonic::Status::cancelled("not now"), ErrorKind::Cancelled),
            (broken, ErrorKind::Unavailable),
        ] {
            assert_eq!(refused(&status).kind, kind, "{status:?}");
        }
    }

    #[tokio::test]
    async fn a_client_that_has_gone_is_unavailable() {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let (connection, running) = Connection::open(hyper_util::rt::TokioIo::new(ours)).await.expect("a connection");
        let running = tokio::spawn(running);
        let mut client = HealthClient::with_origin(connection, Connection::origin());
        let mut again = client.clone();
        let asked = tokio::spawn(async move { client.check(HealthCheckRequest::default()).await });
        tokio::task::yield_now().await;
        drop(theirs);
        let while_asked = asked.await.expect("no panic").expect_err("it has gone");
        running.await.expect("ended");
        let after = again.check(HealthCheckRequest::default()).await.expect_err("it has gone");
        for status in [while_asked, after] {
            assert_eq!(refused(&status).kind, ErrorKind::Unavailable, "{status:?}");
        }
    }
}
