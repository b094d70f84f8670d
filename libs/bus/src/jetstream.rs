use std::time::Duration;

use async_nats::jetstream::consumer::{Consumer, DeliverPolicy, pull};
use async_nats::jetstream::stream;
use async_nats::jetstream::{Message, kv};
use futures::{Stream, StreamExt as _};
use prost::Message as _;

use crate::calls::{GATEWAY_EVENTS, build_log_subject, event_subject};
use crate::{Bus, Error};

const EVENTS: &str = "EVENTS";
const BUILD_LOGS: &str = "BUILDLOG";
/// Bucket of who is alive; keys carry their own time to live.
pub(crate) const ALIVE: &str = "alive";
/// Bucket of step claims.
pub(crate) const CLAIMS: &str = "claims";

const DAY: Duration = Duration::from_secs(24 * 3600);
const EVENTS_MAX_BYTES: i64 = 256 << 20;
const BUILD_LOGS_MAX_BYTES: i64 = 512 << 20;

/// What the stream of events brings.
#[derive(Clone, Debug)]
pub enum Happened {
    OnNode(Box<proto::NodeEvent>),
    AtGateway(Box<proto::GatewayEvent>),
}

/// What was written into a build's log.
#[derive(Clone, Debug)]
pub struct Written {
    /// The bus user who wrote it: the server lets a user publish under its own name only.
    pub user: String,
    /// An error where it is no chunk: anybody may write that, so it ends nothing by itself.
    pub chunk: Result<proto::BuildLog, Error>,
}

impl Bus {
    /// Makes the streams and buckets where they are missing. Only a gateway may; the others wait for it.
    ///
    /// # Errors
    /// `Unavailable` when JetStream does not answer.
    pub async fn ensure_streams(&self) -> Result<(), Error> {
        let events: &[&str] = &["event.node.*", GATEWAY_EVENTS];
        for (name, subjects, max_bytes) in
            [(EVENTS, events, EVENTS_MAX_BYTES), (BUILD_LOGS, &["buildlog.*.*"], BUILD_LOGS_MAX_BYTES)]
        {
            let config = stream::Config {
                name: name.to_owned(),
                subjects: subjects.iter().map(|subject| (*subject).to_owned()).collect(),
                max_bytes,
                max_age: 7 * DAY,
                ..Default::default()
            };
            // One that an earlier Boxyard has made may have had other subjects.
            self.jetstream.create_or_update_stream(config).await.map_err(unavailable)?;
        }
        for bucket in [ALIVE, CLAIMS] {
            if self.jetstream.get_key_value(bucket).await.is_err() {
                let config = kv::Config {
                    bucket: bucket.to_owned(),
                    history: 1,
                    limit_markers: Some(Duration::from_secs(60)),
                    ..Default::default()
                };
                self.jetstream.create_key_value(config).await.map_err(unavailable)?;
            }
        }
        Ok(())
    }

    /// Publishes a change of a node; returns when the stream has it on disk.
    ///
    /// # Errors
    /// `Unavailable` when the stream did not acknowledge; the same event may be published again.
    pub async fn publish_event(&self, event: &proto::NodeEvent) -> Result<(), Error> {
        let payload = event.encode_to_vec().into();
        let ack = self.jetstream.publish(event_subject(&event.node_id), payload).await.map_err(unavailable)?;
        ack.await.map(drop).map_err(unavailable)
    }

    /// Publishes what a gateway tells the others; returns when the stream has it on disk.
    ///
    /// # Errors
    /// `Unavailable` when the stream did not acknowledge; the same event may be published again.
    pub async fn publish_gateway_event(&self, event: &proto::GatewayEvent) -> Result<(), Error> {
        let ack = self.jetstream.publish(GATEWAY_EVENTS, event.encode_to_vec().into()).await.map_err(unavailable)?;
        ack.await.map(drop).map_err(unavailable)
    }

