use http::{Method, StatusCode};

use super::auth::Authorizer;
use super::repository::Call;
use super::{Credentials, Endpoint, Error, Registries, Repository};

impl Registries {
    /// Asks the registry of `host` whether it takes these credentials. The answer is an identity token to keep instead of
    /// the password, where the registry's token service gives one; else it is empty.
    ///
    /// # Errors
    /// `Unauthenticated` when it does not; `Transport` when nobody answers.
    pub async fn login(&self, host: &str, credentials: &Credentials) -> Result<String, Error> {
        self.at_first(host, false, |endpoint| self.login_at(endpoint, credentials.clone())).await
    }

    async fn login_at(&self, endpoint: Endpoint, credentials: Credentials) -> Result<String, Error> {
        let auth = Authorizer::new(self.clone(), endpoint.clone(), credentials, true);
        let registry = Repository::open(self, endpoint, "", Vec::new(), auth).await?;
        let call = Call::new(Method::GET, registry.base("v2/"));
        let status = registry.send(&call).await?.status();
        if status != StatusCode::OK {
            let words = format!("login attempt to {} failed with status: {status}", call.url);
            return Err(Error::Status { status, words, retry_after: None });
        }
        Ok(registry.auth().identity_token().await)
    }
}
