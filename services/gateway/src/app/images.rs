use bus::{Target, calls};
use model::{Digest, ImageRef, Platform, is_hex_id};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::{App, Failure, Outcome};

pub const MAX_CONFIG_BYTES: u64 = 8 << 20;

pub use metadata::Image;

impl App {
    /// An image by id, beginning of an id, or name; `No such image` in Docker's words.
    pub async fn find_image(&self, wanted: &str) -> Outcome<Image> {
        match self.image_id(wanted).await? {
            Some(id) => self.db.image(&id).await?.ok_or_else(|| no_such_image(wanted)),
            None => Err(no_such_image(wanted)),
        }
    }

    /// Like [`Self::find_image`]; where the name means an image for each of several platforms, the one for this.
    pub async fn find_image_for(&self, wanted: &str, platform: Option<&Platform>) -> Outcome<Image> {
        let image = self.find_image(wanted).await?;
        let Some(platform) = platform else { return Ok(image) };
        let Ok(name) = wanted.parse::<ImageRef>() else { return Ok(image) };
        for row in self.db.platforms_of_tag(&name.or_latest().familiar()).await? {
            if row.platform.parse::<Platform>().is_ok_and(|its| platform.takes(&its)) {
                return self.db.image(&row.image_id).await?.ok_or_else(|| no_such_image(wanted));
            }
        }
        Ok(image)
    }

    /// The image of a name, which must be for this platform where one is given.
    ///
    /// # Errors
    /// `NotFound` also for an image that is there for another platform only.
    pub async fn find_image_of(&self, wanted: &str, platform: Option<&Platform>) -> Outcome<Image> {
        let image = self.find_image_for(wanted, platform).await?;
        match platform.and_then(|platform| super::platform::mismatch(platform, wanted, &image)) {
            Some(mismatch) => Err(Failure::not_found(mismatch)),
            None => Ok(image),
        }
    }

    /// Whether a name means an image for this platform and for no other.
    ///
    /// # Errors
    /// `NotFound` for another platform, `Unimplemented` where the name means images for several.
    pub async fn check_only_platform(&self, wanted: &str, platform: &Platform) -> Outcome<()> {
        self.find_image_of(wanted, Some(platform)).await?;
        let rows = match wanted.parse::<ImageRef>() {
            Ok(name) => self.db.platforms_of_tag(&name.or_latest().familiar()).await?,
            Err(_) => Vec::new(),
        };
        match rows.len() {
            0 | 1 => Ok(()),
            _ => Err(Failure::not_built("one of a name's several platforms cannot be removed alone")),
        }
    }

