//! A cache mount's content as a tar, out of the layer store and into it.

use std::io::{self, Write};

use bytes::Bytes;
use contexts::{Kind, Pack, Tree, of_tar_with_root, to_tar};
use metadata::CacheMount;
use model::cache_key;
use tokio::sync::mpsc;

use super::{App, Failure, Outcome};

/// The one folder of a cache's tree, as workers lay it out.
const ROOT: &str = "root";
/// Others may store at the same time.
const TRIES: usize = 5;
const BUFFER_BYTES: usize = 256 << 10;

impl App {
    /// The tar of a cache; its blobs are kept while it is read.
    ///
    /// # Errors
    /// As [`App::find_cache`]. What fails later ends the tar with an error.
    pub async fn export_cache_mount(&self, name: &str) -> Outcome<mpsc::Receiver<io::Result<Bytes>>> {
        let lease = self.lease("cache-export").await?;
        let mount = self.find_cache(name).await?;
        if !self.pin(&lease.id, mount.blobs().map(|blob| blob.to_string()).collect()).await?.is_empty() {
            let text = format!("another content of cache {name} is stored meanwhile: try again");
            return Err(Failure::not_found(text));
        }
        let digest = mount.tree.parse().map_err(|_| Failure::invalid("a cache without a digest"))?;
        let bytes = self.store.get_bytes(&digest, Tree::MAX_BYTES).await?;
        let tree = Tree::decode(&bytes).map_err(|error| Failure::new(error.kind(), error.to_string()))?;
        let (sender, receiver) = mpsc::channel(4);
        let (store, runtime) = (self.store.clone(), tokio::runtime::Handle::current());
        tokio::task::spawn_blocking(move || {
            let _kept = lease;
            let open = |pack: &Pack, offset: u64, size: u64| {
                let read = runtime.block_on(store.range_to_reader(&pack.digest, offset, size));
                read.map_err(io::Error::other)
            };
            let out = io::BufWriter::with_capacity(BUFFER_BYTES, Sending(sender.clone()));
            if let Err(error) = to_tar(&tree, ROOT, open, out) {
                // A client that is gone has its own error.
                let _ = sender.blocking_send(Err(error));
            }
        });
        Ok(receiver)
    }

    /// Makes a tar that lies in the layer store, under a lease, the content of a cache. `sharing` counts where there is no
    /// such cache yet.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no tar, for paths that lead out of it, and for an id or sharing that is none.
    pub async fn import_cache_mount(
        &self,
        (id, sharing): (&str, &str),
        tar: proto::Descriptor,
        lease: &str,
    ) -> Outcome<CacheMount> {
        if id.is_empty() {
            return Err(Failure::invalid("a cache needs an id"));
        }
        if !matches!(sharing, "shared" | "private" | "locked") {
            return Err(Failure::invalid(format!("unsupported sharing mode: {sharing:?}")));
        }
        let digest: model::Digest = tar.digest.parse().map_err(|_| Failure::invalid("a tar without a digest"))?;
        let reader = self.store.get_to_reader(&digest).await?;
        let pack = Pack { digest, size: tar.size };
        let read = tokio::task::spawn_blocking(move || of_tar_with_root(reader, pack)).await;
        let read = read.map_err(|error| Failure::new(model::ErrorKind::Internal, error.to_string()))?;
        let wrong = |error: contexts::Error| Failure::invalid(format!("the archive cannot be imported: {error}"));
        let tree = under_root(read.map_err(wrong)?);
        let bytes = tree.encode();
        let tree_digest = self.store.put_bytes(&bytes, Some(lease)).await?;
        let mount = CacheMount {
            key: cache_key(id, sharing),
            id: id.to_owned(),
            sharing: sharing.to_owned(),
            tree: tree_digest.to_string(),
            tree_bytes: bytes.len() as u64,
            packs: tree.packs.iter().map(|pack| (pack.digest.to_string(), pack.size)).collect(),
            files: tree.files(),
            bytes: tree.bytes(),
            description: format!("imported cache {id}"),
            ..CacheMount::default()
        };
        for _ in 0..TRIES {
            let (mut mount, mut replaces) = (mount.clone(), 0);
            if let Some(before) = self.db.cache_mount(&mount.key).await? {
                (mount.sharing, replaces) = (before.sharing, before.version.cast_unsigned());
            }
            if let Ok(stored) = self.store_cache_mount(mount, replaces).await? {
                return Ok(stored);
            }
        }
        Err(Failure::conflict(format!("steps store cache {id} all the time")))
    }
}

/// All of it in the one folder that a cache's tree has.
fn under_root((tree, root): (Tree, Option<contexts::Entry>)) -> Tree {
    let name = |path: &str| if path.is_empty() { ROOT.to_owned() } else { format!("{ROOT}/{path}") };
    let root = root.unwrap_or_else(|| contexts::Entry::folder(String::new()));
    let entries = std::iter::once(root).chain(tree.entries).map(|mut entry| {
        entry.path = name(&entry.path);
        if let Kind::File { hard_link: Some(first), .. } = &mut entry.kind {
            *first = name(first);
        }
        entry
    });
    let has_content = |entry: &contexts::Entry| matches!(&entry.kind, Kind::File { content, .. } if content.size > 0);
    let entries: Vec<contexts::Entry> = entries.collect();
    // A tar of nothing need not be kept.
    let packs = if entries.iter().any(has_content) { tree.packs } else { Vec::new() };
    Tree { packs, entries }
}

/// A blocking writer into an answer's body.
struct Sending(mpsc::Sender<io::Result<Bytes>>);

impl Write for Sending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
