//! What registries are asked besides pulls and pushes: logging in, looking at an image, searching.

use std::collections::HashMap;

use bus::{Call, Target, calls};
use model::{ErrorKind, INDEX_SERVER, ImageRef, Platform, registry_host};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::filters::Filters;
use super::{App, Failure, Outcome};

const HUB: &str = "docker.io";
const MAX_RESULTS: i64 = 100;
/// So many registry-syncs may be lost with one call.
const ATTEMPTS: u32 = 5;

/// A user's credentials.
#[derive(Default)]
pub struct Credentials {
    /// By the address that each registry was logged in to under.
    pub by_address: HashMap<String, proto::RegistryAuth>,
    /// The session whose client is asked for those that are not here.
    pub session: Option<String>,
}

impl Credentials {
    /// Those for a registry: under its own name first, then under an address of it.
    pub fn of(&self, domain: &str) -> Option<proto::RegistryAuth> {
        let key = if domain == HUB { INDEX_SERVER } else { domain };
        let by_host = || {
            self.by_address
                .iter()
                .find(|(address, _)| registry_host(address) == registry_host(key))
                .map(|(_, auth)| auth)
        };
        self.by_address.get(key).or_else(by_host).cloned()
    }
}

impl App {
    /// A call to a registry-sync, which may tell how far it is; one that is lost is replaced by another, which goes on
    /// with what is stored.
    pub async fn ask_sync<C: Call>(
        &self,
        request: &C::Request,
        progress: Option<mpsc::Sender<proto::Progress>>,
    ) -> Outcome<C::Reply> {
        let mut attempt = 1;
        loop {
            match self.bus.call_while_wanted::<C>(&Target::Sync, request, progress.clone()).await {
                Err(error) if error.is_lost() && attempt < ATTEMPTS => {
                    tracing::warn!(%error, call = C::NAME, attempt, "another registry-sync is asked");
                    attempt += 1;
                }
                done => return Ok(done?),
            }
        }
    }

    /// POST /auth. The reply's token, if there is one, stands for the password from then on.
    pub async fn login(&self, address: &str, auth: proto::RegistryAuth) -> Outcome<Value> {
        let address = if address.is_empty() { INDEX_SERVER } else { address }.to_owned();
        let request = proto::RegistryLogin { address, auth: Some(auth) };
        let reply = self.ask_sync::<calls::RegistryLogin>(&request, None).await.map_err(unreachable)?;
        Ok(json!({"IdentityToken": reply.identity_token, "Status": "Login Succeeded"}))
    }

    /// GET /distribution/{name}/json.
    pub async fn inspect_in_registry(&self, name: &str, auth: Option<proto::RegistryAuth>) -> Outcome<Value> {
        if model::is_hex_id(name.strip_prefix("sha256:").unwrap_or(name)) {
            return Err(Failure::new(ErrorKind::Internal, "no manifest found for full image ID"));
        }
        let name = name.parse::<ImageRef>()?.or_latest();
        let digest = name.digest().map(ToString::to_string);
        let request = proto::RegistryInspect {
            name: name.full_name(),
            tag: if digest.is_some() { String::new() } else { name.tag().unwrap_or_default().to_owned() },
            digest: digest.unwrap_or_default(),
            auth,
        };
        let reply = self.ask_sync::<calls::RegistryInspect>(&request, None).await.map_err(unreachable).map_err(bare)?;
        let found = reply.descriptor.unwrap_or_default();
        let platforms = reply.platforms.iter().map(|text| platform(text)).collect::<Vec<_>>();
        Ok(json!({
            "Descriptor": {"mediaType": found.media_type, "digest": found.digest, "size": found.size},
            "Platforms": platforms
        }))
    }

    /// GET /images/search.
    pub async fn search(
        &self,
        term: &str,
        limit: i64,
        filters: &Filters,
        auth: Option<proto::RegistryAuth>,
    ) -> Outcome<Value> {
        let official = filters.flag("is-official")?;
        let automated = filters.flag("is-automated")?;
        let stars = match filters.values("stars").map(str::parse::<u32>).collect::<Result<Vec<_>, _>>() {
            Ok(stars) => stars.into_iter().max().unwrap_or(0),
            Err(_) => {
                let given: Vec<&str> = filters.values("stars").collect();
                return Err(Failure::invalid(format!("invalid filter 'stars=[{}]'", given.join(" "))));
            }
        };
        if !(1..=MAX_RESULTS).contains(&limit) {
            return Err(Failure::invalid(format!("limit {limit} is outside the range of [1, {MAX_RESULTS}]")));
        }
        let limit = u32::try_from(limit).unwrap_or_default();
        let request = proto::RegistrySearch { term: term.to_owned(), limit, auth };
        let found = self.ask_sync::<calls::RegistrySearch>(&request, None).await.map_err(unreachable)?.results;
        let kept = found.into_iter().filter(|row| {
            row.stars >= stars
                && official.is_none_or(|wanted| wanted == row.official)
                && automated.is_none_or(|wanted| wanted == row.automated)
        });
        let rows = kept.map(|row| {
            json!({
                "star_count": row.stars, "is_official": row.official, "name": row.name,
                "is_automated": row.automated, "description": row.description
            })
        });
        Ok(rows.collect())
    }
}

/// A registry that is not there is no sign that this engine isn't.
fn unreachable(failure: Failure) -> Failure {
    match failure.kind {
        ErrorKind::Unavailable | ErrorKind::Timeout => Failure { kind: ErrorKind::Internal, ..failure },
        _ => failure,
    }
}

/// `linux/arm/v7` as the API shows it.
fn platform(text: &str) -> Value {
    let Ok(read) = text.parse::<Platform>() else {
        let (os, architecture) = text.split_once('/').unwrap_or((text, ""));
        return json!({"architecture": architecture, "os": os});
    };
    let mut shown = json!({"architecture": read.architecture, "os": read.os});
    if !read.variant.is_empty() {
        shown["variant"] = read.variant.into();
    }
    shown
}

/// What the registry said of a manifest that it lacks; pulls name the manifest before.
fn bare(failure: Failure) -> Failure {
    match failure.message.split_once(" not found: ") {
        Some((name, said)) if name.starts_with("manifest for ") => Failure::new(failure.kind, said),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_to_their_own_registry() {
        let login = |user: &str| proto::RegistryAuth { username: user.to_owned(), ..Default::default() };
        let by_address = HashMap::from([
            (INDEX_SERVER.to_owned(), login("hub")),
            ("https://box.example:5000/v2/".to_owned(), login("box")),
            ("127.0.0.1:5000".to_owned(), login("own")),
        ]);
        let credentials = Credentials { by_address, session: None };
        for (domain, user) in [
            ("docker.io", Some("hub")),
            ("box.example:5000", Some("box")),
            ("127.0.0.1:5000", Some("own")),
            ("127.0.0.1:5001", None),
            ("box.example", None),
        ] {
            assert_eq!(credentials.of(domain).map(|auth| auth.username).as_deref(), user, "{domain}");
        }
    }

    #[test]
    fn platforms_are_shown_in_parts() {
        for (text, wanted) in [
            ("linux/amd64", json!({"architecture": "amd64", "os": "linux"})),
            ("linux/arm/v7", json!({"architecture": "arm", "os": "linux", "variant": "v7"})),
            ("plan9/x", json!({"architecture": "x", "os": "plan9"})),
        ] {
            assert_eq!(platform(text), wanted);
        }
    }
}
