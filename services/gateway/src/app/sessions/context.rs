//! Files of a client brought into the layer store, and what is remembered of them for the next time.

use std::collections::HashSet;
use std::sync::Arc;

use contexts::Known;
use model::Digest;

use super::Session;
use super::files::{self, Wanted};
use crate::app::{App, Failure, Outcome};

/// A client that serves this says the digests of its files in their Stats ([`contexts::SHA256_XATTR`]): a name of
/// Boxyard's own, which no BuildKit asks for.
const SAYS_DIGESTS: &str = "/boxyard.v1.files/digests";
/// So many trees of the same folder are looked at for content that need not be sent, and of other folders where the
/// client says digests.
const TREES_OF_SOURCE: u32 = 3;
const OTHER_TREES: u32 = 3;
/// What is remembered of all clients' folders.
const MAX_TREES: usize = 256;
pub const MAX_BYTES: u64 = 4 << 30;

/// What is known of a client's files before it sends them.
struct Before {
    known: Known,
    /// Digests of trees that lie in the store, under the build's lease.
    stored: HashSet<String>,
    /// What was asked for the last times, and the trees that came.
    came: HashSet<(String, String)>,
}

impl App {
    /// Brings the files that a worker wants of its build's client into the layer store.
    pub async fn sync_context(&self, user: &str, request: proto::ContextSync) -> Outcome<proto::ContextTree> {
        let (session, _) = self.session_of(user, &request.build_id, request.attempt).await?;
        let source = source(&session, &request.name);
        let Before { known, stored, came } = self.known_contexts(&session, &source, &request).await?;
        let wanted = Wanted {
            name: &request.name,
            include_patterns: &request.include_patterns,
            exclude_patterns: &request.exclude_patterns,
            follow_paths: &request.follow_paths,
        };
        let (tree, transferred_bytes) = files::receive(&session, &self.store, &request.lease, &wanted, known).await?;
        let bytes = tree.encode();
        let digest = Digest::of(&bytes);
        if !stored.contains(digest.as_str()) {
            self.store.put_bytes(&bytes, Some(&request.lease)).await?;
        }
        let sent = proto::ContextTree {
            tree: Some(proto::Descriptor {
                media_type: contexts::Tree::MEDIA_TYPE.to_owned(),
                digest: digest.to_string(),
                size: bytes.len() as u64,
            }),
            files: tree.files(),
            bytes: tree.bytes(),
            transferred_bytes,
        };
        if !session.told.shared_key.is_empty() {
            let record = metadata::ContextTree {
                id: id(&source, &wanted),
                source,
                tree: digest.to_string(),
                tree_bytes: bytes.len() as u64,
                packs: tree.packs.iter().map(|pack| (pack.digest.to_string(), pack.size)).collect(),
            };
            let is_new = !came.contains(&(record.id.clone(), record.tree.clone()));
            self.db.record_context(&record).await?;
            if is_new {
                self.forget_contexts().await?;
            }
            // The next build of the folder reads it.
            self.known_trees.add(digest.as_str(), tree);
        }
        Ok(sent)
    }

    /// Content that need not be sent again. What is known lies under the lease then.
    async fn known_contexts(&self, session: &Session, source: &str, request: &proto::ContextSync) -> Outcome<Before> {
        let mut rows = match session.told.shared_key.is_empty() {
            true => Vec::new(),
            false => self.db.contexts_of(source, TREES_OF_SOURCE).await?,
        };
        if session.told.methods.contains(SAYS_DIGESTS) && !request.small {
            rows.extend(self.db.contexts_of_others(source, OTHER_TREES).await?);
        }
        let of_row = |row: &metadata::ContextTree| {
            row.packs.iter().map(|(digest, _)| digest).chain([&row.tree]).cloned().collect::<Vec<_>>()
        };
        let blobs: HashSet<String> = rows.iter().flat_map(of_row).collect();
        let missing = self.pin(&request.lease, blobs.into_iter().collect()).await?;
        let (mut trees, mut stored, mut came) = (Vec::new(), HashSet::new(), HashSet::new());
        for row in rows {
            if !missing.contains(&row.tree) {
                stored.insert(row.tree.clone());
            }
            came.insert((row.id.clone(), row.tree.clone()));
            match self.read_tree(&row).await {
                Ok(tree) => trees.push(tree),
                // It is as if it had never been sent.
                Err(failure) => tracing::info!(%failure, tree = row.tree, "a client's earlier files are not read"),
            }
        }
        let known = Known::new(trees, |pack| !missing.contains(pack.as_str()));
        Ok(Before { known, stored, came })
    }

