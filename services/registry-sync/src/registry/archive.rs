//! Archives of images that a build made: packed as for a registry, written into the layer store, or blob by blob into a
//! layout of the client.

use std::collections::BTreeMap;

use bytes::Bytes;
use distribution::{Body, Store};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use model::Digest;
use oci::Descriptor;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Remote;
use super::client::Client;
use super::form::{self, Document, Form};
use super::manifest::Blob;
use super::packed::{Parcel, diff_ids, image};
use crate::error::Error;
use crate::layout::{Layout, Sink, Source};
use crate::save::{ArchiveImage, json, named, named_entry};
use crate::spool::blob_name;

/// Chunks under way to the layer store.
const CHUNKS_UNDER_WAY: usize = 8;
/// Layers that are packed at once.
const PACKS: usize = 2;

/// Writes the archive; the same images and packing give the same bytes.
///
/// # Errors
/// `InvalidArgument` where an archive of Docker's is to hold several images, which it cannot.
pub async fn archive(remote: &Remote, request: proto::Archive) -> Result<proto::ArchiveReply, Error> {
    let proto::Archive { platforms, form, names, with_docker, lease, packed, content } = request;
    let form = Form::of(form)?;
    if with_docker && platforms.len() > 1 {
        let text = "docker exporter does not currently support exporting manifest lists";
        return Err(Error::Archive(text.to_owned()));
    }
    let parcel = Parcel { remote: remote.clone(), platforms, form, lease, known: packed };
    let layers = parcel.layers()?;
    let packing = layers.iter().map(|diff_id| parcel.packed(diff_id).boxed()).collect::<Vec<_>>();
    let packing = futures::stream::iter(packing).buffered(PACKS);
    let packed: Vec<(Blob, Option<proto::PackedLayer>)> = packing.try_collect().await?;
    let blobs: BTreeMap<&Digest, &Blob> = layers.iter().zip(packed.iter().map(|(blob, _)| blob)).collect();
    let mut layout = Layout::default();
    let top = parcel.fill(&mut layout, &blobs, &names, with_docker).await?;
    let blob = match content {
        Some(content) => {
            Client::new(remote.clone(), content).give(layout, &parcel.lease).await?;
            None
        }
        None => {
            let (digest, size) = upload(&remote.store, layout, &parcel.lease).await?;
            Some(proto::Descriptor { media_type: "application/x-tar".to_owned(), digest: digest.to_string(), size })
        }
    };
    Ok(proto::ArchiveReply {
        blob,
        image: Some(proto::Descriptor {
            media_type: top.media_type.clone(),
            digest: top.digest.to_string(),
            size: top.size,
        }),
        packed: packed.into_iter().filter_map(|(_, new)| new).collect(),
    })
}

impl Parcel {
    /// The layer as it is to be handed out, and the row that is new about it.
    async fn packed(&self, diff_id: &Digest) -> Result<(Blob, Option<proto::PackedLayer>), Error> {
        if let Some(blob) = self.kept(diff_id).await? {
            return Ok((blob, None));
        }
        let flight = self.flight(diff_id);
        let mut result = flight.lock().await;
        if let Some(blob) = result.clone()
            && self.remote.store.has(&blob.digest, Some(&self.lease)).await?.is_some()
        {
            return Ok((blob, None));
        }
        // Nobody wants it at the same time as the layer store.
        let (copy, _) = mpsc::channel(1);
        let blob = self.pack(diff_id, Default::default(), copy).await?;
        let new = blob.row(diff_id, String::new());
        Ok((result.insert(blob).clone(), Some(new)))
    }

    /// Puts everything but the tar's own pages into the layout; gives what the archive is about.
    async fn fill(
        &self,
        layout: &mut Layout,
        blobs: &BTreeMap<&Digest, &Blob>,
        names: &[String],
        with_docker: bool,
    ) -> Result<Descriptor, Error> {
        let mut entries = Vec::new();
        let mut docker = Vec::new();
        for platform in &self.platforms {
            let image = image(platform)?;
            let (id, config) = self.config(image).await?;
            let layers: Option<Vec<Blob>> = diff_ids(image)?.iter().map(|id| Some((*blobs.get(id)?).clone())).collect();
            let layers = layers.ok_or(Error::Task)?;
            let document = self.document(platform, (&id, config.len() as u64), &layers)?;
            docker.push(ArchiveImage {
                config: blob_name(&id),
                repo_tags: (!names.is_empty()).then(|| names.to_vec()),
                layers: layers.iter().map(|layer| blob_name(&layer.digest)).collect(),
                layer_sources: BTreeMap::new(),
            });
            layout.blobs.extend(layers.into_iter().map(|layer| (layer.digest, Source::Store(layer.size))));
            layout.blobs.insert(id, Source::Here(config));
            entries.push(form::entry(&document, platform)?);
            add(layout, document);
        }
        let top = match entries.len() {
            1 => entries.remove(0),
            _ => {
                let index = self.form.index(entries);
                let descriptor = index.descriptor();
                add(layout, index);
                descriptor
            }
        };
        for name in names {
            layout.manifests.push(named_entry(&top, &named(name)?));
        }
        if names.is_empty() {
            layout.manifests.push(top.clone());
        }
        if with_docker {
            layout.pages.insert("manifest.json", json(&docker));
        }
        Ok(top)
    }
}

fn add(layout: &mut Layout, document: Document) {
    layout.blobs.insert(document.digest(), Source::Here(document.bytes));
}

struct Chunks(mpsc::Sender<Result<Bytes, Error>>);

impl Sink for Chunks {
    async fn send(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.0.send(Ok(bytes)).await.map_err(|_| Error::Task)
    }
}

async fn upload(store: &Store, layout: Layout, lease: &str) -> Result<(Digest, u64), Error> {
    let (sender, receiver) = mpsc::channel(CHUNKS_UNDER_WAY);
    let mut sink = Chunks(sender);
    let write = async move {
        let written = layout.write(store, &mut sink).await;
        if let Err(error) = &written {
            // An error in the body breaks the request off, so that half an archive is never taken for one.
            let _ = sink.0.send(Err(Error::Archive(error.to_string()))).await;
        }
        written
    };
    let body = Body::wrap_stream(ReceiverStream::new(receiver));
    let (written, uploaded) = tokio::join!(write, store.upload(body, Some(lease)));
    // The writer fails without a reason of its own when the store gave up first.
    match written {
        Err(Error::Task) => Err(uploaded.err().map_or(Error::Task, Error::Store)),
        written => {
            written?;
            Ok(uploaded?)
        }
    }
}
