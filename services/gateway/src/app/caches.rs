//! Caches of builds in registries, for the workers that run them.

use bus::calls;
use model::ImageRef;
use prost::Message as _;

use super::{App, Failure, Outcome};

const CACHE_CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";

impl App {
    /// What a cache says of itself, or layers of it: of one that the build was asked to use.
    ///
    /// # Errors
    /// `Conflict` when the build has another holder; `NotFound` for a cache that is not there.
    pub async fn import_cache(&self, request: proto::CacheImport) -> Outcome<proto::CacheFetchReply> {
        let build = self.held(&request.build_id, request.attempt).await?;
        let options = proto::BuildOptions::decode(build.options.as_slice()).unwrap_or_default();
        let name = name_of(options.cache_imports.get(request.index as usize))?;
        let digest = name.digest().map(ToString::to_string).unwrap_or_default();
        let fetch = proto::CacheFetch {
            name: name.full_name(),
            tag: name.tag().unwrap_or_default().to_owned(),
            digest,
            auth: self.credentials_of(&request.build_id, name.domain()).await?,
            lease: request.lease,
            diff_ids: request.diff_ids,
        };
        self.ask_sync::<calls::SyncCache>(&fetch, None).await
    }

    /// Pushes a cache that a build made; its config is in the layer store.
    pub(super) async fn export_cache(&self, request: proto::BuildExport) -> Outcome<proto::BuildExportReply> {
        let build = self.held(&request.build_id, request.attempt).await?;
        let options = proto::BuildOptions::decode(build.options.as_slice()).unwrap_or_default();
        let name = name_of(options.cache_exports.get(request.index as usize))?;
        let image = request.images.first().and_then(|built| built.image.clone()).unwrap_or_default();
        let config = Some(proto::Descriptor { media_type: CACHE_CONFIG.to_owned(), digest: image.id.clone(), size: 0 });
        let saved = proto::SavedImage { id: image.id, config, layers: image.layers, tags: Vec::new() };
        let platforms = vec![proto::PlatformImage { image: Some(saved), ..Default::default() }];
        let parcel = super::push::Parcel { platforms, form: request.form };
        let auth = self.credentials_of(&request.build_id, name.domain()).await?;
        self.send(&name, parcel, auth, (&request.lease, None)).await?;
        Ok(proto::BuildExportReply::default())
    }
}

fn name_of(option: Option<&proto::CacheOption>) -> Outcome<ImageRef> {
    let name = option.and_then(|option| option.attributes.get("ref"));
    let name = name.ok_or_else(|| Failure::invalid("a cache without a name"))?;
    Ok(name.parse::<ImageRef>()?.or_latest())
}
