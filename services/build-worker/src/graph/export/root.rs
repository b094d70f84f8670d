//! Content of images on its way out: whole root file systems, and layers that are written anew.

use std::path::PathBuf;

use super::options::folder_of;
use super::{Built, times};
use crate::archive::decompress;
use crate::failure::Failure;
use crate::graph::Graph;
use crate::graph::trace::Vertex;
use crate::halt;
use crate::layers::plain_layer;
use crate::tree::Tree;

impl Graph {
    /// The root file systems as one tar in the layer store; with `split` each in a folder of its platform's name.
    pub(super) async fn pack_roots(&self, built: &[Built], split: bool) -> Result<proto::Descriptor, Failure> {
        let epoch = built.iter().find_map(|built| built.epoch);
        let mut trees = Vec::new();
        for one in built {
            let folder = self.executor.worker.machine.step_folder(&self.executor.build_id);
            let name = if split { PathBuf::from(folder_of(&one.platform)) } else { PathBuf::new() };
            trees.push((name, Tree::mount(&self.executor.layers, &one.layers, folder).await?));
        }
        let (digest, size, ()) = self
            .executor
            .layers
            .write(move |out| {
                let roots: Vec<_> = trees.iter().map(|(name, tree)| (name.clone(), tree.root())).collect();
                snapshots::export_all(&roots, epoch, out).map_err(Failure::caused)
            })
            .await?;
        Ok(proto::Descriptor { media_type: "application/x-tar".to_owned(), digest: digest.to_string(), size })
    }

    /// The image with layers that know no time after SOURCE_DATE_EPOCH. Those of the base stay, since others have them.
    pub(super) async fn without_late_times(&self, vertex: &Vertex, built: &Built) -> Result<Built, Failure> {
        let Some(epoch) = built.epoch else {
            return Err(Failure::user("rewrite-timestamp requires SOURCE_DATE_EPOCH to be set"));
        };
        let mut layers = Vec::new();
        for layer in &built.layers[built.base_layers()..] {
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
        let reader = halt::reader(self.executor.layers.store.get(&digest)).await?;
        let clamped = self.executor.layers.write(move |out| {
            let tar = decompress(reader).map_err(Failure::caused)?;
            times::clamp(tar, epoch, out).map_err(Failure::caused)
        });
        let (digest, size, ()) = clamped.await?;
        Ok(plain_layer(&digest, size, layer.content_bytes))
    }
}