    async fn image_id(&self, wanted: &str) -> Outcome<Option<String>> {
        let hex = wanted.strip_prefix("sha256:").unwrap_or(wanted);
        if is_hex_id(hex) {
            return Ok(Some(format!("sha256:{hex}")));
        }
        if !wanted.starts_with("sha256:")
            && let Some(id) = self.named(&wanted.parse::<ImageRef>()?.or_latest()).await?
        {
            return Ok(Some(id));
        }
        if !hex.is_empty() && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            let found = self.db.image_ids_by_prefix(hex).await?;
            if let [one] = found.as_slice() {
                return Ok(Some(one.clone()));
            }
        }
        Ok(None)
    }

    /// The image that a name with a tag or a digest means; with both, the digest counts.
    pub async fn named(&self, name: &ImageRef) -> Outcome<Option<String>> {
        match name.digest() {
            Some(_) => Ok(self.db.digest(&name.clone().without_tag().familiar()).await?),
            None => Ok(self.db.tag(&name.familiar()).await?),
        }
    }

    /// Loads an archive that `body` brings over a ticket, with a platform only the images for it; says for each image how
    /// Docker names it.
    pub async fn load_images(
        &self,
        load: proto::Load,
        platform: Option<&Platform>,
        progress: mpsc::Sender<proto::Progress>,
    ) -> Outcome<Vec<String>> {
        let reply = self.bus.call_with_progress::<calls::SyncLoad>(&Target::Sync, &load, progress).await?;
        let mut lines = Vec::new();
        for image in reply.images {
            let digest: Digest = image.id.parse().map_err(|_| Failure::invalid("an image without an id"))?;
            let config = self.store.get_bytes(&digest, MAX_CONFIG_BYTES).await?;
            let made_for = super::platform::of_image(&serde_json::from_slice(&config).unwrap_or_default());
            if platform.is_some_and(|platform| !platform.takes(&made_for)) {
                continue;
            }
            self.record(proto::Image {
                id: image.id.clone(),
                config,
                layers: image.layers,
                parent_id: image.parent_id,
                tags: image.tags.clone(),
                digests: Vec::new(),
            })
            .await?;
            if let Some(recorded) = self.db.image(&image.id).await? {
                self.tell_image(&recorded, "load", &recorded.id);
            }
            if image.tags.is_empty() {
                lines.push(format!("Loaded image ID: {}\n", image.id));
            }
            lines.extend(image.tags.iter().map(|tag| format!("Loaded image: {tag}\n")));
        }
        Ok(lines)
    }

    /// Records an image and lets the nodes begin to unpack it.
    pub async fn record(&self, image: proto::Image) -> Outcome<()> {
        self.record_for(None, image).await
    }

    /// Like [`Self::record`]; a build that made the image holds it.
    pub async fn record_for(&self, build_id: Option<&str>, image: proto::Image) -> Outcome<()> {
        let layers = image.layers.clone();
        let row = row_of(image);
        match build_id {
            Some(build_id) => self.db.record_image_for(build_id, &row).await?,
            None => self.db.record_image(&row).await?,
        }
        self.prefetch(layers).await;
        Ok(())
    }

    pub async fn tag_image(&self, image: &str, repo: &str, tag: &str) -> Outcome<()> {
        let (source, image) = (image, self.find_image(image).await?);
        let mut name: ImageRef = repo.parse()?;
        if name.digest().is_some() {
            return Err(Failure::invalid("refusing to create a tag with a digest reference"));
        }
        if !tag.is_empty() {
            name = name.with_tag(tag).map_err(|_| Failure::invalid("invalid tag format"))?;
        }
        let name = name.or_latest().familiar();
        let platforms = match source.parse::<ImageRef>() {
            Ok(source) => self.db.platforms_of_tag(&source.or_latest().familiar()).await?,
            Err(_) => Vec::new(),
        };
        match platforms.as_slice() {
            [] => self.point_tag(&image, &name).await,
            platforms => self.point_platforms(&image, &name, platforms).await,
        }
    }

    /// Points a tag to an image for each of several platforms, of which `own` is the one that the tag itself means.
    ///
    /// # Errors
    /// `NotFound` when one of them has just gone.
    pub async fn point_platforms(&self, own: &Image, name: &str, platforms: &[metadata::TagPlatform]) -> Outcome<()> {
        if !self.db.tag_platforms(name, &own.id, platforms).await? {
            return Err(no_such_image(&own.id));
        }
        self.tell_image(own, "tag", name);
        Ok(())
    }

    /// # Errors
    /// `NotFound` when the image has just gone.
    pub async fn point_tag(&self, image: &Image, name: &str) -> Outcome<()> {
        if !self.db.tag_image(&image.id, name).await? {
            return Err(no_such_image(&image.id));
        }
        self.tell_image(image, "tag", name);
        Ok(())
    }

    /// A config that only the database holds goes to the store, since an archive is made of what lies there.
    pub async fn store_configs(&self, images: &[proto::SavedImage], lease: &str) -> Outcome<()> {
        for saved in images {
            let digest: Digest = saved.id.parse().map_err(|_| Failure::invalid("an image without an id"))?;
            if self.store.has(&digest, Some(lease)).await?.is_none()
                && let Some(image) = self.db.image(&saved.id).await?
            {
                self.store.put_bytes(&image.config, Some(lease)).await?;
            }
        }
        Ok(())
    }

    /// The images of GET /images/get: by id without tags, by a repository with all of its tags.
    ///
    /// # Errors
    /// `NotFound` also where one of them is not for the platform that is given.
    pub async fn images_to_save(
        &self,
        names: &[String],
        platform: Option<&Platform>,
    ) -> Outcome<Vec<proto::SavedImage>> {
        let mut saved: Vec<proto::SavedImage> = Vec::new();
        for name in names {
            let by_tag = name.parse::<ImageRef>().ok();
            let mut chosen: Vec<(Image, Vec<String>)> = Vec::new();
            match by_tag.filter(|_| !name.starts_with("sha256:")) {
                Some(reference) if !reference.has_tag_or_digest() => {
                    for image in self.db.images().await? {
                        let repository = reference.familiar_name();
                        let tags: Vec<String> =
                            image.tags.iter().filter(|tag| repository_of(tag) == repository).cloned().collect();
                        if !tags.is_empty() {
                            chosen.push((image, tags));
                        }
                    }
                    if chosen.is_empty() {
                        chosen.push((self.find_saved(name).await?, Vec::new()));
                    }
                }
                Some(reference) => {
                    let image = self.find_saved(name).await?;
                    // A digest is no tag.
                    let tags = reference.digest().is_none().then(|| reference.familiar());
                    chosen.push((image, tags.into_iter().collect()));
                }
                None => chosen.push((self.find_saved(name).await?, Vec::new())),
            }
            for (image, tags) in chosen {
                let image = match platform {
                    None => image,
                    Some(platform) => self.of_platform(image, &tags, platform).await?,
                };
                match saved.iter_mut().find(|other| other.id == image.id) {
                    Some(other) => other.tags.extend(tags),
                    None => saved.push(proto::SavedImage { tags, ..super::push::saved(&image) }),
                }
            }
        }
        Ok(saved)
    }

    /// What the first of these tags means for a platform, else the image itself.
    async fn of_platform(&self, image: Image, tags: &[String], platform: &Platform) -> Outcome<Image> {
        let image = match tags.first() {
            Some(tag) => self.find_image_for(tag, Some(platform)).await?,
            None => image,
        };
        match super::platform::mismatch(platform, &image.id, &image) {
            Some(_) => Err(Failure::not_found(format!("no suitable export target found for platform {platform}"))),
            None => Ok(image),
        }
    }

    /// Saving names what is missing as it was typed.
    async fn find_saved(&self, name: &str) -> Outcome<Image> {
        self.find_image(name).await.map_err(|failure| match failure.kind {
            model::ErrorKind::NotFound => Failure::not_found(format!("No such image: {name}")),
            _ => failure,
        })
    }

    /// A root file system as an image of one layer.
    pub async fn import_image(
        &self,
        import: proto::Import,
        name: Option<ImageRef>,
        message: &str,
        changes: &[String],
    ) -> Outcome<String> {
        let lease = import.lease.clone();
        let tag = name.as_ref().map(|name| name.clone().or_latest().familiar());
        let reply = self.bus.call::<calls::SyncImport>(&Target::Sync, &import).await?;
        let layer = reply.layer.ok_or_else(|| Failure::invalid("the import made no layer"))?;
        let now = engine_api::time(super::now_ns());
        let config = json!({
            "architecture": "amd64", "os": "linux", "created": now, "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
            "history": [{"created": now, "comment": message}]
        });
        let config = super::view::with_changes(config, changes)?;
        let id = self.store_image(&config, vec![layer], String::new(), name, &lease).await?;
        let shown = tag.unwrap_or_else(|| id.clone());
        self.tell("image", "import", &id, Map::from_iter([("name".to_owned(), shown.into())]));
        Ok(id)
    }

    /// Stores a new config and records the image that it makes.
    pub async fn store_image(
        &self,
        config: &Value,
        layers: Vec<proto::Layer>,
        parent_id: String,
        name: Option<ImageRef>,
        lease: &str,
    ) -> Outcome<String> {
        let config = serde_json::to_vec(config).map_err(|e| Failure::invalid(e.to_string()))?;
        let id = self.store.put_bytes(&config, Some(lease)).await?.to_string();
        let tags: Vec<String> = name.into_iter().map(|name| name.or_latest().familiar()).collect();
        self.record(proto::Image { id: id.clone(), config, layers, parent_id, tags, digests: Vec::new() }).await?;
        Ok(id)
    }
}

