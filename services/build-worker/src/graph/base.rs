//! Images: what stages begin on, and what files come from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bus::{Target, calls};
use model::{ErrorKind, ImageRef, Platform};
use tokio::sync::{OnceCell, mpsc};

use super::Graph;
use super::named::{Brought, Layout};
use super::trace::Vertex;
use crate::failure::Failure;
use crate::patience::patiently;

/// Images that the build has asked for, each once for a platform.
#[derive(Default)]
pub struct Images {
    known: Mutex<HashMap<(String, String), Loading>>,
}

/// Asked for once; others wait for it.
type Loading = Arc<OnceCell<Arc<Image>>>;

impl Images {
    fn cell(&self, name: &str, platform: &Platform) -> Loading {
        let mut known = self.known.lock().expect("no holder panics");
        known.entry((name.to_owned(), platform.to_string())).or_default().clone()
    }
}

/// An image by name.
pub struct Image {
    /// "docker.io/library/busybox:latest"; of one that only the client names its context's name.
    pub name: String,
    pub image: proto::Image,
}

impl Graph {
    /// An image, pulled where it is missing; its layers are kept from now on.
    ///
    /// # Errors
    /// `User` for a name that is none, and an image that is not there.
    pub(super) async fn image(&self, reference: &str, platform: &Platform) -> Result<Arc<Image>, Failure> {
        let wrong = |error| Failure::user(format!("failed to parse stage name {reference:?}: {error}"));
        let name = reference.parse::<ImageRef>().map_err(wrong)?.or_latest().to_string();
        let cell = self.images.cell(&name, platform);
        cell.get_or_try_init(|| self.load(reference, name, platform)).await.cloned()
    }

    /// An image that the client knows: in an OCI layout, of which only the blobs come that the layer store lacks, or what
    /// an earlier build has made.
    ///
    /// # Errors
    /// `User` for content that is not there, or is no image.
    pub(super) async fn brought(&self, brought: &Brought, platform: &Platform) -> Result<Arc<Image>, Failure> {
        match brought {
            Brought::Layout(layout) => {
                let cell = self.images.cell(&layout.source, platform);
                cell.get_or_try_init(|| self.load_layout(layout, platform)).await.cloned()
            }
            Brought::Result(context) => self.made_earlier(context, platform).await.map(Arc::new),
        }
    }

    async fn made_earlier(&self, context: &proto::NamedContext, platform: &Platform) -> Result<Image, Failure> {
        let name = context.name.clone();
        let made = made_for(&context.results, platform);
        let image = made.ok_or_else(|| Failure::user(format!("{name}: nothing was built for platform {platform}")))?;
        match self.executor.layers.pin(&image.layers).await? {
            true => Ok(Image { name, image: image.clone() }),
            false => Err(Failure::user(format!("{name}: what was built is not kept any more"))),
        }
    }

    async fn load_layout(&self, layout: &Layout, platform: &Platform) -> Result<Arc<Image>, Failure> {
        // Who waited for another's load that failed does not tell of a second one.
        if self.executor.ends.cancel.is_cancelled() {
            return Err(Failure::Cancelled);
        }
        let Layout { context, source } = layout;
        let place = format!("{} layout {source} {platform}", self.executor.build_id);
        let mut vertex = Vertex::new(&self.trace, &place, format!("[context {context}] OCI load from client"));
        let request = proto::LayoutResolve {
            build_id: self.executor.build_id.clone(),
            attempt: self.executor.attempt,
            source: source.clone(),
            platform: platform.to_string(),
            lease: self.executor.layers.lease.clone(),
        };
        let load = async {
            let call = self.executor.client.ask_through::<calls::LayoutResolve>(&request);
            let image = tokio::select! {
                () = self.executor.ends.cancel.cancelled() => return Err(Failure::Cancelled),
                image = call => image,
            };
            let image = image.map_err(|error| match error.kind() {
                ErrorKind::Conflict | ErrorKind::Unavailable => error.into(),
                _ => Failure::user(format!("{context}: failed to load from client: {}", error.message())),
            })?;
            match self.executor.layers.pin(&image.layers).await? {
                true => Ok(image),
                false => Err(Failure::internal(format!("a layer of {context} is not in the layer store"))),
            }
        };
        let image = vertex.around(load).await?;
        Ok(Arc::new(Image { image, name: context.clone() }))
    }

