use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::Digest;
use tempfile::NamedTempFile;

use crate::leases::Leases;
use crate::upload::{Upload, blocking};
use crate::{Error, space};

/// The blobs of one folder. Cheap to clone; one process owns the folder.
#[derive(Clone)]
pub struct Blobs {
    shared: Arc<Shared>,
}

struct Shared {
    root: PathBuf,
    free_floor_bytes: u64,
    keeping: Mutex<Keeping>,
}

/// What decides whether a blob may go; also held while a blob is put in place or removed.
struct Keeping {
    leases: Leases,
    /// Marked for removal, and neither pinned nor written since.
    marked: HashSet<Digest>,
}

/// Blobs that nobody held when they were marked; handed back to [`Blobs::remove`].
#[derive(Debug)]
pub struct Marked(Vec<Digest>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub blob_count: u64,
    pub blob_bytes: u64,
    pub free_bytes: u64,
}

impl Marked {
    pub fn digests(&self) -> &[Digest] {
        &self.0
    }
}

impl Blobs {
    /// Opens the folder, creates what is missing, and forgets uploads that a former process left.
    pub fn open(root: &Path, free_floor_bytes: u64) -> Result<Self, Error> {
        let uploads = root.join("uploads");
        match fs::remove_dir_all(&uploads) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("emptying the folder of uploads")(error));
            }
            _ => {}
        }
        for folder in [&uploads, &root.join("blobs")] {
            fs::create_dir_all(folder).map_err(Error::io("creating the store's folders"))?;
        }
        let keeping = Keeping { leases: Leases::open(root.join("leases"))?, marked: HashSet::new() };
        let shared = Shared { root: root.to_owned(), free_floor_bytes, keeping: Mutex::new(keeping) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Size in bytes, none when the blob is not here.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        match fs::metadata(self.path(digest)) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("looking for a blob")(error)),
        }
    }

    /// The open file and its size in bytes; it stays readable when the blob is removed meanwhile.
    pub fn read(&self, digest: &Digest) -> Result<(File, u64), Error> {
        let file = File::open(self.path(digest)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NotFound(digest.clone()),
            _ => Error::io("opening a blob")(error),
        })?;
        let size = file.metadata().map_err(Error::io("looking at a blob"))?.len();
        Ok((file, size))
    }

    /// Starts to write a blob; `expected_bytes` is refused at once where the disk cannot take it.
    pub async fn upload(&self, expected_bytes: Option<u64>) -> Result<Upload, Error> {
        let blobs = self.clone();
        let file = blocking(move || {
            let shared = &blobs.shared;
            space::ensure_free(&shared.root, shared.free_floor_bytes, expected_bytes.unwrap_or(0))?;
            NamedTempFile::new_in(shared.root.join("uploads")).map_err(Error::io("creating an upload"))
        })
        .await?;
        Ok(Upload::new(self.clone(), file))
    }

    /// A new lease of `ttl`; its id is what [`Blobs::pin`] takes.
    pub fn lease(&self, owner: &str, ttl: Duration) -> Result<String, Error> {
        let mut keeping = self.keeping();
        keeping.leases.sweep();
        keeping.leases.create(owner, ttl)
    }

    /// The lease now ends in `ttl`. `NoLease` when it is over already.
    pub fn renew(&self, lease: &str, ttl: Duration) -> Result<(), Error> {
        self.keeping().leases.renew(lease, ttl)
    }

    /// Lets go of all that the lease pinned; may be repeated.
    pub fn end(&self, lease: &str) {
        self.keeping().leases.end(lease);
    }

    /// Blobs that were pinned by leases which have ended or run out since the last call, or that were let go: some may
    /// be nobody's now.
    pub fn take_released(&self) -> Vec<Digest> {
        self.keeping().leases.take_released()
    }

    /// All that leases pin.
    pub fn pinned(&self) -> HashSet<Digest> {
        self.keeping().leases.pinned()
    }

    /// Owners of the leases that pin a blob, and when those end, in milliseconds since 1970; in the order of their names.
    pub fn lease_holders(&self, digest: &Digest) -> Vec<(String, u64)> {
        self.keeping().leases.holders(digest)
    }

    /// Every blob. Walks the folder.
    pub fn digests(&self) -> Result<Vec<Digest>, Error> {
        let doing = "listing the blobs";
        let mut digests = Vec::new();
        for shard in fs::read_dir(self.shared.root.join("blobs")).map_err(Error::io(doing))? {
            for blob in fs::read_dir(shard.map_err(Error::io(doing))?.path()).map_err(Error::io(doing))? {
                let name = blob.map_err(Error::io(doing))?.file_name();
                digests.extend(format!("sha256:{}", name.to_string_lossy()).parse::<Digest>());
            }
        }
        Ok(digests)
    }

    /// Keeps the blob, which need not be here yet, while the lease lasts. Pin first, then look whether it is here.
    pub fn pin(&self, lease: &str, digest: &Digest) -> Result<(), Error> {
        let mut keeping = self.keeping();
        keeping.leases.pin(lease, digest)?;
        keeping.marked.remove(digest);
        Ok(())
    }

    /// Takes a mark away from a blob that somebody names from now on, and says whether the blob is still here. The name
    /// must be where the removal's `may_go` sees it before this is asked; then the blob stays.
    pub fn keep(&self, digest: &Digest) -> Result<bool, Error> {
        let mut keeping = self.keeping();
        keeping.marked.remove(digest);
        Ok(self.size(digest)?.is_some())
    }

    /// Nobody may want these any more: they are told by [`Blobs::take_released`].
    pub fn let_go(&self, digests: impl IntoIterator<Item = Digest>) {
        self.keeping().leases.let_go(digests);
    }

    /// First half of a removal: those of `digests` that no lease holds. The caller then asks whoever else may name
    /// them, and hands back what nobody named; a pin or a write in between takes the mark away.
    pub fn mark(&self, digests: &[Digest]) -> Marked {
        let mut keeping = self.keeping();
        keeping.leases.sweep();
        let free: Vec<Digest> = digests.iter().filter(|digest| !keeping.leases.is_pinned(digest)).cloned().collect();
        keeping.marked.extend(free.iter().cloned());
        Marked(free)
    }

    /// Second half of a removal: unlinks what `may_go` allows and what is still marked.
    /// Says what it removed, with its size in bytes.
    pub fn remove(&self, marked: Marked, may_go: impl Fn(&Digest) -> bool) -> Result<Vec<(Digest, u64)>, Error> {
        let mut removed = Vec::new();
        for digest in marked.0 {
            let mut keeping = self.keeping();
            if !keeping.marked.remove(&digest) || keeping.leases.is_pinned(&digest) || !may_go(&digest) {
                continue;
            }
            let Some(size) = self.size(&digest)? else { continue };
            fs::remove_file(self.path(&digest)).map_err(Error::io("removing a blob"))?;
            removed.push((digest, size));
        }
        Ok(removed)
    }

    /// Walks the folder; for `system df` and the like, not for each request.
    pub fn usage(&self) -> Result<Usage, Error> {
        let mut usage = Usage { blob_count: 0, blob_bytes: 0, free_bytes: space::free_bytes(&self.shared.root)? };
        let doing = "counting the blobs";
        for shard in fs::read_dir(self.shared.root.join("blobs")).map_err(Error::io(doing))? {
            for blob in fs::read_dir(shard.map_err(Error::io(doing))?.path()).map_err(Error::io(doing))? {
                // A blob that goes away meanwhile does not count.
                let Ok(metadata) = blob.and_then(|blob| blob.metadata()) else { continue };
                usage.blob_count += 1;
                usage.blob_bytes += metadata.len();
            }
        }
        Ok(usage)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.shared.root
    }

    pub(crate) fn free_floor_bytes(&self) -> u64 {
        self.shared.free_floor_bytes
    }

    /// Puts a complete file in place under the digest that was computed from it.
    pub(crate) fn place(&self, file: NamedTempFile, digest: &Digest, lease: Option<&str>) -> Result<(), Error> {
        let path = self.path(digest);
        let shard = path.parent().unwrap_or(&self.shared.root);
        fs::create_dir_all(shard).map_err(Error::io("creating a folder of blobs"))?;
        file.as_file().sync_data().map_err(Error::io("syncing a blob"))?;
        {
            let mut keeping = self.keeping();
            if let Some(lease) = lease {
                keeping.leases.pin(lease, digest)?;
            }
            keeping.marked.remove(digest);
            if path.exists() {
                return Ok(());
            }
            file.persist(&path).map_err(|e| Error::io("storing a blob")(e.error))?;
        }
        File::open(shard).and_then(|folder| folder.sync_all()).map_err(Error::io("syncing a folder of blobs"))
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.shared.root.join("blobs").join(&digest.hex()[..2]).join(digest.hex())
    }

    fn keeping(&self) -> MutexGuard<'_, Keeping> {
        self.shared.keeping.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
