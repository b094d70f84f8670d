use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::passwords::Passwords;
use super::refusal::Refusal;
use super::route::Route;

/// The registry as it is served to users: plain repositories only, nothing of Boxyard's own.
pub struct Public {
    /// Without them everybody may read and write.
    pub passwords: Option<Passwords>,
}

impl Public {
    /// # Errors
    /// `NAME_UNKNOWN` for what is Boxyard's own, `UNAUTHORIZED` without a right password where there are passwords.
    pub async fn admit(&self, headers: &HeaderMap, route: Option<&Route>) -> Result<(), Refusal> {
        if let Some(passwords) = &self.passwords
            && !passwords.check(headers).await
        {
            return Err(Refusal::unauthorized());
        }
        if route.is_some_and(Route::is_internal) { Err(Refusal::name_unknown()) } else { Ok(()) }
    }
}

/// A refusal as it goes out: one for want of a password says that a password is what is wanted.
pub fn refused(refusal: Refusal) -> Response {
    let mut response = refusal.into_response();
    if response.status() == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Basic realm=\"Boxyard\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}
