//! Blobs of OCI layouts on a client's machine, by containerd's content API: caches of type `local`, and images of
//! `oci-layout://` contexts. What the layer store has, or the client, is not sent.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use contexts::content as api;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use http::uri::PathAndQuery;
use model::{Digest, ErrorKind};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use super::connection::Connection;
use super::{Session, refused};
use crate::app::{App, Failure, Outcome, lock};

/// So much is read into memory: manifests and configs, of which often only the digest is known.
const MAX_DOCUMENT_BYTES: u64 = 4 << 20;
/// Of one message, in bytes.
const CHUNK_BYTES: usize = 256 << 10;
/// Messages that wait for the client.
const MESSAGES: usize = 8;

impl App {
    /// Brings a blob of a client into the layer store, under the lease. Of one that is not what was asked for nothing stays.
    ///
    /// # Errors
    /// `Denied` to others than a registry-sync, `NotFound` where the client has none, `Corrupt` where its bytes are others,
    /// more, or fewer.
    pub async fn get_content(&self, user: &str, request: proto::ContentGet) -> Outcome<proto::Empty> {
        must_be_sync(user)?;
        let wanted = Wanted { digest: digest_of(&request.digest)?, max_bytes: request.max_bytes, exact: request.exact };
        if let Some(bytes) = self.store.has(&wanted.digest, Some(&request.lease)).await? {
            wanted.takes(bytes).and_then(|()| wanted.is_whole(bytes))?;
            return Ok(proto::Empty {});
        }
        let session = self.content_of(request.content, api::READ).await?;
        let asked = api::ReadRequest { digest: wanted.digest.to_string(), ..Default::default() };
        let mut client = session.client();
        let read = client.server_streaming(session.request(asked)?, path(api::READ), ProstCodec::default());
        let sent = held_to(read.await.map_err(|status| refused(&status))?.into_inner(), wanted.clone());
        match wanted.max_bytes <= MAX_DOCUMENT_BYTES {
            true => self.store_document(sent, &wanted, &request.lease).await?,
            false => self.store_layer(sent, &wanted, &request.lease).await?,
        }
        Ok(proto::Empty {})
    }

    async fn store_document(&self, sent: Sent, wanted: &Wanted, lease: &str) -> Outcome<()> {
        let bytes = sent.try_fold(Vec::new(), |mut all, bytes| async move {
            all.extend_from_slice(&bytes);
            Ok(all)
        });
        let bytes = bytes.await?;
        if Digest::of(&bytes) != wanted.digest {
            return Err(wanted.other_bytes());
        }
        self.store.put_bytes(&bytes, Some(lease)).await?;
        Ok(())
    }

    /// The layer store looks at the digest before the blob is one.
    async fn store_layer(&self, sent: Sent, wanted: &Wanted, lease: &str) -> Outcome<()> {
        if !wanted.exact {
            return Err(Failure::invalid(format!("blob {} without a size", wanted.digest)));
        }
        let broken = Arc::new(Mutex::new(None));
        let seen = broken.clone();
        let body = sent.inspect_err(move |failure| *lock(&seen) = Some(failure.clone()));
        let body = distribution::Body::wrap_stream(body);
        let stored = self.store.put(&wanted.digest, wanted.max_bytes, body, Some(lease)).await;
        match (lock(&broken).take(), stored) {
            // The layer store only knows that the body broke off.
            (Some(failure), _) => Err(failure),
            (None, Err(error)) if error.kind() == ErrorKind::InvalidArgument => Err(wanted.other_bytes()),
            (None, stored) => Ok(stored?),
        }
    }

