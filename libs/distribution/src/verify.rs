use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use model::Digest;
use sha2::{Digest as _, Sha256};

use crate::Error;

/// Passes `bytes` on and ends in an error when they are not what `wanted` says.
pub(crate) fn verified(
    bytes: impl Stream<Item = Result<Bytes, reqwest::Error>> + Send + Unpin + 'static,
    wanted: Digest,
) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
    let state = Some((bytes, Sha256::new(), wanted));
    futures::stream::unfold(state, |state| async move {
        let (mut bytes, mut hasher, wanted) = state?;
        match bytes.next().await {
            Some(Ok(chunk)) => {
                hasher.update(&chunk);
                Some((Ok(chunk), Some((bytes, hasher, wanted))))
            }
            Some(Err(error)) => Some((Err(Error::Unreachable(error)), None)),
            None => {
                let got = Digest::from_sha256(&hasher.finalize().into());
                (got != wanted).then_some((Err(Error::WrongDigest { wanted, got }), None))
            }
        }
    })
}
