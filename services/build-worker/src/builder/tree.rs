use std::path::{Path, PathBuf};

use model::DiffId;
use snapshots::MountSpec;

use super::Builder;
use super::stage::Stage;
use crate::failure::{Doing as _, Failure};
use crate::layers::{Made, blocking};
use crate::space;

/// A stage's root, mounted with a new writable folder on top. Unmounted and removed when dropped.
#[derive(Debug)]
pub struct Tree {
    /// Holds the writable folder, overlayfs' own and the mount point.
    folder: PathBuf,
}

impl Tree {
    pub async fn mount(builder: &Builder, stage: &Stage) -> Result<Self, Failure> {
        builder.layers.fetch(&stage.layers).await?;
        let layers = stage.diff_ids()?;
        let tree = Self { folder: builder.machine.step_folder(&builder.build_id) };
        let (snapshots, folder) = (builder.layers.snapshots.clone(), tree.folder.clone());
        blocking(move || mount(&snapshots, &folder, &layers)).await?;
        Ok(tree)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn root(&self) -> PathBuf {
        self.folder.join("r")
    }

    pub fn upper(&self) -> PathBuf {
        self.folder.join("u")
    }

    /// Unmounts, and makes what was changed a layer.
    pub async fn into_layer(self, builder: &Builder, stage: &Stage) -> Result<Option<Made>, Failure> {
        self.unmount()?;
        let layer = builder.layers.adopt(self.upper(), stage.diff_ids()?).await;
        blocking(move || {
            drop(self);
            Ok(())
        })
        .await?;
        layer
    }

    pub fn unmount(&self) -> Result<(), Failure> {
        snapshots::unmount(&self.root()).map_err(Failure::caused)
    }
}

fn mount(snapshots: &snapshots::Snapshots, folder: &Path, layers: &[DiffId]) -> Result<(), Failure> {
    let at = |name: &str| folder.join(name);
    std::fs::create_dir_all(folder).doing(|| format!("making {}", folder.display()))?;
    space::ensure(folder, 0).doing(|| "mounting a step's root".to_owned())?;
    for name in ["u", "w", "r"] {
        std::fs::create_dir_all(at(name)).doing(|| format!("making {}", at(name).display()))?;
    }
    let (upper, work, target) = (at("u"), at("w"), at("r"));
    snapshots.mount(&MountSpec { layers, upper: &upper, work: &work, target: &target }).map_err(Failure::caused)
}

impl Drop for Tree {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            // Removing through a mount that stays would reach into the image.
            tracing::warn!(%error, folder = %self.folder.display(), "a step's root stays mounted");
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.folder)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, folder = %self.folder.display(), "a step's folder stays");
        }
    }
}
