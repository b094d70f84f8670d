use serde::Deserialize;
use url::Url;

use super::endpoints::Endpoint;
use super::repository::{read_answer, read_bounded};
use super::{Access, Credentials, Error, Registries};

/// Docker Hub's search, which is no part of the distribution-spec.
const HUB_SEARCH: &str = "https://index.docker.io/v1/search";
const MAX_BYTES: u64 = 4 << 20;

/// One hit of a search.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Found {
    /// Familiar name, `busybox` or `127.0.0.1:5000/app`.
    pub name: String,
    #[serde(default)]
    pub description: String,
    #[serde(default, rename = "star_count")]
    pub stars: u32,
    #[serde(default, rename = "is_official")]
    pub official: bool,
    #[serde(default, rename = "is_automated")]
    pub automated: bool,
}

impl Registries {
    /// Searches the registry that `term` begins with (`host:port/word`), else the first mirror, else Docker Hub. A
    /// registry of the distribution-spec has no search: its catalog is looked through.
    pub async fn search(&self, term: &str, limit: usize, credentials: Credentials) -> Result<Vec<Found>, Error> {
        let named = term.split_once('/').filter(|(host, _)| host.contains(['.', ':']) || *host == "localhost");
        match named {
            Some((host, word)) => {
                let names = self.catalog_of(host, false, credentials).await?;
                Ok(hits(names, word, limit, |name| format!("{host}/{name}")))
            }
            None if self.has_mirrors() => {
                let names = self.catalog_of("docker.io", true, Credentials::default()).await?;
                Ok(hits(names, term, limit, |name| name.strip_prefix("library/").unwrap_or(name).to_owned()))
            }
            None => self.search_hub(term, limit).await,
        }
    }

    async fn catalog_of(&self, host: &str, mirrors: bool, credentials: Credentials) -> Result<Vec<String>, Error> {
        let list = |endpoint| {
            let credentials = credentials.clone();
            async move { self.connect(endpoint, "", credentials, Access::Catalog).await?.catalog().await }
        };
        self.at_first(host, mirrors, list).await
    }

    async fn search_hub(&self, term: &str, limit: usize) -> Result<Vec<Found>, Error> {
        #[derive(Deserialize)]
        struct Answer {
            results: Vec<Found>,
        }
        let mut url = Url::parse(HUB_SEARCH).expect("a constant");
        url.query_pairs_mut().append_pair("q", term).append_pair("n", &limit.to_string());
        let client = self.client(&Endpoint { base: url.clone(), is_mirror: false, verifies: true })?;
        let response = read_answer("GET", &url, client.get(url.clone()).send()).await?;
        let bytes = read_bounded(response, "GET", &url, MAX_BYTES).await?;
        let answer: Answer = serde_json::from_slice(&bytes)
            .map_err(|error| Error::Lie(format!("the answer to a search makes no sense: {error}")))?;
        Ok(answer.results.into_iter().take(limit).collect())
    }
}

fn hits(names: Vec<String>, word: &str, limit: usize, shown: impl Fn(&str) -> String) -> Vec<Found> {
    let matching = names.iter().filter(|name| name.contains(word));
    matching.take(limit).map(|name| Found { name: shown(name), ..Found::default() }).collect()
}
