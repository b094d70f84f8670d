//! What becomes of a build's images: recorded, named and pushed, put into an archive, or handed to the client as files.
//!
//! Entry point: [`Graph::export`]. The gateway records and a registry-sync packs ([`proto::BuildExport`]); what goes to
//! the client is a blob under the build's lease that the gateway of its session sends ([`proto::OutputSend`]).

mod annotations;
pub mod options;
mod root;
mod times;

use std::collections::HashMap;

use bus::{Target, calls};
use model::{Digest, ImageRef, Platform};
use oci::ImageConfig;

use super::Graph;
use super::state::time;
use super::trace::Vertex;
use crate::failure::Failure;
use crate::halt;
use crate::layers::{diff_id, now_ns};
use crate::patience::patiently;
use crate::squash::{self, Base};
use options::{Kind, Output, Written};

/// What was built is told in one message of the bus, which takes 1 MiB, with the exporters' answers beside it.
const RESULTS_MAX_BYTES: usize = 512 << 10;

/// What a platform's build has come to.
#[derive(Clone, Debug)]
pub struct Built {
    pub platform: Platform,
    /// The exact bytes of the image's configuration.
    pub config: Vec<u8>,
    /// Base layer first.
    pub layers: Vec<proto::Layer>,
    /// What it stands on.
    pub base: Option<Base>,
    /// `SOURCE_DATE_EPOCH`, in seconds.
    pub epoch: Option<i64>,
}

/// What clients are told of an output: "containerimage.digest" and others.
pub type Response = HashMap<String, String>;

/// How a build ended.
#[derive(Debug, Default)]
pub struct Finished {
    /// Empty where no image was asked for.
    pub image_id: String,
    pub response: Response,
    /// Where the client asked to be told.
    pub results: Vec<proto::BuiltImage>,
}

impl Built {
    fn base_layers(&self) -> usize {
        self.base.as_ref().map_or(0, |base| base.layers)
    }

    fn id(&self) -> String {
        Digest::of(&self.config).to_string()
    }

    fn image(&self) -> proto::Image {
        let (id, config, layers) = (self.id(), self.config.clone(), self.layers.clone());
        proto::Image { id, config, layers, ..proto::Image::default() }
    }

    /// The same image with other layers above those of its base.
    fn with_layers(&self, above: Vec<proto::Layer>) -> Result<Self, Failure> {
        let mut config = ImageConfig::parse(&self.config).map_err(Failure::caused)?;
        let mut layers = self.layers[..self.base_layers()].to_vec();
        layers.extend(above);
        config.rootfs.diff_ids = layers.iter().map(diff_id).collect::<Result<_, _>>()?;
        Ok(Self { config: config.to_bytes(), layers, ..self.clone() })
    }
}

impl Output {
    fn title(&self) -> &'static str {
        match &self.kind {
            Kind::Image { .. } => "exporting to image",
            Kind::Archive { with_docker: true, .. } => "exporting to docker image format",
            Kind::Archive { .. } => "exporting to oci image format",
            Kind::Root { is_tar: true, .. } => "exporting to client tarball",
            Kind::Root { .. } => "exporting to client directory",
            Kind::CacheOnly => "preserving the build's cache",
        }
    }
}

impl Graph {
    /// Waits until all layers are stored, then brings the images where they are wanted, in the order of the outputs.
    ///
    /// # Errors
    /// `User` in the words of BuildKit, of a registry, or of the client that takes an output.
    pub(super) async fn export(&self, outputs: &[Output], built: Vec<Built>) -> Result<Finished, Failure> {
        let mut finished = Finished::default();
        for (index, output) in outputs.iter().enumerate() {
            let place = format!("{} export {index}", self.executor.build_id);
            let mut vertex = Vertex::new(&self.trace, &place, output.title().to_owned());
            vertex.start().await;
            let exported = self.export_one(&vertex, (index, output), &built).await;
            vertex.complete(exported.as_ref().err()).await;
            let response = exported?;
            if let (Kind::Image { image, .. }, Some(id)) = (&output.kind, response.get("containerimage.config.digest"))
                && image.store
            {
                finished.image_id.clone_from(id);
            }
            finished.response.extend(response);
        }
        Ok(finished)
    }

