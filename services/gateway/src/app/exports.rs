//! Outputs of the graph builder's builds: images that are recorded, named and pushed, and archives of them.

use std::collections::{BTreeSet, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bus::calls;
use metadata::TagPlatform;
use model::{Digest, ImageRef, Platform};
use serde_json::json;
use tokio::sync::mpsc;

use super::images::{Image, no_such_image};
use super::layouts::content_of;
use super::push::{Parcel, saved};
use super::{App, Failure, Outcome};

/// Where clients are told what the index of their layout is to name.
const DESCRIPTOR: &str = "containerimage.descriptor";

/// What an export makes, with what its client is told.
type Response = HashMap<String, String>;

impl App {
    /// # Errors
    /// `Conflict` when the build has another holder; `Denied` for a name that the build was not asked for; what a
    /// registry says.
    pub async fn export_build(
        &self,
        request: proto::BuildExport,
        progress: &bus::ProgressSender,
    ) -> Outcome<proto::BuildExportReply> {
        let build = self.held_by(progress.caller().user(), &request.build_id, request.attempt).await?;
        if request.cache {
            return self.export_cache(&build, request).await;
        }
        let options = self.options_of(&build).await?;
        let named = names_of(&options, request.index)?;
        let wanted = request.image.iter().flat_map(|image| &image.names).chain(&request.names);
        if let Some(other) = wanted.into_iter().find(|name| !named.contains(*name)) {
            return Err(Failure::new(
                model::ErrorKind::Denied,
                format!("the build was not asked for the name {other}"),
            ));
        }
        match &request.image {
            Some(output) => {
                let (sender, mut steps) = mpsc::channel::<proto::Progress>(64);
                let forward = async {
                    while let Some(step) = steps.recv().await {
                        progress.send(&step).await;
                    }
                };
                let (response, ()) = tokio::join!(self.export_images(&request, output, sender), forward);
                Ok(proto::BuildExportReply { archive: None, response: response? })
            }
            None => {
                let store = options.outputs.get(request.index as usize).map(|output| output.store.as_str());
                let content = store.filter(|store| !store.is_empty()).map(|store| content_of(&options, store));
                self.export_archive(request, content.transpose()?).await
            }
        }
    }

    async fn export_images(
        &self,
        request: &proto::BuildExport,
        output: &proto::ImageOutput,
        progress: mpsc::Sender<proto::Progress>,
    ) -> Outcome<Response> {
        let names: Vec<ImageRef> =
            output.names.iter().map(|name| Ok(name.parse::<ImageRef>()?)).collect::<Outcome<_>>()?;
        let images: Vec<Image> = request.images.iter().map(unrecorded).collect::<Outcome<_>>()?;
        let own = own(&request.images)?;
        let mut response = HashMap::from([
            ("containerimage.config.digest".to_owned(), images[own].id.clone()),
            ("containerimage.digest".to_owned(), images[own].id.clone()),
        ]);
        if !output.names.is_empty() {
            response.insert("image.name".to_owned(), whole(&output.names)?);
        }
        if output.store {
            self.record_built(request, own, &names).await?;
        }
        if output.push {
            for name in &names {
                let digest = self.push_built(request, (output, name), progress.clone()).await?;
                if output.store {
                    self.point_pushed(&images[own], name, &digest).await?;
                }
                response.insert("containerimage.digest".to_owned(), digest);
            }
        }
        if output.store {
            self.call_by_digest(&images[own], output, &names).await?;
        }
        Ok(response)
    }

    /// Records the images and points the names to them.
    async fn record_built(&self, request: &proto::BuildExport, own: usize, names: &[ImageRef]) -> Outcome<()> {
        let mut platforms = Vec::new();
        for built in &request.images {
            let image = built.image.clone().unwrap_or_default();
            platforms.push(TagPlatform { platform: built.platform.clone(), image_id: image.id.clone() });
            self.record_for(Some(&request.build_id), image).await?;
        }
        let id = &platforms[own].image_id;
        let image = self.db.image(id).await?.ok_or_else(|| no_such_image(id))?;
        for name in names {
            let name = name.clone().or_latest().familiar();
            match platforms.len() {
                1 => self.point_tag(&image, &name).await?,
                _ => self.point_platforms(&image, &name, &platforms).await?,
            }
        }
        Ok(())
    }

    async fn push_built(
        &self,
        request: &proto::BuildExport,
        (output, name): (&proto::ImageOutput, &ImageRef),
        progress: mpsc::Sender<proto::Progress>,
    ) -> Outcome<String> {
        let name = match output.push_by_digest {
            true => name.clone().without_tag(),
            false => name.clone().or_latest(),
        };
        let auth = self.credentials_of(&request.build_id, name.domain()).await?;
        let parcel = self.parcel(request).await?;
        let reply = self.send(&name, parcel, auth, (&request.lease, Some(progress))).await?;
        if output.store {
            self.tell_registry(&name, "push").await;
        }
        Ok(reply.digest)
    }

    /// The images as a registry-sync takes them; their configs are in the layer store then.
    async fn parcel(&self, request: &proto::BuildExport) -> Outcome<Parcel> {
        let mut platforms = Vec::new();
        for built in &request.images {
            let image = unrecorded(built)?;
            self.store.put_bytes(&image.config, Some(&request.lease)).await?;
            platforms.push(proto::PlatformImage {
                platform: built.platform.clone(),
                image: Some(saved(&image)),
                annotations: built.annotations.clone(),
                descriptor_annotations: built.descriptor_annotations.clone(),
            });
        }
        Ok(Parcel { platforms, form: request.form.clone() })
    }

    async fn call_by_digest(&self, image: &Image, output: &proto::ImageOutput, names: &[ImageRef]) -> Outcome<()> {
        let id: Digest = image.id.parse().map_err(|_| Failure::invalid("an image without an id"))?;
        let dangling = match output.dangling_prefix.as_str() {
            prefix if !prefix.is_empty() && names.is_empty() => Some(prefix.parse::<ImageRef>()?),
            _ => None,
        };
        let canonical = names.iter().filter(|_| output.canonical_name);
        for name in canonical.chain(&dangling) {
            let name = name.clone().without_tag().with_digest(id.clone()).familiar();
            self.db.point_digest(&image.id, &name).await?;
        }
        Ok(())
    }

    /// One blob, or those of a layout in the client's `content`, which writes the layout's index itself.
    async fn export_archive(
        &self,
        request: proto::BuildExport,
        content: Option<proto::ClientContent>,
    ) -> Outcome<proto::BuildExportReply> {
        let parcel = self.parcel(&request).await?;
        let own = own(&request.images)?;
        let config = request.images[own].image.as_ref().map(|image| image.id.clone()).unwrap_or_default();
        let packed = self.packed_in(&parcel, &request.lease).await?;
        let archive = proto::Archive {
            platforms: parcel.platforms,
            form: parcel.form,
            names: request.names.clone(),
            with_docker: request.with_docker,
            lease: request.lease,
            packed,
            content,
        };
        let reply = self.ask_sync::<calls::SyncArchive>(&archive, None).await?;
        self.record_packed(reply.packed).await?;
        let mut response = HashMap::from([("containerimage.config.digest".to_owned(), config)]);
        if let Some(image) = reply.image {
            if archive.content.is_some() {
                response.insert(DESCRIPTOR.to_owned(), descriptor(&image));
            }
            response.insert("containerimage.digest".to_owned(), image.digest);
        }
        if !request.names.is_empty() {
            response.insert("image.name".to_owned(), whole(&request.names)?);
        }
        Ok(proto::BuildExportReply { archive: reply.blob, response })
    }
}

/// In base64, as clients read it.
fn descriptor(image: &proto::Descriptor) -> String {
    let proto::Descriptor { media_type, digest, size } = image;
    STANDARD.encode(json!({"mediaType": media_type, "digest": digest, "size": size}).to_string())
}

/// The names that a build was asked to give to this output.
fn names_of(options: &proto::BuildOptions, index: u32) -> Outcome<BTreeSet<String>> {
    let output = options.outputs.get(index as usize);
    let written = output.and_then(|output| output.attributes.get("name")).map(String::as_str).unwrap_or_default();
    let names = written.split(',').map(str::trim).filter(|name| !name.is_empty());
    let names = names.chain(options.tags.iter().map(String::as_str));
    names.map(|name| Ok(name.parse::<ImageRef>()?.or_latest().familiar())).collect()
}

/// Names as BuildKit tells them: with their registry and tag.
fn whole(names: &[String]) -> Outcome<String> {
    let whole = names.iter().map(|name| Ok(name.parse::<ImageRef>()?.or_latest().to_string()));
    Ok(whole.collect::<Outcome<Vec<_>>>()?.join(","))
}

fn unrecorded(built: &proto::BuiltImage) -> Outcome<Image> {
    let image = built.image.clone().ok_or_else(|| Failure::invalid("a built image without its content"))?;
    if Digest::of(&image.config).as_str() != image.id {
        return Err(Failure::invalid(format!("the config of {} has another digest", image.id)));
    }
    Ok(super::images::row_of(image))
}

/// Which of the images a name means where no platform is asked for: this machine's, else the first.
fn own(images: &[proto::BuiltImage]) -> Outcome<usize> {
    if images.is_empty() {
        return Err(Failure::invalid("an output without an image"));
    }
    let host = Platform::host();
    let is_own = |built: &proto::BuiltImage| built.platform.parse::<Platform>().is_ok_and(|its| host.takes(&its));
    Ok(images.iter().position(is_own).unwrap_or(0))
}
