use std::time::Duration;

use async_nats::{HeaderMap, Message, StatusCode};
use bytes::Bytes;
use futures::StreamExt as _;
use model::ErrorKind;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::{Bus, Call, Error, SILENCE, Target, counts};

/// A service that has just ended is started again by its supervisor: so long it is waited for.
const PATIENCE: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(100);

/// Header of an answer: what kind of frame it is.
pub(crate) const FRAME: &str = "Boxyard-Frame";
/// Header of an error frame: its kind.
pub(crate) const KIND: &str = "Boxyard-Error-Kind";
pub(crate) const OK: &str = "ok";
pub(crate) const ERROR: &str = "error";
pub(crate) const PROGRESS: &str = "progress";
pub(crate) const ALIVE: &str = "alive";

impl Bus {
    /// Asks `target` and waits for its answer, for as long as the target shows that it works on it.
    ///
    /// # Errors
    /// The target's own error; `Unavailable` when nobody serves the call for four seconds or the server fell silent.
    pub async fn call<C: Call>(&self, target: &Target, request: &C::Request) -> Result<C::Reply, Error> {
        counts::asked::<C, _>(self.exchange::<C>(target, request, None).await)
    }

    /// Like [`Self::call`]; progress is passed on as it comes. A full channel slows this call only.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn call_with_progress<C: Call>(
        &self,
        target: &Target,
        request: &C::Request,
        progress: mpsc::Sender<proto::Progress>,
    ) -> Result<C::Reply, Error> {
        counts::asked::<C, _>(self.exchange::<C>(target, request, Some(progress)).await)
    }

    /// Like [`Self::call_with_progress`]; when this future is dropped before the answer, the server is told that
    /// nobody wants it any more.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn call_while_wanted<C: Call>(
        &self,
        target: &Target,
        request: &C::Request,
        progress: Option<mpsc::Sender<proto::Progress>>,
    ) -> Result<C::Reply, Error> {
        let inbox = self.client.new_inbox();
        let leaving = Leaving { client: self.client.clone(), subject: target.gone(), inbox: Some(inbox.clone()) };
        let answer = self.exchange_at::<C>(inbox, target, request, progress).await;
        // One that is only silent may work on.
        if !answer.as_ref().is_err_and(Error::is_lost) {
            leaving.stay();
        }
        counts::asked::<C, _>(answer)
    }

    async fn exchange<C: Call>(
        &self,
        target: &Target,
        request: &C::Request,
        progress: Option<mpsc::Sender<proto::Progress>>,
    ) -> Result<C::Reply, Error> {
        self.exchange_at::<C>(self.client.new_inbox(), target, request, progress).await
    }

    async fn exchange_at<C: Call>(
        &self,
        inbox: String,
        target: &Target,
        request: &C::Request,
        progress: Option<mpsc::Sender<proto::Progress>>,
    ) -> Result<C::Reply, Error> {
        debug_assert_eq!(C::OWNER, target.owner(), "{} is not served by {}", C::NAME, target.noun());
        let mut answers = self.client.subscribe(inbox.clone()).await.map_err(|e| Error::unavailable(e.to_string()))?;
        let subject = format!("{}.{}.{}", target.prefix(), C::NAME, self.user);
        let request = Bytes::from(request.encode_to_vec());
        let ask = async || {
            let sent = self.client.publish_with_reply(subject.clone(), inbox.clone(), request.clone()).await;
            sent.map_err(|e| Error::unavailable(e.to_string()))
        };
        ask().await?;
        let patience = Instant::now() + PATIENCE;
        loop {
            let silent = || Error::lost(format!("the {} does not answer", target.noun()));
            let message = timeout(SILENCE, answers.next()).await.map_err(|_| silent())?.ok_or_else(silent)?;
            match Frame::of(&message) {
                Frame::Alive => {}
                // Nobody has seen the request, so asking again does nothing twice.
                Frame::NoResponders if Instant::now() < patience => {
                    tokio::time::sleep(PAUSE).await;
                    ask().await?;
                }
                Frame::NoResponders => return Err(Error::absent(format!("no {} is running", target.noun()))),
                Frame::Error(kind) => return Err(Error::new(kind, String::from_utf8_lossy(&message.payload))),
                Frame::Progress => {
                    if let (Some(sender), Ok(step)) = (&progress, proto::Progress::decode(message.payload)) {
                        // A receiver that is gone no longer wants progress; the answer still counts.
                        let _ = sender.send(step).await;
                    }
                }
                Frame::Ok => {
                    return C::Reply::decode(message.payload)
                        .map_err(|e| Error::internal(format!("answer of the {} to {}: {e}", target.noun(), C::NAME)));
                }
            }
        }
    }
}

/// Tells the server that its caller has gone, when it is dropped before the answer has come.
struct Leaving {
    client: async_nats::Client,
    subject: String,
    inbox: Option<String>,
}

impl Leaving {
    fn stay(mut self) {
        self.inbox = None;
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let Some(inbox) = self.inbox.take() else { return };
        let (client, subject) = (self.client.clone(), std::mem::take(&mut self.subject));
        // At the end of a process there is no runtime, and the server notices by itself that nobody renews its lease.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _ = client.publish(subject, inbox.into()).await;
            });
        }
    }
}

enum Frame {
    Ok,
    Error(ErrorKind),
    Progress,
    Alive,
    NoResponders,
}

impl Frame {
    fn of(message: &Message) -> Self {
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Self::NoResponders;
        }
        let header = |name: &str| message.headers.as_ref().and_then(|headers| headers.get(name)).map(|v| v.as_str());
        match header(FRAME) {
            Some(PROGRESS) => Self::Progress,
            Some(ALIVE) => Self::Alive,
            Some(ERROR) => Self::Error(ErrorKind::from_wire(header(KIND).unwrap_or_default())),
            _ => Self::Ok,
        }
    }
}

pub(crate) fn frame(kind: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(FRAME, kind);
    headers
}