    /// Keeps what was built beyond the build, for later builds of its client. Images with configs that no message can hold
    /// are not told: the build is done, and only who stands on it fails.
    pub(super) async fn results(&self, built: &[Built]) -> Result<Vec<proto::BuiltImage>, Failure> {
        let lease = &self.options.result_lease;
        if lease.is_empty() {
            return Ok(Vec::new());
        }
        let told = |one: &Built| {
            let (platform, image) = (one.platform.to_string(), Some(one.image()));
            proto::BuiltImage { platform, image, ..proto::BuiltImage::default() }
        };
        let results: Vec<_> = built.iter().map(told).collect();
        let bytes: usize = results.iter().map(prost::Message::encoded_len).sum();
        if bytes > RESULTS_MAX_BYTES {
            tracing::warn!(build_id = %self.executor.build_id, bytes, "what was built is too large to be handed on");
            return Ok(Vec::new());
        }
        for one in built {
            self.executor.layers.pin_for(lease, &one.layers).await?;
        }
        Ok(results)
    }

    /// The images with one layer on their base; all layers are stored first.
    pub(super) async fn squashed(&self, built: &[Built]) -> Result<Vec<Built>, Failure> {
        let place = format!("{} squash", self.executor.build_id);
        let mut vertex = Vertex::new(&self.trace, &place, "squashing layers".to_owned());
        let squash = async {
            halt::wanted(self.records.finish()).await?;
            let mut squashed = Vec::new();
            for one in built {
                squashed.push(self.squashed_one(one).await?);
            }
            Ok(squashed)
        };
        vertex.around(squash).await
    }

    async fn squashed_one(&self, built: &Built) -> Result<Built, Failure> {
        let folder = self.executor.worker.machine.step_folder(&self.executor.build_id);
        let base = built.base.as_ref();
        let layers = squash::layers(&self.executor.layers, &built.layers, base, folder).await?;
        let created = time(built.epoch.map_or_else(now_ns, |seconds| seconds.saturating_mul(1_000_000_000)));
        let config = squash::config(&built.id(), &built.config, &layers, (base, created))?;
        Ok(Built { config, layers, ..built.clone() })
    }

    async fn export_one(
        &self,
        vertex: &Vertex,
        (index, output): (usize, &Output),
        built: &[Built],
    ) -> Result<Response, Failure> {
        vertex.status("exporting layers", halt::wanted(self.records.finish())).await?;
        let mut built = built.to_vec();
        if output.rewrite_timestamp {
            for one in &mut built {
                *one = self.without_late_times(vertex, one).await?;
            }
        }
        let built = built.into_iter().map(|one| self.with_inline_cache(one)).collect::<Result<Vec<_>, _>>()?;
        match &output.kind {
            Kind::Image { image, written } => self.export_image(vertex, index, (image, written), &built).await,
            Kind::Archive { with_docker, names, written } => {
                let archive = proto::BuildExport {
                    with_docker: *with_docker,
                    names: names.clone(),
                    ..self.request(index, written, &built)
                };
                self.export_archive(vertex, archive).await
            }
            Kind::Root { is_tar, platform_split } => {
                let split = platform_split.unwrap_or(built.len() > 1);
                let what = if *is_tar { "sending tarball" } else { "copying files" };
                let sent = async {
                    let root = self.pack_roots(&built, split).await?;
                    self.send(index, root, Response::new()).await
                };
                vertex.status(what, sent).await?;
                Ok(Response::new())
            }
            Kind::CacheOnly => Ok(Response::new()),
        }
    }

