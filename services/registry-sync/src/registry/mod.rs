//! What is done with other registries: [`pull`] and [`push`] of one image, and the small [`questions`].
//!
//! Nothing is kept beyond a call but [`Flights`], so that two pulls of one layer fetch it once and two pushes pack it once.

mod download;
mod flights;
mod lines;
mod manifest;
mod pack;
mod platform;
pub mod pull;
pub mod push;
pub mod questions;
mod words;

use std::sync::Arc;

use bus::Bus;
use distribution::Store;
use distribution::registry::{Access, Credentials, Registries, Repository};
use futures::future::BoxFuture;
use model::ImageRef;
use tokio::sync::Semaphore;

use crate::error::Error;
use flights::Flights;
use lines::Lines;

/// Layers that are fetched at once, over all pulls; as many as dockerd fetches.
const DOWNLOADS: usize = 3;
/// Layers that are sent at once, over all pushes; as many as dockerd sends.
const UPLOADS: usize = 5;

/// What every call to a registry needs. Cheap to clone.
#[derive(Clone)]
pub struct Remote {
    pub registries: Registries,
    pub store: Store,
    pub bus: Bus,
    flights: Arc<Flights>,
    downloads: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
}

impl Remote {
    pub fn new(registries: Registries, store: Store, bus: Bus) -> Self {
        Self {
            registries,
            store,
            bus,
            flights: Arc::default(),
            downloads: Arc::new(Semaphore::new(DOWNLOADS)),
            uploads: Arc::new(Semaphore::new(UPLOADS)),
        }
    }

    /// Does `work` at the first of the registry's addresses that serves.
    async fn at<'a, T>(
        &self,
        name: &ImageRef,
        credentials: Credentials,
        access: Access,
        work: impl Fn(Repository) -> BoxFuture<'a, Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let mut attempts = self.registries.attempts(name.domain(), access == Access::Pull).await?;
        while let Some(endpoint) = attempts.next() {
            let outcome = match self.registries.connect(endpoint, name.path(), credentials.clone(), access).await {
                Ok(repository) => work(repository).await,
                Err(error) => Err(error.into()),
            };
            match outcome {
                Err(Error::Registry(error)) if attempts.may_go_on(&error) => {
                    tracing::info!(%error, registry = name.domain(), "the next address of the registry is tried");
                }
                outcome => return outcome,
            }
        }
        Err(Error::Remote {
            kind: model::ErrorKind::Internal,
            text: format!("no endpoints found for {}", name.domain()),
        })
    }
}

fn credentials(auth: Option<proto::RegistryAuth>) -> Credentials {
    let proto::RegistryAuth { username, password, identity_token, registry_token } = auth.unwrap_or_default();
    Credentials { username, password, identity_token, registry_token }
}

fn named(name: &str) -> Result<ImageRef, Error> {
    name.parse().map_err(|error| Error::Archive(format!("{name:?}: {error}")))
}
