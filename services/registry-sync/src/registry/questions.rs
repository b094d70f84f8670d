use distribution::registry::{Access, Reference, Repository};
use futures::FutureExt as _;
use oci::{ImageConfig, Index, Manifest, media_type};

use super::pull::MAX_CONFIG_BYTES;
use super::{Remote, credentials, named, reference, shown, words};
use crate::error::Error;

/// Docker Hub's own name for itself in logins.
const HUB_LOGIN: &str = "index.docker.io";

/// All tags of a repository.
pub async fn tags(remote: &Remote, request: proto::RegistryTags) -> Result<proto::RegistryTagsReply, Error> {
    let name = named(&request.name)?;
    let work = |repository: Repository| async move { Ok(repository.tags().await?) }.boxed();
    let tags = remote.at(&name, credentials(request.auth), Access::Pull, work).await;
    Ok(proto::RegistryTagsReply { tags: tags.map_err(|error| words::of_pull(error, &name))? })
}

/// Whether a registry takes these credentials.
pub async fn login(remote: &Remote, request: proto::RegistryLogin) -> Result<proto::RegistryLoginReply, Error> {
    let identity_token = remote.registries.login(&host_of(&request.address), &credentials(request.auth)).await?;
    Ok(proto::RegistryLoginReply { identity_token })
}

/// What a name points to, and for which platforms.
pub async fn inspect(remote: &Remote, request: proto::RegistryInspect) -> Result<proto::RegistryInspectReply, Error> {
    let name = named(&request.name)?;
    let reference = reference(&request.tag, &request.digest)?;
    let shown = shown(&name, &reference)?;
    let work = |repository: Repository| {
        let reference = &reference;
        async move { look(&repository, reference).await }.boxed()
    };
    let reply = remote.at(&name, credentials(request.auth), Access::Pull, work).await;
    reply.map_err(|error| words::of_pull(error, &shown))
}

async fn look(repository: &Repository, reference: &Reference) -> Result<proto::RegistryInspectReply, Error> {
    let fetched = repository.manifest(reference).await?;
    let platform = |os: &str, architecture: &str, variant: Option<&str>| {
        let variant = variant.filter(|variant| !variant.is_empty());
        format!("{os}/{architecture}{}", variant.map(|variant| format!("/{variant}")).unwrap_or_default())
    };
    let platforms = if media_type::is_index(&fetched.media_type) {
        let index = Index::parse(&fetched.bytes)?;
        let known = index.manifests.iter().filter_map(|entry| entry.platform.as_ref());
        known.map(|p| platform(&p.os, &p.architecture, p.variant.as_deref())).collect()
    } else if media_type::is_manifest(&fetched.media_type) {
        let config = Manifest::parse(&fetched.bytes)?.config;
        let bytes = repository.blob_bytes(&config.digest, config.size, MAX_CONFIG_BYTES).await?;
        let config = ImageConfig::parse(&bytes)?;
        vec![platform(&config.os, &config.architecture, Some(&config.variant))]
    } else {
        Vec::new()
    };
    let descriptor = proto::Descriptor {
        media_type: fetched.media_type,
        digest: fetched.digest.to_string(),
        size: fetched.bytes.len() as u64,
    };
    Ok(proto::RegistryInspectReply { descriptor: Some(descriptor), platforms })
}

/// Repositories whose name has the term.
pub async fn search(remote: &Remote, request: proto::RegistrySearch) -> Result<proto::RegistrySearchReply, Error> {
    let found = remote.registries.search(&request.term, request.limit as usize, credentials(request.auth)).await?;
    let result = |found: distribution::registry::Found| proto::SearchResult {
        name: found.name,
        description: found.description,
        stars: found.stars,
        official: found.official,
        automated: found.automated,
    };
    Ok(proto::RegistrySearchReply { results: found.into_iter().map(result).collect() })
}

/// The registry's host in an address of a login: `https://index.docker.io/v1/` is docker.io.
fn host_of(address: &str) -> String {
    match model::registry_host(address) {
        "" | HUB_LOGIN | "registry-1.docker.io" => "docker.io".to_owned(),
        host => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_name_hosts_in_many_ways() {
        for (address, host) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("", "docker.io"),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
            ("https://registry.example/v2/", "registry.example"),
            ("http://localhost:1/", "localhost:1"),
        ] {
            assert_eq!(host_of(address), host, "{address}");
        }
    }
}
