//! Caches of builds in registries and in layouts of clients: first what a cache says of itself, then single layers of it.

use bus::ProgressSender;
use distribution::registry::{Access, Fetched};
use futures::{FutureExt as _, TryStreamExt as _};
use model::DiffId;
use oci::{ImageConfig, Index, media_type};
use serde::Deserialize;

use super::client::Client;
use super::platform::Wanted;
use super::pull::{MAX_CONFIG_BYTES, Piece, Pull};
use super::source::Source;
use super::{Lines, Remote, credentials, named, reference, shown, words};
use crate::error::Error;

/// The config of a cache that is no image.
const CACHE_CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";
/// Its keys are made in another way, so none of ours is among them.
const OF_OTHERS: &str = "it is the cache of another builder and is not used";

/// Brings the config of a cache's manifest into the layer store, or those of its layers that are asked for.
///
/// # Errors
/// `NotFound` where there is no such manifest; `Corrupt` for one that is neither a cache nor an image.
pub async fn fetch(
    remote: &Remote,
    request: proto::CacheFetch,
    progress: ProgressSender,
) -> Result<proto::CacheFetchReply, Error> {
    let reference = reference(&request.tag, &request.digest)?;
    let pull = Pull {
        remote: remote.clone(),
        name: None,
        reference: reference.clone(),
        wanted: Wanted::parse("")?,
        lease: request.lease,
        lines: Lines { to: progress },
    };
    let wanted = request.diff_ids;
    if let Some(content) = request.content {
        let client = Client::new(remote.clone(), content);
        return pull.cache(&Source::Client(&client, &pull.lease), &wanted).await;
    }
    let name = named(&request.name)?;
    let shown = shown(&name, &reference)?;
    let pull = Pull { name: Some(name.clone()), ..pull };
    let credentials = credentials(request.auth);
    let work = |repository| {
        let (pull, wanted) = (&pull, &wanted);
        async move { pull.cache(&Source::Registry(&repository), wanted).await }.boxed()
    };
    remote.at(&name, credentials, Access::Pull, work).await.map_err(|error| words::of_pull(error, &shown))
}

impl Pull {
    async fn cache(&self, source: &Source<'_>, wanted: &[String]) -> Result<proto::CacheFetchReply, Error> {
        let first = source.manifest(&self.reference).await?;
        if is_of_others(&first) {
            return Err(Error::Archive(OF_OTHERS.to_owned()));
        }
        let manifest = self.one_image(source, first).await?;
        let config = &manifest.config;
        let bytes = source.blob_bytes(config, MAX_CONFIG_BYTES).await?;
        if wanted.is_empty() {
            self.remote.store.put_bytes(&bytes, Some(&self.lease)).await?;
            let config = proto::Descriptor {
                media_type: config.media_type.clone(),
                digest: config.digest.to_string(),
                size: config.size,
            };
            return Ok(proto::CacheFetchReply { config: Some(config), layers: Vec::new() });
        }
        let diff_ids = diff_ids(&config.media_type, &bytes)?;
        let mut pieces = Vec::new();
        for id in wanted {
            let at = diff_ids.iter().position(|diff_id| diff_id.to_string() == *id);
            let blob = at.and_then(|at| manifest.layers.get(at)).filter(|blob| media_type::is_layer(&blob.media_type));
            let blob = blob.ok_or_else(|| Error::Archive(format!("layer {id} is not in the cache")))?;
            pieces.push(Piece { blob: blob.clone(), diff_id: id.parse().map_err(|_| Error::Task)? });
        }
        let fetching: futures::stream::FuturesOrdered<_> =
            pieces.iter().map(|piece| self.fetch(source, piece).boxed()).collect();
        let layers = fetching.map_ok(|(_, fetched)| fetched.layer).try_collect().await?;
        Ok(proto::CacheFetchReply { config: None, layers })
    }
}

/// BuildKit puts a cache's layers and its config into an index, as if they were manifests.
fn is_of_others(fetched: &Fetched) -> bool {
    let Ok(index) = Index::parse(&fetched.bytes) else { return false };
    media_type::is_index(&fetched.media_type) && index.manifests.iter().any(|entry| entry.media_type == CACHE_CONFIG)
}

/// The diff ids of a manifest's layers, as its config says them.
fn diff_ids(config_type: &str, config: &[u8]) -> Result<Vec<DiffId>, Error> {
    #[derive(Deserialize)]
    struct Page {
        layers: Vec<DiffId>,
    }
    if media_type::is_image_config(config_type) {
        return Ok(ImageConfig::parse(config)?.rootfs.diff_ids);
    }
    if config_type != CACHE_CONFIG {
        return Err(Error::Archive(format!("unsupported cache config type {config_type}")));
    }
    let page: Page =
        serde_json::from_slice(config).map_err(|error| Error::Archive(format!("cache config: {error}")))?;
    Ok(page.layers)
}
