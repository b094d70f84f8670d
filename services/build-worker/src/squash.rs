//! `--squash`: what a build has put on its base becomes one layer.

use std::path::PathBuf;

use oci::{History, ImageConfig};

use crate::failure::Failure;
use crate::layers::{Layers, diff_id, diff_ids, plain_layer};
use crate::tree::Tree;

/// The image that a build stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    pub id: String,
    /// So many layers, and entries of the history, are its own.
    pub layers: usize,
    pub history: usize,
}

/// The layers of the base with one on top; `folder` is made and removed. All layers are stored.
pub async fn layers(
    layers: &Layers,
    all: &[proto::Layer],
    base: Option<&Base>,
    folder: PathBuf,
) -> Result<Vec<proto::Layer>, Failure> {
    let own = base.map_or(0, |base| base.layers);
    let tree = Tree::mount(layers, all, folder).await?;
    let (snapshots, ids) = (layers.snapshots.clone(), diff_ids(all)?);
    let squash = layers.write(move |out| {
        let (below, above) = ids.split_at(own);
        snapshots.squash(below, above, &tree.root(), out).map_err(Failure::caused)
    });
    let (digest, size, stat) = squash.await?;
    let mut squashed = all[..own].to_vec();
    squashed.push(plain_layer(&digest, size, stat.content_bytes));
    Ok(squashed)
}

/// The configuration with these layers. What the build has done stays in its history, as entries without a layer.
pub fn config(
    id: &str,
    config: &[u8],
    layers: &[proto::Layer],
    how: (Option<&Base>, String),
) -> Result<Vec<u8>, Failure> {
    let (base, created) = how;
    let mut file = ImageConfig::parse(config).map_err(Failure::caused)?;
    file.rootfs.diff_ids = layers.iter().map(diff_id).collect::<Result<_, _>>()?;
    let own = base.map_or(0, |base| base.history);
    file.history.iter_mut().skip(own).for_each(|entry| entry.empty_layer = true);
    let comment = match base {
        Some(base) => format!("merge {id} to {}", base.id),
        None => format!("create new from {id}"),
    };
    file.history.push(History { created: Some(created.clone()), comment, ..History::default() });
    file.created = Some(created);
    Ok(file.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_tells_what_was_done() {
        let entry = |words: &str| History { created_by: words.to_owned(), ..History::default() };
        let file = ImageConfig { history: vec![entry("base"), entry("RUN a"), entry("RUN b")], ..Default::default() };
        let layer = |content: &[u8]| plain_layer(&model::Digest::of(content), 1, 1);
        let layers = [layer(b"base"), layer(b"squashed")];
        let base = Base { id: "sha256:base".to_owned(), layers: 1, history: 1 };
        for (base, comment, empty) in [
            (Some(&base), "merge sha256:all to sha256:base", [false, true, true, false]),
            (None, "create new from sha256:all", [true, true, true, false]),
        ] {
            let how = (base, "2020-01-02T03:04:05Z".to_owned());
            let bytes = config("sha256:all", &file.to_bytes(), &layers, how).expect("a config");
            let read = ImageConfig::parse(&bytes).expect("a config");
            assert_eq!(read.history.iter().map(|entry| entry.empty_layer).collect::<Vec<_>>(), empty);
            assert_eq!(read.history[3].comment, comment);
            assert_eq!((read.rootfs.diff_ids.len(), read.created.as_deref()), (2, Some("2020-01-02T03:04:05Z")));
        }
    }
}