    async fn read_tree(&self, row: &metadata::ContextTree) -> Outcome<Arc<contexts::Indexed>> {
        if let Some(known) = self.known_trees.find(&row.tree) {
            return Ok(known);
        }
        let digest = row.tree.parse().map_err(|_| Failure::invalid("a tree without a digest"))?;
        let bytes = self.store.get_bytes(&digest, contexts::Tree::MAX_BYTES).await?;
        let tree = contexts::Tree::decode(&bytes).map_err(|error| Failure::new(error.kind(), error.to_string()))?;
        Ok(self.known_trees.add(&row.tree, tree))
    }

    /// Forgets trees that were used longest ago past what may be kept.
    async fn forget_contexts(&self) -> Outcome<()> {
        for old in past_budget(self.db.contexts().await?) {
            if self.db.forget_context(&old.id, &old.tree).await? {
                let blobs = old.packs.into_iter().map(|(digest, _)| digest).chain([old.tree]);
                self.release_blobs(blobs.collect()).await;
            }
        }
        Ok(())
    }

    /// Digests of the blobs that hold remembered contexts.
    pub async fn context_blobs(&self) -> Outcome<impl Iterator<Item = String> + use<>> {
        let rows = self.db.contexts().await?.into_iter();
        Ok(rows.flat_map(|row| row.packs.into_iter().map(|(digest, _)| digest).chain([row.tree])))
    }
}

/// Those after the first ones that fit; the newest is kept whatever its size. Packs that several name count once.
fn past_budget(rows: Vec<metadata::ContextTree>) -> Vec<metadata::ContextTree> {
    let (mut kept, mut bytes, mut packs) = (0, 0, HashSet::new());
    for row in &rows {
        bytes += row.tree_bytes;
        let new = row.packs.iter().filter(|(digest, _)| packs.insert(digest.clone()));
        bytes += new.map(|(_, size)| size).sum::<u64>();
        if kept > 0 && (bytes > MAX_BYTES || kept >= MAX_TREES) {
            break;
        }
        kept += 1;
    }
    rows.into_iter().skip(kept).collect()
}

/// Names a client's folder.
fn source(session: &Session, name: &str) -> String {
    hash(&[&session.told.shared_key, name])
}

/// Names what was asked of a folder.
fn id(source: &str, wanted: &Wanted) -> String {
    let lists = [wanted.include_patterns, wanted.exclude_patterns, wanted.follow_paths];
    let lists: Vec<String> = lists.iter().map(|list| serde_json::json!(list).to_string()).collect();
    hash(&[&[source], lists.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat())
}

fn hash(parts: &[&str]) -> String {
    Digest::of(serde_json::json!(parts).to_string().as_bytes()).hex().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_within_the_budget() {
        let row = |id: &str, pack: &str, size: u64| metadata::ContextTree {
            id: id.to_owned(),
            source: String::new(),
            tree: String::new(),
            tree_bytes: 1,
            packs: vec![(pack.to_owned(), size)],
        };
        let ids = |rows| past_budget(rows).into_iter().map(|row| row.id).collect::<Vec<_>>();
        assert_eq!(ids(vec![row("a", "p", MAX_BYTES + 1), row("b", "p", 5)]), ["b"], "the newest stays");
        let shared = vec![row("a", "p", MAX_BYTES - 9), row("b", "p", MAX_BYTES - 9), row("c", "q", 9)];
        assert_eq!(ids(shared), ["c"], "a shared pack counts once");
        let many = (0..MAX_TREES + 2).map(|n| row(&n.to_string(), "p", 1)).collect();
        assert_eq!(ids(many), [MAX_TREES.to_string(), (MAX_TREES + 1).to_string()]);
    }
}