    /// Sends a blob of the layer store to a client.
    ///
    /// # Errors
    /// `Denied` to others than a registry-sync; what the client says.
    pub async fn put_content(&self, user: &str, request: proto::ContentPut) -> Outcome<proto::Empty> {
        must_be_sync(user)?;
        let digest = digest_of(&request.digest)?;
        let session = self.content_of(request.content, api::WRITE).await?;
        if session.has(&digest).await? {
            return Ok(proto::Empty {});
        }
        let (to_client, messages) = mpsc::channel(MESSAGES);
        let mut client = session.client();
        let messages = session.request(ReceiverStream::new(messages))?;
        let sending = self.write_content(&digest, request.size, to_client);
        let receiving = async {
            let written = client.streaming(messages, path(api::WRITE), ProstCodec::default()).await;
            let mut answers = written.map_err(|status| refused(&status))?.into_inner();
            while let Some(answer) = answers.message().await.map_err(|status| refused(&status))? {
                let answer: api::WriteResponse = answer;
                if answer.action() == api::Action::Commit {
                    return Ok(());
                }
            }
            // It has answered, and would not do otherwise if it were asked again.
            Err(Failure::new(ErrorKind::Internal, "the client did not keep what it was sent"))
        };
        match tokio::try_join!(sending, receiving) {
            // Somebody else has given it meanwhile.
            Err(failure) if failure.kind == ErrorKind::AlreadyExists => Ok(proto::Empty {}),
            done => done.map(|_| proto::Empty {}),
        }
    }

    async fn write_content(
        &self,
        digest: &Digest,
        size: u64,
        to_client: mpsc::Sender<api::WriteRequest>,
    ) -> Outcome<()> {
        let message = |action: api::Action, offset: u64, data: Vec<u8>| api::WriteRequest {
            action: action.into(),
            reference: format!("boxyard-{digest}"),
            total: signed(size),
            expected: digest.to_string(),
            offset: signed(offset),
            data,
        };
        let mut offset = 0;
        let mut next = message(api::Action::Stat, 0, Vec::new());
        let mut content = self.store.get(digest).await?;
        while let Some(bytes) = content.try_next().await? {
            for chunk in bytes.chunks(CHUNK_BYTES) {
                let now = std::mem::replace(&mut next, message(api::Action::Write, offset, chunk.to_vec()));
                offset += chunk.len() as u64;
                if to_client.send(now).await.is_err() {
                    // The client's own word tells why.
                    return Ok(());
                }
            }
        }
        for last in [next, message(api::Action::Commit, offset, Vec::new())] {
            let _ = to_client.send(last).await;
        }
        Ok(())
    }

    async fn content_of(&self, content: Option<proto::ClientContent>, method: &str) -> Outcome<Content> {
        let proto::ClientContent { session_id, store, .. } = content.unwrap_or_default();
        let session = self.session(&session_id).await?;
        session.must_serve(method)?;
        Ok(Content { session, store })
    }
}

/// A blob as its descriptor says it, or a document of which only the digest is known.
#[derive(Clone)]
struct Wanted {
    digest: Digest,
    max_bytes: u64,
    exact: bool,
}

impl Wanted {
    fn takes(&self, bytes: u64) -> Outcome<()> {
        if bytes <= self.max_bytes {
            return Ok(());
        }
        let Self { digest, max_bytes, .. } = self;
        Err(Failure::new(ErrorKind::Corrupt, format!("the client has more than {max_bytes} bytes of {digest}")))
    }

    fn is_whole(&self, bytes: u64) -> Outcome<()> {
        if !self.exact || bytes >= self.max_bytes {
            return Ok(());
        }
        let Self { digest, max_bytes, .. } = self;
        Err(Failure::new(ErrorKind::Corrupt, format!("the client has {bytes} of the {max_bytes} bytes of {digest}")))
    }

    fn other_bytes(&self) -> Failure {
        Failure::new(ErrorKind::Corrupt, format!("the client has other bytes than those of {}", self.digest))
    }
}

/// What a client sends of a blob; it ends in an error at the first byte too many, and where bytes are missing.
type Sent = BoxStream<'static, Outcome<Bytes>>;

fn held_to(
    parts: impl Stream<Item = Result<api::ReadResponse, tonic::Status>> + Send + Unpin + 'static,
    wanted: Wanted,
) -> Sent {
    // The last part waits for the end, since whoever has all bytes of a blob does not look for more.
    let state = Some((parts, wanted, Bytes::new(), 0u64));
    futures::stream::unfold(state, |state| async move {
        let (mut parts, wanted, mut last, mut bytes) = state?;
        loop {
            let part = match parts.try_next().await {
                Err(status) => return Some((Err(refused(&status)), None)),
                Ok(None) => {
                    let end = wanted.is_whole(bytes).map(|()| last);
                    return Some((end, None));
                }
                Ok(Some(part)) => Bytes::from(part.data),
            };
            bytes += part.len() as u64;
            if let Err(failure) = wanted.takes(bytes) {
                return Some((Err(failure), None));
            }
            if part.is_empty() {
                continue;
            }
            let before = std::mem::replace(&mut last, part);
            if !before.is_empty() {
                return Some((Ok(before), Some((parts, wanted, last, bytes))));
            }
        }
    })
    .boxed()
}

