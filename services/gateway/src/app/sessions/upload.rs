//! A context that a client sends in one piece (`docker buildx build -`): BuildKit's `Upload/Pull`.

use bollard_buildkit_proto::moby::upload::v1::BytesMessage;
use bollard_buildkit_proto::moby::upload::v1::upload_client::UploadClient;
use futures::TryStreamExt as _;
use tonic::metadata::MetadataValue;

use super::connection::Connection;
use super::refused;
use crate::app::jobs::Brought;
use crate::app::{App, Failure, Outcome};

const METHOD: &str = "/moby.upload.v1.Upload/Pull";
/// Keys of the metadata that say which of the client's uploads is meant.
const PATH: &str = "urlpath";
const HOST: &str = "urlhost";
const OF_SESSION: &str = "buildkit-session";

impl App {
    /// Brings what the client of a session offers at `path` into the layer store.
    ///
    /// # Errors
    /// `Unavailable` without the session; what the client says.
    pub async fn pull_upload(&self, session: &str, path: &str) -> Outcome<Brought> {
        let session = self.session(session).await?;
        session.must_serve(METHOD)?;
        let lease = self.lease("build").await?;
        // The client offers one stream and sends on it; we have nothing to say.
        let mut request = tonic::Request::new(tokio_stream::empty::<BytesMessage>());
        let path: MetadataValue<_> = path.parse().map_err(|_| Failure::invalid(format!("invalid upload {path:?}")))?;
        request.metadata_mut().insert(PATH, path);
        request.metadata_mut().insert(HOST, MetadataValue::from_static(OF_SESSION));
        let mut client = UploadClient::with_origin(session.connection.clone(), Connection::origin());
        let sent = client.pull(request).await.map_err(|status| refused(&status))?.into_inner();
        let sent = sent.map_ok(|message| message.data).map_err(|status| std::io::Error::other(refused(&status)));
        let (digest, size) = self.store.upload(distribution::Body::wrap_stream(sent), Some(&lease.id)).await?;
        let context =
            proto::Descriptor { media_type: "application/x-tar".to_owned(), digest: digest.to_string(), size };
        Ok(Brought { context, lease })
    }
}
