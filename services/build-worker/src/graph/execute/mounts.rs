//! Mounts of RUN.

use std::path::{Path, PathBuf};

use runtime::bundle::Mount;

use super::Executor;
use super::copy::Files;
use crate::container::bind;
use crate::failure::Failure;
use crate::graph::files::missing;
use crate::layers::blocking;
use crate::rooted::{Root, clean};

/// What a step has mounted, for as long as this lives.
#[derive(Default)]
pub struct Mounted {
    pub mounts: Vec<Mount>,
    /// Secrets that are variables.
    pub env: Vec<String>,
    /// What the mounts lie on.
    _held: Vec<Files>,
}

impl Executor {
    pub(super) async fn mounts(&self, run: &proto::RunOperation) -> Result<Mounted, Failure> {
        let mut mounted = Mounted::default();
        for mount in &run.mounts {
            match mount.r#type.as_str() {
                "bind" => self.bind(&mut mounted, mount).await?,
                "tmpfs" => mounted.mounts.push(tmpfs(mount)),
                other => return Err(Failure::user(format!("mounts of type {other} are not built yet"))),
            }
        }
        Ok(mounted)
    }

    async fn bind(&self, mounted: &mut Mounted, mount: &proto::StepMount) -> Result<(), Failure> {
        let files = self.files(mount.from.as_ref()).await?;
        let folder = files.folder().ok_or_else(|| Failure::internal("inline files are not mounted"))?;
        let path = inside(&folder, &mount.source).await?;
        // Layers have a view of their own, whose changes are lost at the end.
        let read_only = mount.readonly || !matches!(files, Files::Mounted(_));
        mounted.mounts.push(Mount { read_only, ..bind(path, mount.target.clone()) });
        mounted._held.push(files);
        Ok(())
    }
}

/// Where a path leads in a hostile folder; a link there cannot lead out of it.
async fn inside(folder: &Path, path: &str) -> Result<PathBuf, Failure> {
    let (folder, path) = (folder.to_owned(), path.to_owned());
    blocking(move || {
        let real = Root::open(&folder).and_then(|root| root.real_path(&clean(Path::new(&path))));
        real.map(|real| folder.join(real)).map_err(|_| missing(&path))
    })
    .await
}

fn tmpfs(mount: &proto::StepMount) -> Mount {
    let size = (mount.size_bytes > 0).then(|| format!("size={}", mount.size_bytes));
    Mount {
        kind: "tmpfs".to_owned(),
        source: PathBuf::new(),
        target: mount.target.clone(),
        read_only: mount.readonly,
        propagation: String::new(),
        options: size.into_iter().chain(["exec".to_owned()]).collect(),
    }
}
