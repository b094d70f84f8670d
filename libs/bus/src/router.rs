use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::{Client, Message, Subject};
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use model::ErrorKind;
use prost::Message as _;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::call::{ALIVE, ERROR, KIND, OK, PROGRESS, frame};
use crate::calls::Owner;
use crate::{Bus, Call, Error, HEARTBEAT, Target, counts};

type Answer = Pin<Box<dyn Future<Output = Result<Vec<u8>, Error>> + Send>>;
type Handler = Arc<dyn Fn(Bytes, ProgressSender) -> Answer + Send + Sync>;

/// The handlers of one service, by call.
#[derive(Clone, Default)]
pub struct Router {
    handlers: HashMap<&'static str, Handler>,
    /// Calls whose handlers end when their caller has gone.
    while_wanted: HashSet<&'static str>,
}

/// Handlers that end with their caller, by where the answer goes.
type Wanted = Arc<Mutex<HashMap<String, AbortHandle>>>;

/// Sends progress of a running call to its caller.
#[derive(Clone)]
pub struct ProgressSender {
    client: Client,
    reply: Option<Subject>,
    caller: Caller,
}

/// The bus user who made a call, as the server let it through: a user may only put its own name on a call's subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller(String);

impl Caller {
    pub fn user(&self) -> &str {
        &self.0
    }

    /// # Errors
    /// `Denied`, which is logged, when the caller is not `user`.
    pub fn must_be(&self, user: &str, what: &str) -> Result<(), Error> {
        if self.0 == user {
            return Ok(());
        }
        tracing::warn!(caller = self.0, claims = user, what, "a call under another's name was denied");
        Err(Error::new(ErrorKind::Denied, format!("{} may not speak as {user}", self.0)))
    }
}

impl ProgressSender {
    /// Who made the call.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Progress is lost when the connection is down; the answer is not.
    pub async fn send(&self, progress: &proto::Progress) {
        if let Some(reply) = self.reply.clone() {
            let _ = self.client.publish_with_headers(reply, frame(PROGRESS), progress.encode_to_vec().into()).await;
        }
    }
}

impl Router {
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers call `C` with `handler`.
    pub fn on<C, H, F>(self, handler: H) -> Self
    where
        C: Call,
        H: Fn(C::Request) -> F + Send + Sync + 'static,
        F: Future<Output = Result<C::Reply, Error>> + Send + 'static,
    {
        self.on_progress::<C, _, _>(move |request, _| handler(request))
    }

    /// Answers call `C` with a handler that wants to know who asks.
    pub fn on_from<C, H, F>(self, handler: H) -> Self
    where
        C: Call,
        H: Fn(Caller, C::Request) -> F + Send + Sync + 'static,
        F: Future<Output = Result<C::Reply, Error>> + Send + 'static,
    {
        self.on_progress::<C, _, _>(move |request, progress| handler(progress.caller, request))
    }

    /// Answers call `C` with a handler that tells its caller how far it is.
    pub fn on_progress<C, H, F>(mut self, handler: H) -> Self
    where
        C: Call,
        H: Fn(C::Request, ProgressSender) -> F + Send + Sync + 'static,
        F: Future<Output = Result<C::Reply, Error>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let typed: Handler = Arc::new(move |payload, progress| {
            let handler = handler.clone();
            async move {
                let request = C::Request::decode(payload)
                    .map_err(|e| Error::invalid(format!("request of {} is malformed: {e}", C::NAME)))?;
                let began = std::time::Instant::now();
                let outcome = handler(request, progress).await;
                counts::served::<C, _>(began.elapsed(), outcome).map(|reply| reply.encode_to_vec())
            }
            .boxed()
        });
        self.handlers.insert(C::NAME, typed);
        self
    }

    /// Like [`Self::on_progress`]; the handler's future is dropped where it stands when its caller has gone, see
    /// [`Bus::call_while_wanted`].
    pub fn on_while_wanted<C, H, F>(mut self, handler: H) -> Self
    where
        C: Call,
        H: Fn(C::Request, ProgressSender) -> F + Send + Sync + 'static,
        F: Future<Output = Result<C::Reply, Error>> + Send + 'static,
    {
        self.while_wanted.insert(C::NAME);
        self.on_progress::<C, _, _>(handler)
    }
}

