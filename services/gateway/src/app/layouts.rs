//! Images in OCI layouts of a build's client (`--build-context NAME=oci-layout://…`).

use bus::calls;

use super::images::MAX_CONFIG_BYTES;
use super::{App, Failure, Outcome};

const SCHEME: &str = "oci-layout://";
/// What a client's session calls a layout's store: after its kind, as a local cache's is `local:…`.
const STORE: &str = "oci:";

impl App {
    /// An image of a layout that the build was given; its layers are in the layer store then, under the lease. It gets no
    /// record, since nobody but the build knows it.
    ///
    /// # Errors
    /// `Conflict` when the build has another holder; `Denied` for a layout that it was not given, and for another worker;
    /// `NotFound` for content that is not there.
    pub async fn resolve_layout(&self, user: &str, request: proto::LayoutResolve) -> Outcome<proto::Image> {
        let build = self.held_by(user, &request.build_id, request.attempt).await?;
        let options = self.options_of(&build).await?;
        if !options.contexts.iter().any(|context| context.source == request.source) {
            let text = format!("the build was not given the context {}", request.source);
            return Err(Failure::new(model::ErrorKind::Denied, text));
        }
        let (store, digest) = parts(&request.source)?;
        let pull = proto::Pull {
            digest: digest.to_owned(),
            platform: request.platform,
            lease: request.lease,
            content: Some(content_of(&options, &format!("{STORE}{store}"))?),
            ..proto::Pull::default()
        };
        let reply = self.ask_sync::<calls::SyncPull>(&pull, None).await?;
        let id = reply.id.parse().map_err(|_| Failure::invalid("an image without an id"))?;
        let config = self.store.get_bytes(&id, MAX_CONFIG_BYTES).await?;
        Ok(proto::Image { id: reply.id, config, layers: reply.layers, ..proto::Image::default() })
    }
}

/// A store of the build's client, for a registry-sync.
///
/// # Errors
/// `InvalidArgument` for a build without a session.
pub fn content_of(options: &proto::BuildOptions, store: &str) -> Outcome<proto::ClientContent> {
    if options.session_id.is_empty() {
        return Err(Failure::invalid("content of the client requires session"));
    }
    Ok(proto::ClientContent {
        gateway: options.session_gateway.clone(),
        session_id: options.session_id.clone(),
        store: store.to_owned(),
    })
}

/// The client's name of the layout, and the digest of what is meant there.
fn parts(source: &str) -> Outcome<(&str, &str)> {
    let wrong = || Failure::invalid(format!("could not parse oci-layout reference {source:?}"));
    let (place, digest) = source.strip_prefix(SCHEME).and_then(|rest| rest.rsplit_once('@')).ok_or_else(wrong)?;
    // A tag before the digest says nothing more.
    let store = place.split_once(':').map_or(place, |(store, _)| store);
    match store.is_empty() || digest.parse::<model::Digest>().is_err() {
        true => Err(wrong()),
        false => Ok((store, digest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_named_by_store_and_digest() {
        let digest = model::Digest::of(b"x").to_string();
        for (source, store) in [
            (format!("oci-layout://abc@{digest}"), Some("abc")),
            (format!("oci-layout://abc:v1@{digest}"), Some("abc")),
            (format!("oci-layout://@{digest}"), None),
            ("oci-layout://abc:v1".to_owned(), None),
            ("oci-layout://abc@sha256:1".to_owned(), None),
            (format!("abc@{digest}"), None),
        ] {
            assert_eq!(parts(&source).ok().map(|(store, _)| store), store, "{source}");
        }
    }
}
