use bollard_buildkit_proto::moby::buildkit::secrets::v1::GetSecretRequest;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_client::SecretsClient;
use model::ErrorKind;

use super::connection::Connection;
use super::refused;
use crate::app::{App, Failure, Outcome};

/// BuildKit's own limit of a secret.
const MAX_BYTES: usize = 500 << 10;

impl App {
    /// A secret of a build's client. It goes to the worker that asked, and is kept nowhere.
    pub async fn get_secret(&self, user: &str, request: proto::SecretGet) -> Outcome<proto::SecretGetReply> {
        let (session, _) = self.session_of(user, &request.build_id, request.attempt).await?;
        let mut client = SecretsClient::with_origin(session.connection.clone(), Connection::origin());
        let asked = GetSecretRequest { id: request.id.clone(), ..GetSecretRequest::default() };
        let value = match client.get_secret(asked).await.map_err(|status| refused(&status)) {
            Ok(answer) => answer.into_inner().data,
            Err(failure) if matches!(failure.kind, ErrorKind::NotFound | ErrorKind::Unimplemented) => {
                return Ok(proto::SecretGetReply::default());
            }
            Err(failure) => return Err(failure),
        };
        if value.len() > MAX_BYTES {
            return Err(Failure::invalid(format!(
                "invalid secret {} of size {}: limit is {MAX_BYTES}",
                request.id,
                value.len()
            )));
        }
        Ok(proto::SecretGetReply { found: true, value })
    }
}
