//! Pushes: one image after the other, with what is known of how its layers are packed.

use std::sync::Arc;

use bus::calls;
use model::{ErrorKind, ImageRef, Platform};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::images::{Image, layer_message, no_such_image, repository_of};
use super::lines::{Held, Lines};
use super::{App, Failure, Outcome};

/// A client's hold on its push: it ends with the client.
pub type Pushing = Held<AbortOnDropHandle<()>>;

/// Ends the lines also where the push broke off without a word.
struct Ending(Arc<Lines>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end(Err(Failure::new(ErrorKind::Internal, "the push broke off")));
    }
}

impl App {
    /// Pushes the image of a tag; without a tag every image of the repository that has one. Of a tag that means images for
    /// several platforms, only the one for `platform`, where it is given.
    pub fn push(
        &self,
        reference: ImageRef,
        platform: Option<Platform>,
        auth: Option<proto::RegistryAuth>,
    ) -> Outcome<Pushing> {
        let app = self.me.upgrade().ok_or_else(|| Failure::new(ErrorKind::Unavailable, "the gateway ends"))?;
        let lines = Lines::new();
        let reader = lines.reader();
        let ending = Ending(lines);
        let task = tokio::spawn(async move {
            let outcome = app.push_all(&reference, platform.as_ref(), auth, &ending.0).await;
            ending.0.end(outcome);
        });
        Ok(Held::new(reader, AbortOnDropHandle::new(task)))
    }

    async fn push_all(
        &self,
        name: &ImageRef,
        platform: Option<&Platform>,
        auth: Option<proto::RegistryAuth>,
        lines: &Lines,
    ) -> Outcome<()> {
        lines.message("", &format!("The push refers to repository [{}]", name.full_name()));
        for (tag, mut image) in self.images_to_push(name).await? {
            if platform.is_some() {
                image = self.find_image_of(&name.clone().with_tag(&tag)?.familiar(), platform).await?;
            }
            self.push_one(&name.clone().with_tag(&tag)?, (image, platform.is_some()), auth.clone(), lines).await?;
        }
        self.tell_registry(name, "push").await;
        Ok(())
    }

    /// Tags with their images, in the order of the tags.
    async fn images_to_push(&self, name: &ImageRef) -> Outcome<Vec<(String, Image)>> {
        let failed = |text: String| Failure::new(ErrorKind::Internal, text);
        let repository = name.familiar_name();
        let mut tagged = Vec::new();
        let mut is_known = false;
        for image in self.db.images().await? {
            is_known |= image.digests.iter().any(|digest| digest.split('@').next() == Some(&repository));
            for tag in image.tags.iter().filter(|tag| repository_of(tag) == repository) {
                tagged.push((tag[repository.len() + 1..].to_owned(), image.clone()));
            }
        }
        tagged.sort_by(|one, other| one.0.cmp(&other.0));
        if tagged.is_empty() && !is_known {
            return Err(failed(format!("An image does not exist locally with the tag: {repository}")));
        }
        if name.digest().is_some() {
            return Err(failed("cannot push a digest reference".to_owned()));
        }
        if let Some(wanted) = name.tag() {
            tagged.retain(|(tag, _)| tag == wanted);
            if tagged.is_empty() {
                return Err(failed(format!("tag does not exist: {}", name.familiar())));
            }
        }
        if tagged.is_empty() {
            return Err(failed(format!("no tags to push for {repository}")));
        }
        Ok(tagged)
    }

