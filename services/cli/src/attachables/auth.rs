//! Credentials for the registries that a build pulls from and pushes to.

use bollard_buildkit_proto::moby::filesync::v1::auth_server::Auth;
use bollard_buildkit_proto::moby::filesync::v1::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse, VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};
use tonic::{Request, Response, Status};

use crate::credentials::Keyring;

/// The host that BuildKit asks for where Docker Hub is meant.
const HUB_HOST: &str = "registry-1.docker.io";

/// The credentials of `boxyard login`.
pub struct Login;

#[tonic::async_trait]
impl Auth for Login {
    async fn credentials(&self, asked: Request<CredentialsRequest>) -> Result<Response<CredentialsResponse>, Status> {
        let host = asked.into_inner().host;
        let domain = if host == HUB_HOST { "docker.io".to_owned() } else { host };
        // A helper is a process that may ask a person.
        let found = tokio::task::spawn_blocking(move || Keyring::open_or_warn().of_host(&domain)).await;
        let found = found.map_err(|error| Status::internal(error.to_string()))?;
        let (username, secret) = match found.identity_token.is_empty() {
            true => (found.username, found.password),
            false => (String::new(), found.identity_token),
        };
        Ok(Response::new(CredentialsResponse { username, secret }))
    }

    async fn fetch_token(&self, _: Request<FetchTokenRequest>) -> Result<Response<FetchTokenResponse>, Status> {
        Err(Status::unimplemented("FetchToken"))
    }

    async fn get_token_authority(
        &self,
        _: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("GetTokenAuthority"))
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("VerifyTokenAuthority"))
    }
}
