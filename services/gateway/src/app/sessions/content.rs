//! Blobs of OCI layouts on a client's machine, by containerd's content API: caches of type `local`, and images of
//! `oci-layout://` contexts. What the layer store has, or the client, is not sent.

use contexts::content as api;
use futures::TryStreamExt as _;
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
use crate::app::{App, Failure, Outcome};

/// Of one message, in bytes.
const CHUNK_BYTES: usize = 256 << 10;
/// Messages that wait for the client.
const MESSAGES: usize = 8;

impl App {
    /// Brings a blob of a client into the layer store, under the lease.
    ///
    /// # Errors
    /// `NotFound` where the client has none, `Corrupt` where its bytes are others.
    pub async fn get_content(&self, request: proto::ContentGet) -> Outcome<proto::Empty> {
        let digest = digest_of(&request.digest)?;
        if self.store.has(&digest, Some(&request.lease)).await?.is_some() {
            return Ok(proto::Empty {});
        }
        let session = self.content_of(request.content, api::READ).await?;
        let asked = api::ReadRequest { digest: digest.to_string(), ..Default::default() };
        let mut client = session.client().await?;
        let read = client.server_streaming(session.request(asked)?, path(api::READ), ProstCodec::default());
        let parts = read.await.map_err(|status| refused(&status))?.into_inner();
        let bytes = parts.map_ok(|part: api::ReadResponse| bytes::Bytes::from(part.data));
        let (stored, _) = self.store.upload(distribution::Body::wrap_stream(bytes), Some(&request.lease)).await?;
        if stored != digest {
            let text = format!("the client has other bytes than those of {digest}");
            return Err(Failure::new(ErrorKind::Corrupt, text));
        }
        Ok(proto::Empty {})
    }

    /// Sends a blob of the layer store to a client.
    pub async fn put_content(&self, request: proto::ContentPut) -> Outcome<proto::Empty> {
        let digest = digest_of(&request.digest)?;
        let session = self.content_of(request.content, api::WRITE).await?;
        if session.has(&digest).await? {
            return Ok(proto::Empty {});
        }
        let (to_client, messages) = mpsc::channel(MESSAGES);
        let mut client = session.client().await?;
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
            Err(Failure::new(ErrorKind::Unavailable, "the client did not keep what it was sent"))
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

/// One of a client's stores.
struct Content {
    session: std::sync::Arc<Session>,
    store: String,
}

impl Content {
    async fn client(&self) -> Outcome<Grpc<Connection>> {
        let mut client = Grpc::with_origin(self.session.connection.clone(), Connection::origin());
        let gone = |error| Failure::new(ErrorKind::Unavailable, format!("the client has gone: {error}"));
        client.ready().await.map_err(gone)?;
        Ok(client)
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
        let answer = self.client().await?.unary(asked, path(api::INFO), ProstCodec::default()).await;
        match answer.map(|answer: tonic::Response<api::InfoResponse>| answer.into_inner().info.is_some()) {
            Err(status) if status.code() == Code::NotFound => Ok(false),
            answer => answer.map_err(|status| refused(&status)),
        }
    }
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
