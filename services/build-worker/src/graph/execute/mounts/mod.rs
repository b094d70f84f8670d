//! Mounts of RUN.

mod agent;
mod caches;
mod secrets;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use runtime::bundle::Mount;
use tokio_util::sync::CancellationToken;

use super::Executor;
use super::copy::Files;
use crate::caches::{Caches, Held};
use crate::claims::Claim;
use crate::container::bind;
use crate::failure::Failure;
use crate::graph::files::missing;
use crate::layers::blocking;
use crate::rooted::{Root, clean};
use crate::tree::Tree;

/// What a step has mounted, for as long as this lives. Then what it left in its caches is kept, and their locks are given
/// back: once its process is gone, however the step has ended.
pub struct Mounted {
    pub mounts: Vec<Mount>,
    /// Secrets that are variables, and where the agent is.
    pub env: Vec<String>,
    /// What the mounts lie on.
    files: Vec<Files>,
    caches: Vec<Held>,
    locks: Vec<Claim>,
    agents: Vec<agent::Agent>,
    memory: Option<secrets::Memory>,
    kept: Arc<Caches>,
    /// Cancelled when the step's process is gone, if it has begun.
    gone: Option<CancellationToken>,
}

impl Mounted {
    fn new(kept: Arc<Caches>, locks: Vec<Claim>) -> Self {
        let (mounts, env, files, caches, agents) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { mounts, env, files, caches, locks, agents, memory: None, kept, gone: None }
    }

    /// The step's process begins; the token is to be cancelled when it is gone.
    pub fn begin(&mut self) -> CancellationToken {
        self.gone.insert(CancellationToken::new()).clone()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let (caches, locks) = (std::mem::take(&mut self.caches), std::mem::take(&mut self.locks));
        if !caches.is_empty() {
            self.kept.end(caches, locks, self.gone.take());
        }
    }
}

impl Executor {
    pub(super) async fn mounts(&self, tree: &Tree, run: &proto::RunOperation) -> Result<Mounted, Failure> {
        let mut mounted = Mounted::new(self.worker.caches.clone(), self.locks(&run.mounts).await?);
        for mount in &run.mounts {
            match mount.r#type.as_str() {
                "bind" => self.bind(&mut mounted, mount).await?,
                "cache" => self.cache(&mut mounted, mount, &run.args.join(" ")).await?,
                "tmpfs" => mounted.mounts.push(tmpfs(mount)),
                "secret" => self.secret(tree, &mut mounted, mount).await?,
                "ssh" => self.agent(tree, &mut mounted, mount).await?,
                other => return Err(Failure::internal(format!("a mount of type {other:?}"))),
            }
        }
        Ok(mounted)
    }

    async fn bind(&self, mounted: &mut Mounted, mount: &proto::StepMount) -> Result<(), Failure> {
        let mut files = self.files(mount.from.as_ref()).await?;
        let folder = files.folder().ok_or_else(|| Failure::internal("inline files are not mounted"))?;
        // Who may write has a view of its own, whose changes are lost at the end; layers come with one.
        if !mount.readonly && !matches!(files, Files::Mounted(_)) {
            let view = Tree::over(folder, self.worker.machine.step_folder(&self.folder)).await?;
            mounted.files.push(std::mem::replace(&mut files, Files::Mounted(view)));
        }
        let folder = files.folder().ok_or_else(|| Failure::internal("inline files are not mounted"))?;
        let path = inside(&folder, &mount.source).await?;
        mounted.mounts.push(Mount { read_only: mount.readonly, ..bind(path, mount.target.clone()) });
        // What lies below goes after what lies on it.
        mounted.files.insert(0, files);
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
