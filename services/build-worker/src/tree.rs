use std::path::{Path, PathBuf};

use model::DiffId;
use snapshots::MountSpec;

use crate::failure::{Doing as _, Failure};
use crate::layers::{Layers, Made, Unchanged, blocking, diff_ids};
use crate::space;

/// Layers, mounted with a new writable folder on top. Unmounted and removed when dropped.
#[derive(Debug)]
pub struct Tree {
    /// Holds the writable folder, overlayfs' own and the mount point.
    folder: PathBuf,
    /// Base layer first.
    below: Vec<DiffId>,
}

impl Tree {
    /// `below` are fetched where they are missing, base layer first; `folder` is made.
    pub async fn mount(layers: &Layers, below: &[proto::Layer], folder: PathBuf) -> Result<Self, Failure> {
        layers.fetch(below).await?;
        let below = diff_ids(below)?;
        let tree = Self { folder, below };
        let (snapshots, folder, below) = (layers.snapshots.clone(), tree.folder.clone(), tree.below.clone());
        blocking(move || mount(&snapshots, &folder, &below)).await?;
        Ok(tree)
    }

    /// A plain folder instead of layers. It must not change meanwhile.
    pub async fn over(lower: PathBuf, folder: PathBuf) -> Result<Self, Failure> {
        let tree = Self { folder, below: Vec::new() };
        let folder = tree.folder.clone();
        blocking(move || {
            let [upper, work, target] = folders(&folder)?;
            snapshots::mount_over(&lower, &upper, &work, &target).map_err(Failure::caused)
        })
        .await?;
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
    pub async fn into_layer(self, layers: &Layers, unchanged: Unchanged) -> Result<Option<Made>, Failure> {
        self.unmount()?;
        let layer = layers.adopt(self.upper(), self.below.clone(), unchanged).await;
        self.discard().await?;
        layer
    }

    /// Unmounts and removes it: what was changed may be much.
    pub async fn discard(self) -> Result<(), Failure> {
        blocking(move || {
            drop(self);
            Ok(())
        })
        .await
    }

    pub fn unmount(&self) -> Result<(), Failure> {
        snapshots::unmount(&self.root()).map_err(Failure::caused)
    }
}

fn mount(snapshots: &snapshots::Snapshots, folder: &Path, layers: &[DiffId]) -> Result<(), Failure> {
    let [upper, work, target] = folders(folder)?;
    snapshots.mount(&MountSpec { layers, upper: &upper, work: &work, target: &target }).map_err(Failure::caused)
}

/// What an overlay needs: the writable folder, overlayfs' own and the mount point.
fn folders(folder: &Path) -> Result<[PathBuf; 3], Failure> {
    std::fs::create_dir_all(folder).doing(|| format!("making {}", folder.display()))?;
    space::ensure(folder, 0).doing(|| "mounting a step's root".to_owned())?;
    let all = ["u", "w", "r"].map(|name| folder.join(name));
    for path in &all {
        std::fs::create_dir_all(path).doing(|| format!("making {}", path.display()))?;
    }
    Ok(all)
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
