//! Named contexts that are folders of the client (`--build-context NAME=./folder`): brought when something first needs
//! them, without what the folder's own ignore file leaves out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::OnceCell;

use super::Graph;
use super::files::Origin;
use super::source::patterns;
use super::trace::Vertex;
use crate::failure::Failure;

const IGNORE_FILE: &str = ".dockerignore";

/// Folders that the build has asked its client for, each once, by the name that the client serves it under.
#[derive(Default)]
pub struct Folders(Mutex<HashMap<String, Arc<OnceCell<Origin>>>>);

/// A named context that its client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// As the Dockerfile calls it.
    pub context: String,
    /// As the client does.
    pub name: String,
}

impl Graph {
    /// The files of a named context.
    ///
    /// # Errors
    /// `User` where the build's client serves no folders.
    pub(super) async fn folder_context(&self, folder: &Folder) -> Result<Origin, Failure> {
        let cell = {
            let mut known = self.folders.0.lock().expect("no holder panics");
            known.entry(folder.name.clone()).or_default().clone()
        };
        cell.get_or_try_init(|| self.load_folder(folder)).await.cloned()
    }

    async fn load_folder(&self, Folder { context, name }: &Folder) -> Result<Origin, Failure> {
        let vertex = |what: &str| {
            let place = format!("{} folder {name} {what}", self.executor.build_id);
            Vertex::new(&self.trace, &place, format!("[context {context}] load {what}"))
        };
        let load = async {
            let sent = self.small_files(name, vec![IGNORE_FILE.to_owned()]).await?;
            Ok(self.text(&sent, IGNORE_FILE).await?.unwrap_or_default())
        };
        let rules = vertex(IGNORE_FILE).around(load).await?;
        let load = async {
            let sent = self.sync(name, Vec::new(), patterns(&rules)).await?;
            let descriptor = sent.tree.unwrap_or_default();
            let tree = self.executor.worker.trees.tree(&descriptor).await?;
            Ok(Origin::Tree(descriptor, tree))
        };
        vertex("from client").around(load).await
    }
}
