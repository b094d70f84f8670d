//! The client of registries against registries that break off, lie, refuse and never end, and against small servers that
//! ask for logins as the large providers document it.

mod logins;
mod pulls;
mod pushes;

use distribution::registry::{Access, Credentials, Error, Registries, Repository, Settings};

/// The repository `app` of a registry on loopback, reached as any other: https is tried first.
async fn repository(host: &str, access: Access, credentials: Credentials) -> Result<Repository, Error> {
    let registries = Registries::new(Settings::default());
    registries.at_first(host, true, |endpoint| registries.connect(endpoint, "app", credentials.clone(), access)).await
}

async fn pulling(host: &str) -> Repository {
    repository(host, Access::Pull, Credentials::default()).await.expect("a registry answers")
}

fn user(username: &str, password: &str) -> Credentials {
    Credentials { username: username.to_owned(), password: password.to_owned(), ..Credentials::default() }
}