    async fn load(&self, reference: &str, name: String, platform: &Platform) -> Result<Arc<Image>, Failure> {
        // As above.
        if self.executor.ends.cancel.is_cancelled() {
            return Err(Failure::Cancelled);
        }
        let place = format!("{} image {name} {platform}", self.executor.build_id);
        let mut vertex = Vertex::new(&self.trace, &place, format!("[internal] load metadata for {name}"));
        vertex.start().await;
        let request = proto::ImageResolve {
            reference: reference.to_owned(),
            build_id: self.executor.build_id.clone(),
            attempt: self.executor.attempt,
            pull: self.options.pull,
            platform: platform.to_string(),
            local: false,
        };
        // Whoever leaves while an image is pulled leaves the pull too.
        let loaded = tokio::select! {
            () = self.executor.ends.cancel.cancelled() => Err(Failure::Cancelled),
            loaded = self.resolve(&vertex, &request, &name) => loaded,
        };
        vertex.complete(loaded.as_ref().err()).await;
        Ok(Arc::new(Image { image: loaded?, name }))
    }

    async fn resolve(
        &self,
        vertex: &Vertex,
        request: &proto::ImageResolve,
        name: &str,
    ) -> Result<proto::Image, Failure> {
        let (progress, mut lines) = mpsc::channel::<proto::Progress>(64);
        let call = async {
            let asked = || {
                let bus = &self.executor.worker.bus;
                bus.call_while_wanted::<calls::ImageResolve>(&Target::Gateway, request, Some(progress.clone()))
            };
            let image = patiently(asked).await;
            // Else there would be lines to wait for.
            drop(progress);
            image
        };
        let forward = async {
            while let Some(line) = lines.recv().await {
                if let Some(status) = pull_status(&line.json) {
                    vertex.progress(status).await;
                }
            }
        };
        let (image, ()) = tokio::join!(call, forward);
        let image = image.map_err(|error| match error.kind() {
            ErrorKind::Conflict | ErrorKind::Cancelled => error.into(),
            // No registry's word.
            _ if error.is_lost() => error.into(),
            _ => {
                let written = &request.reference;
                Failure::user(format!("{written}: failed to resolve source metadata for {name}: {}", error.message()))
            }
        })?;
        if !self.executor.layers.pin(&image.layers).await? {
            return Err(Failure::internal(format!("a layer of image {name} is not in the layer store")));
        }
        Ok(image)
    }
}

/// What was made for a platform; what was made for one only is for all.
fn made_for<'a>(results: &'a [proto::BuiltImage], platform: &Platform) -> Option<&'a proto::Image> {
    let is_for = |made: &&proto::BuiltImage| made.platform.parse::<Platform>().is_ok_and(|its| its == *platform);
    match results {
        [only] => only.image.as_ref(),
        many => many.iter().find(is_for).and_then(|made| made.image.as_ref()),
    }
}

/// A line of a pull, as a layer's progress.
fn pull_status(json: &str) -> Option<proto::BuildStatus> {
    let line: serde_json::Value = serde_json::from_str(json).ok()?;
    let id = line.get("id")?.as_str()?;
    let number = |name: &str| line.pointer(name).and_then(serde_json::Value::as_i64).unwrap_or_default();
    let now = crate::layers::now_ns();
    let done =
        line.get("status").and_then(serde_json::Value::as_str).is_some_and(|status| status.ends_with("complete"));
    Some(proto::BuildStatus {
        id: id.to_owned(),
        name: id.to_owned(),
        current: number("/progressDetail/current"),
        total: number("/progressDetail/total"),
        timestamp_ns: now,
        started_ns: now,
        completed_ns: if done { now } else { 0 },
        ..Default::default()
    })
}
