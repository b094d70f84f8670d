//! Content of images on its way out: whole root file systems, and layers that are written anew.

use std::io::Write;
use std::path::PathBuf;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::options::folder_of;
use super::{Built, times};
use crate::archive::decompress;
use crate::failure::Failure;
use crate::graph::Graph;
use crate::graph::trace::Vertex;
use crate::layers::{ChannelWriter, LAYER_TYPE, blocking};
use crate::tree::Tree;

/// Chunks on their way to the layer store.
const CHUNKS: usize = 4;
const BUFFER_BYTES: usize = 256 << 10;

impl Graph {
    /// The root file systems as one tar in the layer store; with `split` each in a folder of its platform's name.
    pub(super) async fn pack_roots(&self, built: &[Built], split: bool) -> Result<proto::Descriptor, Failure> {
        let epoch = built.iter().find_map(|built| built.epoch);
        let mut trees = Vec::new();
        for one in built {
            let folder = self.executor.machine.step_folder(&self.executor.build_id);
            let name = if split { PathBuf::from(folder_of(&one.platform)) } else { PathBuf::new() };
            trees.push((name, Tree::mount(&self.executor.layers, &one.layers, folder).await?));
        }
        self.store(move |out| {
            let roots: Vec<_> = trees.iter().map(|(name, tree)| (name.clone(), tree.root())).collect();
            snapshots::export_all(&roots, epoch, out).map_err(Failure::caused)
        })
        .await
    }

    /// The image with layers that know no time after SOURCE_DATE_EPOCH. Those of the base stay, since others have them.
    pub(super) async fn without_late_times(&self, vertex: &Vertex, built: &Built) -> Result<Built, Failure> {
        let Some(epoch) = built.epoch else {
            return Err(Failure::user("rewrite-timestamp requires SOURCE_DATE_EPOCH to be set"));
        };
        let mut layers = Vec::new();
        for layer in &built.layers[built.base_layers..] {
            let rewriting = self.clamped(layer, epoch);
            let id = layer.diff_id.clone();
            layers
                .push(vertex.status(&format!("rewriting layer {id} with source-date-epoch {epoch}"), rewriting).await?);
        }
        built.with_layers(layers)
    }

    async fn clamped(&self, layer: &proto::Layer, epoch: i64) -> Result<proto::Layer, Failure> {
        let blob = layer.blob.as_ref().ok_or_else(|| Failure::internal("a layer without a blob"))?;
        let digest = blob.digest.parse().map_err(Failure::caused)?;
        let reader = self.executor.layers.store.get_to_reader(&digest).await.map_err(Failure::caused)?;
        let stored = self
            .store(move |out| {
                let tar = decompress(reader).map_err(Failure::caused)?;
                times::clamp(tar, epoch, out).map_err(Failure::caused)
            })
            .await?;
        let diff_id = stored.digest.clone();
        let blob = Some(proto::Descriptor { media_type: LAYER_TYPE.to_owned(), ..stored });
        Ok(proto::Layer { diff_id, blob, content_bytes: layer.content_bytes })
    }

    /// Stores what `write` writes, under the build's lease.
    async fn store(
        &self,
        write: impl FnOnce(&mut dyn Write) -> Result<(), Failure> + Send + 'static,
    ) -> Result<proto::Descriptor, Failure> {
        let (sender, receiver) = mpsc::channel::<std::io::Result<Bytes>>(CHUNKS);
        let writing = blocking(move || {
            let channel = ChannelWriter { sender: sender.clone() };
            let mut out = std::io::BufWriter::with_capacity(BUFFER_BYTES, channel);
            let written = write(&mut out).and_then(|()| out.flush().map_err(Failure::caused));
            if let Err(error) = &written {
                // An error in the body breaks the request off, so that half of it is never taken for the whole.
                let _ = sender.blocking_send(Err(std::io::Error::other(error.to_string())));
            }
            written
        });
        let body = reqwest::Body::wrap_stream(ReceiverStream::new(receiver));
        let (written, stored) =
            tokio::join!(writing, self.executor.layers.store.upload(body, Some(&self.executor.layers.lease)));
        let (digest, size) = match (written, stored) {
            (_, Ok(stored)) => stored,
            (Err(error), Err(_)) => return Err(error),
            (Ok(()), Err(error)) => return Err(Failure::caused(error)),
        };
        Ok(proto::Descriptor { media_type: "application/x-tar".to_owned(), digest: digest.to_string(), size })
    }
}
