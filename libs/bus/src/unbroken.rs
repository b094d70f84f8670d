use std::time::{Duration, Instant};

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::DeliverPolicy;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};

use crate::jetstream::unavailable;
use crate::{Bus, Error};

/// A bus that does not come back for so long ends the reading.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(200);

/// The messages of a stream from the first one on. The place in it is kept here, since the server forgets its readers when
/// it is restarted.
struct Unbroken {
    bus: Bus,
    stream: &'static str,
    filter: String,
    last: u64,
    messages: Option<BoxStream<'static, Result<Message, Error>>>,
}

impl Bus {
    /// What a stream holds and gets of these subjects, also over restarts of the server: none twice, none left out.
    ///
    /// # Errors
    /// `Unavailable` when JetStream does not answer; later on, only when it does not for two minutes.
    pub(crate) async fn unbroken(
        &self,
        stream: &'static str,
        filter: String,
    ) -> Result<impl Stream<Item = Result<Message, Error>> + Send + Unpin + use<>, Error> {
        let messages = self.messages(stream, filter.clone(), DeliverPolicy::All).await?.boxed();
        let unbroken = Unbroken { bus: self.clone(), stream, filter, last: 0, messages: Some(messages) };
        let next = |mut unbroken: Unbroken| async move { Some((unbroken.next().await, unbroken)) };
        Ok(futures::stream::unfold(unbroken, next).boxed())
    }
}

impl Unbroken {
    async fn next(&mut self) -> Result<Message, Error> {
        let mut failing: Option<Instant> = None;
        loop {
            let error = match self.try_next().await {
                Ok(message) => return Ok(message),
                Err(error) => error,
            };
            self.messages = None;
            if failing.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                return Err(error);
            }
            tracing::debug!(%error, stream = self.stream, "read on after a break");
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn try_next(&mut self) -> Result<Message, Error> {
        if self.messages.is_none() {
            let behind = DeliverPolicy::ByStartSequence { start_sequence: self.last + 1 };
            self.messages = Some(self.bus.messages(self.stream, self.filter.clone(), behind).await?.boxed());
        }
        let next = match &mut self.messages {
            Some(messages) => messages.next().await,
            None => None,
        };
        let message = next.ok_or_else(|| unavailable("the stream was closed"))??;
        self.last = message.info().map_err(unavailable)?.stream_sequence;
        Ok(message)
    }
}