    async fn push_one(
        &self,
        name: &ImageRef,
        (image, is_alone): (Image, bool),
        auth: Option<proto::RegistryAuth>,
        lines: &Lines,
    ) -> Outcome<()> {
        let lease = self.lease("push").await?;
        let tag = name.tag().unwrap_or_default().to_owned();
        let mut parcel = Parcel { form: None, platforms: Vec::new() };
        let rows = if is_alone { Vec::new() } else { self.db.platforms_of_tag(&name.familiar()).await? };
        for row in rows {
            let image = self.db.image(&row.image_id).await?.ok_or_else(|| no_such_image(&row.image_id))?;
            parcel.add(row.platform, saved(&image));
        }
        if parcel.platforms.is_empty() {
            parcel.add(String::new(), saved(&image));
        }
        let (progress, mut steps) = mpsc::channel::<proto::Progress>(64);
        let forward = async {
            while let Some(step) = steps.recv().await {
                lines.progress(&step);
            }
        };
        let sending = self.send(name, parcel, auth, (&lease.id, Some(progress)));
        let (reply, ()) = tokio::join!(sending, forward);
        let reply = reply?;
        self.point_pushed(&image, name, &reply.digest).await?;
        lines.message("", &format!("{tag}: digest: {} size: {}", reply.digest, reply.size));
        lines.aux(&json!({"Tag": tag, "Digest": reply.digest, "Size": reply.size}));
        Ok(())
    }

    /// Has a registry-sync send what is to be had under a name, whose tag may be missing; tells how far it is, and keeps
    /// what is new of the layers. Their blobs are held by the lease.
    pub async fn send(
        &self,
        name: &ImageRef,
        parcel: Parcel,
        auth: Option<proto::RegistryAuth>,
        (lease, progress): (&str, Option<mpsc::Sender<proto::Progress>>),
    ) -> Outcome<proto::PushReply> {
        let request = proto::Push {
            name: name.full_name(),
            tag: name.tag().unwrap_or_default().to_owned(),
            image: None,
            auth,
            lease: lease.to_owned(),
            packed: self.packed_in(&parcel, lease).await?,
            platforms: parcel.platforms,
            form: parcel.form,
        };
        let shown = self.begin_transfer("push", &request.name, &request.tag);
        let (told, mut steps) = mpsc::channel::<proto::Progress>(64);
        let forward = async {
            while let Some(step) = steps.recv().await {
                shown.step(&step);
                if let Some(progress) = &progress {
                    // Whoever no longer listens need not be told.
                    let _ = progress.send(step).await;
                }
            }
        };
        let (reply, ()) = tokio::join!(self.ask_sync::<calls::SyncPush>(&request, Some(told)), forward);
        // The one who shows the steps ends with them.
        drop(progress);
        let mut reply = reply?;
        self.record_packed(std::mem::take(&mut reply.packed)).await?;
        Ok(reply)
    }

    /// Makes sure that the layer store has the configs; says what is known of the layers.
    pub async fn packed_in(&self, parcel: &Parcel, lease: &str) -> Outcome<Vec<proto::PackedLayer>> {
        let images: Vec<proto::SavedImage> =
            parcel.platforms.iter().filter_map(|platform| platform.image.clone()).collect();
        self.store_configs(&images, lease).await?;
        let layers = images.iter().flat_map(|image| &image.layers).map(|layer| layer.diff_id.clone());
        let diff_ids: Vec<String> = layers.collect::<std::collections::BTreeSet<_>>().into_iter().collect();
        self.packed_of(&diff_ids).await
    }

    /// A registry shows the image under this digest from now on.
    pub async fn point_pushed(&self, image: &Image, name: &ImageRef, digest: &str) -> Outcome<()> {
        let digest: model::Digest = digest.parse().map_err(|_| Failure::invalid("a pushed image without a digest"))?;
        let by_digest = name.clone().without_tag().with_digest(digest).familiar();
        self.db.point_digest(&image.id, &by_digest).await?;
        Ok(())
    }
}

/// Images that are handed out under one name, and how they are written; by default as dockerd does.
pub struct Parcel {
    pub platforms: Vec<proto::PlatformImage>,
    pub form: Option<proto::ImageForm>,
}

impl Parcel {
    fn add(&mut self, platform: String, image: proto::SavedImage) {
        self.platforms.push(proto::PlatformImage { platform, image: Some(image), ..Default::default() });
    }
}

/// An image for a registry-sync.
pub fn saved(image: &Image) -> proto::SavedImage {
    proto::SavedImage {
        config: Some(proto::Descriptor {
            media_type: "application/vnd.oci.image.config.v1+json".to_owned(),
            digest: image.id.clone(),
            size: image.config.len() as u64,
        }),
        id: image.id.clone(),
        layers: image.layers.iter().cloned().map(layer_message).collect(),
        tags: Vec::new(),
    }
}
