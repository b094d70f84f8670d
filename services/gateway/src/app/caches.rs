//! Caches of builds in registries, and in layouts of clients, for the workers that run them.

use std::collections::HashMap;

use bus::calls;
use model::ImageRef;
use serde_json::json;

use super::layouts::content_of;
use super::push::Parcel;
use super::{App, Failure, Outcome};

const CACHE_CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";
/// Where clients are told what belongs into the index of their layout.
const MANIFEST: &str = "cache.manifest";

impl App {
    /// What a cache says of itself, or layers of it: of one that the build was asked to use.
    ///
    /// # Errors
    /// `Conflict` when the build has another holder; `NotFound` for a cache that is not there.
    pub async fn import_cache(&self, user: &str, request: proto::CacheImport) -> Outcome<proto::CacheFetchReply> {
        let build = self.held_by(user, &request.build_id, request.attempt).await?;
        let options = self.options_of(&build).await?;
        let option = options.cache_imports.get(request.index as usize);
        let (lease, diff_ids) = (request.lease, request.diff_ids);
        let fetch = if let Some(place) = place_of(option, "src") {
            let digest = attribute(option, "digest").unwrap_or_default().to_owned();
            if digest.is_empty() {
                return Err(Failure::invalid("local cache importer requires explicit digest"));
            }
            let content = Some(content_of(&options, &place)?);
            proto::CacheFetch { digest, lease, diff_ids, content, ..proto::CacheFetch::default() }
        } else {
            let name = name_of(option)?;
            proto::CacheFetch {
                name: name.full_name(),
                tag: name.tag().unwrap_or_default().to_owned(),
                digest: name.digest().map(ToString::to_string).unwrap_or_default(),
                auth: self.credentials_of(&request.build_id, name.domain()).await?,
                lease,
                diff_ids,
                content: None,
            }
        };
        self.ask_sync::<calls::SyncCache>(&fetch, None).await
    }

    /// Hands out a cache that a build made; its config is in the layer store.
    pub(super) async fn export_cache(
        &self,
        build: &metadata::Build,
        request: proto::BuildExport,
    ) -> Outcome<proto::BuildExportReply> {
        let options = self.options_of(build).await?;
        let option = options.cache_exports.get(request.index as usize);
        let image = request.images.first().and_then(|built| built.image.clone()).unwrap_or_default();
        let config = Some(proto::Descriptor { media_type: CACHE_CONFIG.to_owned(), digest: image.id.clone(), size: 0 });
        let saved = proto::SavedImage { id: image.id, config, layers: image.layers, tags: Vec::new() };
        // A cache is of no platform; an archive's entry wants one.
        let platform = model::Platform::host().to_string();
        let platforms = vec![proto::PlatformImage { platform, image: Some(saved), ..Default::default() }];
        let parcel = Parcel { platforms, form: request.form };
        if let Some(place) = place_of(option, "dest") {
            let content = content_of(&options, &place)?;
            return self.give_cache(parcel, content, request.lease).await;
        }
        let name = name_of(option)?;
        let auth = self.credentials_of(&request.build_id, name.domain()).await?;
        self.send(&name, parcel, auth, (&request.lease, None)).await?;
        Ok(proto::BuildExportReply::default())
    }

    async fn give_cache(
        &self,
        parcel: Parcel,
        content: proto::ClientContent,
        lease: String,
    ) -> Outcome<proto::BuildExportReply> {
        let packed = self.packed_in(&parcel, &lease).await?;
        let Parcel { platforms, form } = parcel;
        let content = Some(content);
        let archive = proto::Archive { platforms, form, lease, packed, content, ..proto::Archive::default() };
        let reply = self.ask_sync::<calls::SyncArchive>(&archive, None).await?;
        self.record_packed(reply.packed).await?;
        let manifest = reply.image.unwrap_or_default();
        let descriptor =
            json!({"mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.size}).to_string();
        let response = HashMap::from([(MANIFEST.to_owned(), descriptor)]);
        Ok(proto::BuildExportReply { archive: None, response })
    }
}

fn attribute<'a>(option: Option<&'a proto::CacheOption>, name: &str) -> Option<&'a str> {
    option?.attributes.get(name).map(String::as_str)
}

/// What a client calls its store of a cache of type `local`; none for other types.
fn place_of(option: Option<&proto::CacheOption>, name: &str) -> Option<String> {
    let folder = option.filter(|option| option.r#type == "local")?.attributes.get(name);
    Some(format!("local:{}", folder.map(String::as_str).unwrap_or_default()))
}

fn name_of(option: Option<&proto::CacheOption>) -> Outcome<ImageRef> {
    let name = attribute(option, "ref").ok_or_else(|| Failure::invalid("a cache without a name"))?;
    Ok(name.parse::<ImageRef>()?.or_latest())
}