    /// Events of all nodes and gateways with their position, from `position` on (0: from the oldest kept), then live.
    ///
    /// # Errors
    /// `Unavailable` when JetStream does not answer.
    pub async fn events(
        &self,
        position: u64,
    ) -> Result<impl Stream<Item = Result<(u64, Happened), Error>> + Send + Unpin + use<>, Error> {
        let start = match position {
            0 => DeliverPolicy::All,
            start_sequence => DeliverPolicy::ByStartSequence { start_sequence },
        };
        let messages = self.messages(EVENTS, "event.>".to_owned(), start).await?;
        Ok(messages.map(|message| {
            let message = message?;
            let position = message.info().map_err(unavailable)?.stream_sequence;
            if message.subject.as_str() == GATEWAY_EVENTS {
                return Ok((position, Happened::AtGateway(Box::new(decode(&message)?))));
            }
            let mut event: proto::NodeEvent = decode(&message)?;
            // The server lets a node publish on its own subject only, so the subject says who it was.
            event.node_id = message.subject.rsplit('.').next().unwrap_or_default().to_owned();
            Ok((position, Happened::OnNode(Box::new(event))))
        }))
    }

    /// Publishes a chunk of a build's log without waiting for the stream's acknowledgement; order is kept.
    ///
    /// # Errors
    /// `Unavailable` when the connection is closed.
    pub async fn publish_build_log(&self, build_id: &str, chunk: &proto::BuildLog) -> Result<(), Error> {
        let (subject, payload) = (build_log_subject(build_id, &self.user), chunk.encode_to_vec().into());
        self.client.publish(subject, payload).await.map_err(unavailable)
    }

    /// The log of a build from its first chunk, then live. Every worker may write, so whether it was this one's turn is for
    /// the reader to find out.
    ///
    /// # Errors
    /// `Unavailable` when JetStream does not answer.
    pub async fn build_log(
        &self,
        build_id: &str,
    ) -> Result<impl Stream<Item = Result<Written, Error>> + Send + Unpin + use<>, Error> {
        let messages = self.unbroken(BUILD_LOGS, build_log_subject(build_id, "*")).await?;
        Ok(messages.map(|message| message.map(|message| written(&message))))
    }

    /// Forgets what was ever written into a build's log, for a build to come that has the same id.
    ///
    /// # Errors
    /// `Unavailable` when JetStream does not answer.
    pub async fn clear_build_log(&self, build_id: &str) -> Result<(), Error> {
        let stream = self.jetstream.get_stream_no_info(BUILD_LOGS).await.map_err(unavailable)?;
        stream.purge().filter(build_log_subject(build_id, "*")).await.map(drop).map_err(unavailable)
    }

    /// As [`Self::build_log`], but ends with the last chunk that is there now.
    ///
    /// # Errors
    /// `Unavailable` when JetStream does not answer.
    pub async fn build_log_so_far(
        &self,
        build_id: &str,
    ) -> Result<impl Stream<Item = Result<Written, Error>> + Send + Unpin + use<>, Error> {
        let consumer = self.consumer(BUILD_LOGS, build_log_subject(build_id, "*"), DeliverPolicy::All).await?;
        let count = usize::try_from(consumer.cached_info().num_pending).unwrap_or(usize::MAX);
        let messages = consumer.messages().await.map_err(unavailable)?;
        Ok(messages.map(|message| message.map(|message| written(&message)).map_err(unavailable)).take(count).boxed())
    }

    pub(crate) async fn messages(
        &self,
        stream: &str,
        filter_subject: String,
        deliver_policy: DeliverPolicy,
    ) -> Result<impl Stream<Item = Result<Message, Error>> + Send + Unpin + use<>, Error> {
        let messages = self.consumer(stream, filter_subject, deliver_policy).await?.messages().await;
        Ok(messages.map_err(unavailable)?.map(|message| message.map_err(unavailable)).boxed())
    }

    async fn consumer(
        &self,
        stream: &str,
        filter_subject: String,
        deliver_policy: DeliverPolicy,
    ) -> Result<Consumer<pull::OrderedConfig>, Error> {
        let stream = self.jetstream.get_stream_no_info(stream).await.map_err(unavailable)?;
        let config = pull::OrderedConfig { filter_subject, deliver_policy, ..Default::default() };
        stream.create_consumer(config).await.map_err(unavailable)
    }
}

fn written(message: &Message) -> Written {
    let user = message.subject.rsplit('.').next().unwrap_or_default().to_owned();
    Written { user, chunk: decode(message) }
}

fn decode<M: prost::Message + Default>(message: &Message) -> Result<M, Error> {
    M::decode(message.payload.clone())
        .map_err(|e| Error::internal(format!("malformed message on {}: {e}", message.subject)))
}

pub(crate) fn unavailable(error: impl std::fmt::Display) -> Error {
    Error::unavailable(format!("the bus does not answer: {error}"))
}
