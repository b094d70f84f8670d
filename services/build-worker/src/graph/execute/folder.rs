//! WORKDIR: a folder, and those above it.

use std::path::Path;

use super::Executor;
use super::copier::{Made, make_dirs};
use super::owner;
use crate::failure::Failure;
use crate::layers::blocking;
use crate::rooted::{Root, clean};
use crate::tree::Tree;

impl Executor {
    pub(super) async fn folder(
        &self,
        tree: &Tree,
        folder: &proto::FolderOperation,
        epoch: Option<i64>,
    ) -> Result<(), Failure> {
        let (root, path, user) = (tree.root(), clean(Path::new(&folder.path)), folder.user.clone());
        blocking(move || {
            let failed = |error: std::io::Error| {
                Failure::user(format!("mkdir /{}: {}", path.display(), super::copy::why(&error)))
            };
            let root = Root::open(&root).map_err(failed)?;
            let owner = owner::of(&root, &user);
            make_dirs(&root, &path, &Made { owner, epoch, ..Made::default() }).map_err(failed)
        })
        .await
    }
}