    async fn export_image(
        &self,
        vertex: &Vertex,
        index: usize,
        (image, written): (&proto::ImageOutput, &Written),
        built: &[Built],
    ) -> Result<Response, Failure> {
        let request = proto::BuildExport { image: Some(image.clone()), ..self.request(index, written, built) };
        let what = match built {
            _ if image.push => "pushing layers".to_owned(),
            [one] => format!("writing image {}", one.id()),
            _ => "writing images of all platforms".to_owned(),
        };
        let reply = vertex.status(&what, self.ask(&request)).await?;
        for name in &image.names {
            let shown = name.parse::<ImageRef>().map_or_else(|_| name.clone(), |name| name.or_latest().to_string());
            let digest = reply.response.get("containerimage.digest").cloned().unwrap_or_default();
            if image.push {
                vertex.status(&format!("pushing manifest for {shown}@{digest}"), async { Ok(()) }).await?;
            }
            if image.store {
                vertex.status(&format!("naming to {shown}"), async { Ok(()) }).await?;
            }
        }
        Ok(reply.response)
    }

    async fn export_archive(&self, vertex: &Vertex, request: proto::BuildExport) -> Result<Response, Failure> {
        let takes_blobs =
            self.options.outputs.get(request.index as usize).is_some_and(|output| !output.store.is_empty());
        let asked = async {
            match takes_blobs {
                true => exported(self.executor.client.ask_through::<calls::BuildExport>(&request).await),
                false => self.ask(&request).await,
            }
        };
        let reply = vertex.status("packing layers", asked).await?;
        if let Some(digest) = reply.response.get("containerimage.digest") {
            vertex.status(&format!("exporting manifest {digest}"), async { Ok(()) }).await?;
        }
        if takes_blobs {
            return Ok(reply.response);
        }
        let archive = reply.archive.ok_or_else(|| Failure::internal("an archive that is not there"))?;
        let index = request.index as usize;
        vertex.status("sending tarball", self.send(index, archive, reply.response.clone())).await?;
        Ok(reply.response)
    }

    fn request(&self, index: usize, written: &Written, built: &[Built]) -> proto::BuildExport {
        let image = |built: &Built| proto::BuiltImage {
            platform: built.platform.to_string(),
            image: Some(built.image()),
            annotations: written.annotations.manifest(&built.platform).into_iter().collect(),
            descriptor_annotations: written.annotations.manifest_descriptor(&built.platform).into_iter().collect(),
        };
        proto::BuildExport {
            build_id: self.executor.build_id.clone(),
            attempt: self.executor.attempt,
            index: u32::try_from(index).unwrap_or(u32::MAX),
            images: built.iter().map(image).collect(),
            form: Some(written.form.clone()),
            lease: self.executor.layers.lease.clone(),
            ..proto::BuildExport::default()
        }
    }

    pub(super) async fn ask(&self, request: &proto::BuildExport) -> Result<proto::BuildExportReply, Failure> {
        let bus = &self.executor.worker.bus;
        let call = patiently(|| bus.call_while_wanted::<calls::BuildExport>(&Target::Gateway, request, None));
        exported(halt::wait(call).await?)
    }

    /// Sends a blob to the client; returns when the client has it.
    async fn send(&self, index: usize, blob: proto::Descriptor, metadata: Response) -> Result<(), Failure> {
        if !self.executor.client.has_session() {
            return Err(Failure::user("the build has no session: its client takes no files"));
        }
        let request = proto::OutputSend {
            build_id: self.executor.build_id.clone(),
            attempt: self.executor.attempt,
            index: u32::try_from(index).unwrap_or(u32::MAX),
            blob: Some(blob),
            metadata,
        };
        let sent = async {
            self.executor.client.ask::<calls::OutputSend>(&request).await.map_err(|error| match error.kind() {
                model::ErrorKind::Conflict => error.into(),
                _ => Failure::user(error.message()),
            })
        };
        halt::wanted(sent).await.map(drop)
    }
}

/// The gateway's answer to an export.
pub(super) fn exported(asked: Result<proto::BuildExportReply, bus::Error>) -> Result<proto::BuildExportReply, Failure> {
    asked.map_err(|error| match error.kind() {
        // The build is another worker's.
        model::ErrorKind::Conflict | model::ErrorKind::Unavailable => error.into(),
        _ => Failure::user(error.message()),
    })
}
