use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::stream::DirectGetErrorKind;
use prost::Message as _;

use crate::jetstream::{CLAIMS, unavailable};
use crate::{Bus, Error};

/// A claim that is not renewed is void after so long. Whole seconds, as `Nats-TTL` has them.
pub const CLAIM_TTL: Duration = Duration::from_secs(10);
/// So long it is told that a step has ended: longer than a build takes from a look into the cache to its claim.
const ENDED_TTL: Duration = Duration::from_secs(300);

/// What stands under a key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claimed {
    /// `None`: nobody has claimed it, or the claim ran out.
    pub claim: Option<proto::StepClaim>,
    /// What the next claim must be written over; 0 for a key that was never written.
    pub revision: u64,
}

impl Bus {
    /// Claims a key if `over` is still its newest revision; gives the new revision, or `None` when another was first.
    ///
    /// Published directly, since a KV update through the client drops the time to live.
    ///
    /// # Errors
    /// `Unavailable` when JetStream does not answer. The claim may stand then, until it runs out.
    pub async fn claim(&self, key: &str, claim: &proto::StepClaim, over: u64) -> Result<Option<u64>, Error> {
        let ttl = if claim.ended { ENDED_TTL } else { CLAIM_TTL };
        let mut headers = HeaderMap::new();
        headers.insert("Nats-TTL", ttl.as_secs().to_string());
        headers.insert("Nats-Expected-Last-Subject-Sequence", over.to_string());
        let sent = self.jetstream.publish_with_headers(claim_subject(key), headers, claim.encode_to_vec().into()).await;
        match sent.map_err(unavailable)?.await {
            Ok(ack) => Ok(Some(ack.sequence)),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// Who has claimed a key.
    ///
    /// # Errors
    /// `Unavailable` when JetStream does not answer.
    pub async fn claimed(&self, key: &str) -> Result<Claimed, Error> {
        let stream = self.jetstream.get_stream_no_info(format!("KV_{CLAIMS}")).await.map_err(unavailable)?;
        match stream.direct_get_last_for_subject(claim_subject(key)).await {
            // What the server writes when a claim runs out is empty.
            Ok(message) => Ok(Claimed {
                claim: proto::StepClaim::decode(message.payload).ok().filter(|claim| !claim.id.is_empty()),
                revision: message.sequence,
            }),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(Claimed::default()),
            Err(error) => Err(unavailable(error)),
        }
    }
}

fn claim_subject(key: &str) -> String {
    format!("$KV.{CLAIMS}.{key}")
}