impl Bus {
    /// Answers the calls of `service` until `cancel`; running handlers go on by themselves.
    ///
    /// # Errors
    /// `Unavailable` when the subscription cannot be made.
    pub async fn serve(&self, service: Target, router: Router, cancel: CancellationToken) -> Result<(), Error> {
        let subject = format!("{}.*.*", service.prefix());
        let subscribed = match service.owner() {
            // One process by its id: no queue group, or two of the same id would share the calls unnoticed.
            Owner::Node | Owner::Worker => self.client.subscribe(subject).await,
            Owner::Gateway | Owner::Store | Owner::Sync => self.client.queue_subscribe(subject, service.prefix()).await,
        };
        let mut requests = subscribed.map_err(|e| Error::unavailable(e.to_string()))?;
        let wanted = Wanted::default();
        // Every one of a group hears it, since the caller does not know which has its call.
        let mut gone = match router.while_wanted.is_empty() {
            true => futures::stream::pending().boxed(),
            false => {
                let subscribed = self.client.subscribe(service.gone()).await;
                subscribed.map_err(|e| Error::unavailable(e.to_string()))?.boxed()
            }
        };
        loop {
            tokio::select! {
                // First, since at the end of a process the connection goes at the same time.
                biased;
                () = cancel.cancelled() => return Ok(()),
                Some(inbox) = gone.next() => {
                    let inbox = String::from_utf8_lossy(&inbox.payload).into_owned();
                    if let Some(running) = lock(&wanted).remove(&inbox) {
                        running.abort();
                    }
                }
                message = requests.next() => match message {
                    Some(message) => self.dispatch(&router, &wanted, message),
                    None => return Err(Error::unavailable("the bus closed the subscription")),
                },
            }
        }
    }

    fn dispatch(&self, router: &Router, wanted: &Wanted, message: Message) {
        let mut words = message.subject.rsplit('.');
        let caller = Caller(words.next().unwrap_or_default().to_owned());
        let name = words.next().unwrap_or_default();
        let handler = router.handlers.get(name).cloned();
        let client = self.client.clone();
        let wanted = router.while_wanted.contains(name).then(|| wanted.clone());
        let unknown = Error::new(ErrorKind::Unimplemented, format!("call {name} is not known here"));
        tokio::spawn(async move {
            let progress = ProgressSender { client: client.clone(), reply: message.reply.clone(), caller };
            let outcome = match handler {
                Some(handler) => run(handler, message.payload, progress.clone(), wanted).await,
                None => Err(unknown),
            };
            let Some(reply) = message.reply else { return };
            let (headers, payload) = match outcome {
                Ok(payload) => (frame(OK), payload),
                Err(error) => {
                    let mut headers = frame(ERROR);
                    headers.insert(KIND, error.kind().as_str());
                    (headers, error.message().as_bytes().to_vec())
                }
            };
            if let Err(error) = client.publish_with_headers(reply, headers, payload.into()).await {
                tracing::warn!(%error, subject = %message.subject, "an answer could not be sent");
            }
        });
    }
}

/// Runs a handler on a task of its own, so that a panic becomes an answer, and beats until it is done.
async fn run(
    handler: Handler,
    payload: Bytes,
    progress: ProgressSender,
    wanted: Option<Wanted>,
) -> Result<Vec<u8>, Error> {
    let mut running = tokio::spawn(handler(payload, progress.clone()));
    let wanted = wanted.zip(progress.reply.as_ref().map(ToString::to_string));
    if let Some((wanted, reply)) = &wanted {
        lock(wanted).insert(reply.clone(), running.abort_handle());
    }
    loop {
        tokio::select! {
            joined = &mut running => {
                if let Some((wanted, reply)) = &wanted {
                    lock(wanted).remove(reply);
                }
                return joined.unwrap_or_else(|e| {
                    if e.is_cancelled() {
                        return Err(Error::new(ErrorKind::Cancelled, "the caller has gone"));
                    }
                    tracing::error!(error = %e, "a handler panicked");
                    Err(Error::internal("internal error: a handler panicked"))
                });
            }
            () = tokio::time::sleep(HEARTBEAT) => {
                if let Some(reply) = progress.reply.clone() {
                    let _ = progress.client.publish_with_headers(reply, frame(ALIVE), Bytes::new()).await;
                }
            }
        }
    }
}

/// The map is whole after every statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