pub fn no_such_image(wanted: &str) -> Failure {
    let name = match wanted.parse::<ImageRef>() {
        Ok(reference) if !wanted.starts_with("sha256:") => reference.or_latest().familiar(),
        _ => wanted.to_owned(),
    };
    Failure::not_found(format!("No such image: {name}"))
}

/// `localhost:5000/x` of `localhost:5000/x:v1` and of `localhost:5000/x@sha256:...`.
pub fn repository_of(name: &str) -> &str {
    if let Some((repository, _)) = name.split_once('@') {
        return repository;
    }
    match name.rsplit_once(':') {
        Some((repository, rest)) if !rest.contains('/') => repository,
        _ => name,
    }
}

/// As it is recorded.
pub fn row_of(image: proto::Image) -> Image {
    let proto::Image { id, config, layers, parent_id, tags, digests } = image;
    let layers = layers.into_iter().map(layer_row).collect();
    Image { id, config, layers, parent_id, recorded_ms: 0, tags, digests, platform_of: Vec::new() }
}

pub fn layer_row(layer: proto::Layer) -> metadata::Layer {
    let blob = layer.blob.unwrap_or_default();
    metadata::Layer {
        diff_id: layer.diff_id,
        media_type: blob.media_type,
        digest: blob.digest,
        size: blob.size,
        content_bytes: layer.content_bytes,
    }
}

pub fn layer_message(layer: metadata::Layer) -> proto::Layer {
    proto::Layer {
        diff_id: layer.diff_id,
        blob: Some(proto::Descriptor { media_type: layer.media_type, digest: layer.digest, size: layer.size }),
        content_bytes: layer.content_bytes,
    }
}

pub fn message_of(image: Image) -> proto::Image {
    proto::Image {
        id: image.id,
        config: image.config,
        layers: image.layers.into_iter().map(layer_message).collect(),
        parent_id: image.parent_id,
        tags: image.tags,
        digests: image.digests,
    }
}

pub fn size_of(image: &Image) -> u64 {
    image.layers.iter().map(|layer| layer.content_bytes).sum()
}

pub fn config_of(image: &Image) -> Value {
    serde_json::from_slice(&image.config).unwrap_or_default()
}
