//! What is done with other registries: [`pull`] and [`push`] of one image, and the small [`questions`]; and the [`archive`]
//! of an image that is packed as for a registry.
//!
//! Nothing is kept beyond a call but [`Flights`], so that two pulls of one layer fetch it once and two pushes pack it once.

pub mod archive;
pub mod cache;
mod client;
mod download;
mod flights;
mod form;
mod manifest;
mod pack;
mod packed;
mod platform;
pub mod pull;
pub mod push;
pub mod questions;
mod source;
mod words;

use std::sync::Arc;

use bus::Bus;
use distribution::Store;
use distribution::registry::{Access, Credentials, Reference, Registries, Repository};
use futures::future::BoxFuture;
use model::ImageRef;
use tokio::sync::Semaphore;

use crate::error::Error;
use crate::lines::Lines;
use flights::Flights;

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
        work: impl Fn(Repository) -> BoxFuture<'a, Result<T, Error>> + Send + Sync,
    ) -> Result<T, Error> {
        let connect = |endpoint| self.registries.connect(endpoint, name.path(), credentials.clone(), access);
        let at = |endpoint| {
            let connected = connect(endpoint);
            let work = &work;
            async move { work(connected.await?).await }
        };
        self.registries.at_first(name.domain(), access == Access::Pull, at).await
    }
}

fn credentials(auth: Option<proto::RegistryAuth>) -> Credentials {
    let proto::RegistryAuth { username, password, identity_token, registry_token } = auth.unwrap_or_default();
    Credentials { username, password, identity_token, registry_token }
}

/// What is meant by a tag, or by a digest where there is one.
fn reference(tag: &str, digest: &str) -> Result<Reference, Error> {
    match digest {
        "" => Ok(Reference::Tag(tag.to_owned())),
        digest => Ok(Reference::Digest(digest.parse().map_err(|error| Error::Archive(format!("{digest}: {error}")))?)),
    }
}

/// The whole name, for errors.
fn shown(name: &ImageRef, reference: &Reference) -> Result<ImageRef, Error> {
    match reference {
        Reference::Tag(tag) => name.clone().with_tag(tag).map_err(|error| Error::Archive(error.to_string())),
        Reference::Digest(digest) => Ok(name.clone().with_digest(digest.clone())),
    }
}

fn named(name: &str) -> Result<ImageRef, Error> {
    name.parse().map_err(|error| Error::Archive(format!("{name:?}: {error}")))
}
