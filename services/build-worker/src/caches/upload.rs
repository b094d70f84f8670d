//! Contents of a cache's files on their way into the layer store: small ones together in packs, a large one by itself.

use std::collections::HashSet;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use contexts::{Content, Pack, Sha256Digest};
use distribution::Store;
use model::Digest;
use sha2::{Digest as _, Sha256};

use super::files::{Files, Places};
use crate::context::trees::change::Names;
use crate::failure::{Doing as _, Failure};
use crate::layers::blocking;

/// A larger file is a pack of its own.
const LARGE_BYTES: u64 = 8 << 20;
const PACK_BYTES: u64 = 16 << 20;

type Wanted = (String, Content);

/// Stores the contents of `files` that have no place yet, as `here` in the folder has them, and gives them one. Says how
/// many bytes were sent.
///
/// # Errors
/// Also where a file is another than when it was looked at.
pub async fn upload(
    (store, lease): (&Store, &str),
    (folder, here): (&Path, &Files),
    files: &Files,
    places: &mut Places,
) -> Result<u64, Failure> {
    let missing: HashSet<Sha256Digest> =
        files.contents().map(|(_, content)| content.sha256).filter(|sha256| !places.contains_key(sha256)).collect();
    let wanted = here.contents().filter(|(_, content)| missing.contains(&content.sha256));
    let wanted = wanted.map(|(path, content)| (path.to_owned(), content.clone()));
    let (large, small): (Vec<Wanted>, Vec<Wanted>) = wanted.partition(|(_, content)| content.size > LARGE_BYTES);
    let mut sent = 0;
    for (path, content) in large {
        let pack = Pack { digest: Digest::from_sha256(&content.sha256), size: content.size };
        if store.has(&pack.digest, Some(lease)).await.map_err(Failure::caused)? != Some(pack.size) {
            let file = open(folder.to_owned(), path).await?;
            let body = reqwest::Body::wrap_stream(tokio_util::io::ReaderStream::with_capacity(
                tokio::io::AsyncReadExt::take(file, pack.size),
                256 << 10,
            ));
            store.put(&pack.digest, pack.size, body, Some(lease)).await.map_err(Failure::caused)?;
            sent += pack.size;
        }
        places.insert(content.sha256, (pack, 0));
    }
    for batch in batches(small) {
        let (folder, list) = (folder.to_owned(), batch.clone());
        let bytes = blocking(move || read(&folder, &list).doing(|| "reading a cache".to_owned())).await?;
        let size = bytes.len() as u64;
        let pack = Pack { digest: store.put_bytes(&bytes, Some(lease)).await.map_err(Failure::caused)?, size };
        sent += size;
        let mut offset = 0;
        for (_, content) in batch {
            places.insert(content.sha256, (pack.clone(), offset));
            offset += content.size;
        }
    }
    Ok(sent)
}

async fn open(folder: PathBuf, path: String) -> Result<tokio::fs::File, Failure> {
    let file = blocking(move || {
        let opened = Names::open(&folder).and_then(|mut names| names.place(&path)?.read());
        opened.doing(|| "reading a cache".to_owned())
    });
    Ok(tokio::fs::File::from_std(file.await?))
}

/// In the order of their paths, so that what is wanted together lies together.
fn batches(small: Vec<Wanted>) -> Vec<Vec<Wanted>> {
    let (mut batches, mut bytes) = (Vec::<Vec<Wanted>>::new(), 0);
    for wanted in small {
        match batches.last_mut().filter(|_| bytes + wanted.1.size <= PACK_BYTES) {
            Some(batch) => {
                bytes += wanted.1.size;
                batch.push(wanted);
            }
            None => {
                bytes = wanted.1.size;
                batches.push(vec![wanted]);
            }
        }
    }
    batches
}

fn read(folder: &Path, batch: &[Wanted]) -> io::Result<Vec<u8>> {
    let mut names = Names::open(folder)?;
    let mut pack = Vec::new();
    for (path, content) in batch {
        let from = pack.len();
        names.place(path)?.read()?.take(content.size).read_to_end(&mut pack)?;
        if Sha256::digest(&pack[from..])[..] != content.sha256 {
            return Err(io::Error::other("a file of the cache changed meanwhile"));
        }
    }
    Ok(pack)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_holds_what_fits() {
        let wanted = |size| (String::new(), Content { sha256: [0; 32], size, pack: None, offset: 0 });
        let sizes: Vec<Vec<u64>> = batches([1, PACK_BYTES - 1, 1, PACK_BYTES, 2, 3].map(wanted).to_vec())
            .into_iter()
            .map(|batch| batch.into_iter().map(|(_, content)| content.size).collect())
            .collect();
        assert_eq!(sizes, [vec![1, PACK_BYTES - 1], vec![1], vec![PACK_BYTES], vec![2, 3]]);
    }
}