/// One of a client's stores.
struct Content {
    session: Arc<Session>,
    store: String,
}

impl Content {
    fn client(&self) -> Grpc<Connection> {
        Grpc::with_origin(self.session.connection.clone(), Connection::origin())
    }

    fn request<T>(&self, message: T) -> Outcome<Request<T>> {
        let mut request = Request::new(message);
        let store = MetadataValue::try_from(self.store.as_bytes());
        let store = store.map_err(|_| Failure::invalid(format!("store {:?} cannot be asked for", self.store)))?;
        request.metadata_mut().insert(api::STORE_ID, store);
        Ok(request)
    }

    async fn has(&self, digest: &Digest) -> Outcome<bool> {
        let asked = self.request(api::InfoRequest { digest: digest.to_string() })?;
        let answer = self.client().unary(asked, path(api::INFO), ProstCodec::default()).await;
        match answer.map(|answer: tonic::Response<api::InfoResponse>| answer.into_inner().info.is_some()) {
            Err(status) if status.code() == Code::NotFound => Ok(false),
            answer => answer.map_err(|status| refused(&status)),
        }
    }
}

/// Workers reach a client's content only by what their builds were given.
fn must_be_sync(user: &str) -> Outcome<()> {
    if user == "sync" {
        return Ok(());
    }
    tracing::warn!(user, "content of a client was asked for");
    Err(Failure::new(ErrorKind::Denied, format!("content of clients is not {user}'s to ask for")))
}

fn path(method: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(method)
}

fn digest_of(text: &str) -> Outcome<Digest> {
    text.parse().map_err(|_| Failure::invalid(format!("{text:?} is no digest")))
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sent(parts: &[&str], max_bytes: u64, exact: bool) -> Result<String, String> {
        let wanted = Wanted { digest: Digest::of(b""), max_bytes, exact };
        let parts: Vec<_> =
            parts.iter().map(|part| Ok(api::ReadResponse { offset: 0, data: part.as_bytes().to_vec() })).collect();
        let bytes: Vec<Bytes> =
            held_to(futures::stream::iter(parts), wanted).try_collect().await.map_err(|failure| failure.message)?;
        Ok(String::from_utf8(bytes.concat()).expect("text"))
    }

    #[tokio::test]
    async fn a_clients_blob_is_held_to_its_size() {
        let digest = Digest::of(b"");
        for (parts, max_bytes, exact, wanted) in [
            (&["ab", "", "c"][..], 3, true, Ok("abc".to_owned())),
            (&["ab"], 3, false, Ok("ab".to_owned())),
            (&[], 0, true, Ok(String::new())),
            (&["ab", "c", "d"], 3, true, Err(format!("the client has more than 3 bytes of {digest}"))),
            (&["a"], 0, true, Err(format!("the client has more than 0 bytes of {digest}"))),
            (&["abcd"], 3, false, Err(format!("the client has more than 3 bytes of {digest}"))),
            (&["ab"], 3, true, Err(format!("the client has 2 of the 3 bytes of {digest}"))),
        ] {
            assert_eq!(sent(parts, max_bytes, exact).await, wanted, "{parts:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_without_an_end_ends_at_the_first_byte_too_many() {
        let part = || Ok(api::ReadResponse { offset: 0, data: vec![0; 1000] });
        let endless = futures::stream::repeat_with(part);
        let wanted = Wanted { digest: Digest::of(b""), max_bytes: 5500, exact: true };
        let mut sent = held_to(endless, wanted);
        let mut bytes = 0;
        let failure = loop {
            match sent.next().await.expect("an error comes first") {
                Ok(part) => bytes += part.len(),
                Err(failure) => break failure,
            }
        };
        assert_eq!((bytes, failure.kind), (4000, ErrorKind::Corrupt), "the last part is held back");
        assert!(sent.next().await.is_none());
    }
}
