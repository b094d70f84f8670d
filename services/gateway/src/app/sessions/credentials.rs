use bollard_buildkit_proto::moby::filesync::v1::CredentialsRequest;
use bollard_buildkit_proto::moby::filesync::v1::auth_client::AuthClient;
use model::ErrorKind;

use super::connection::Connection;
use super::refused;
use crate::app::{App, Outcome};

const HUB: &str = "docker.io";
/// What clients know Docker's registry as.
const HUB_REGISTRY: &str = "registry-1.docker.io";

impl App {
    /// What the client of a session shows a registry; nobody's where it has nothing or serves no credentials.
    pub async fn session_credentials(&self, session: &str, domain: &str) -> Outcome<Option<proto::RegistryAuth>> {
        let session = self.session(session).await?;
        let host = if domain == HUB { HUB_REGISTRY } else { domain }.to_owned();
        let mut client = AuthClient::with_origin(session.connection.clone(), Connection::origin());
        let answer = match client.credentials(CredentialsRequest { host }).await.map_err(|status| refused(&status)) {
            Ok(answer) => answer.into_inner(),
            Err(failure) if matches!(failure.kind, ErrorKind::NotFound | ErrorKind::Unimplemented) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let (username, secret) = (answer.username, answer.secret);
        Ok(match (username.is_empty(), secret.is_empty()) {
            (true, true) => None,
            // A secret without a name is a token that stands for a login.
            (true, false) => Some(proto::RegistryAuth { identity_token: secret, ..Default::default() }),
            _ => Some(proto::RegistryAuth { username, password: secret, ..Default::default() }),
        })
    }
}
