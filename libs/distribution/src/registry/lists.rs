use http::Method;
use reqwest::Response;
use serde::Deserialize;
use url::Url;

use super::repository::{Call, read_bounded};
use super::retry::retried;
use super::{Error, Repository};

const MAX_PAGE_BYTES: u64 = 4 << 20;
/// Pages that lead to pages for ever.
const MAX_PAGES: usize = 10_000;
/// Nobody reads more; a registry whose list does not end must not fill the memory.
const MAX_BYTES: usize = 64 << 20;

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    repositories: Option<Vec<String>>,
}

impl Repository {
    /// All tags, in the registry's order.
    pub async fn tags(&self) -> Result<Vec<String>, Error> {
        self.pages(self.url("tags/list"), |page| page.tags).await
    }

    /// Names of all repositories of the registry, without its host.
    pub async fn catalog(&self) -> Result<Vec<String>, Error> {
        self.pages(self.base("v2/_catalog"), |page| page.repositories).await
    }

    /// Follows `Link: <…>; rel="next"` (distribution-spec, Listing Tags).
    async fn pages(&self, first: Url, names: fn(Page) -> Option<Vec<String>>) -> Result<Vec<String>, Error> {
        let (mut all, mut bytes) = (Vec::new(), 0);
        let mut next = Some(first);
        for _ in 0..MAX_PAGES {
            let Some(url) = next else { return Ok(all) };
            let call = Call::new(Method::GET, url);
            let (page, link) = retried(|| async {
                let response = self.ask(&call).await?;
                let link = link(&call.url, &response);
                Ok((read_bounded(response, "GET", &call.url, MAX_PAGE_BYTES).await?, link))
            })
            .await?;
            bytes += page.len();
            if bytes > MAX_BYTES {
                return Err(Error::TooLarge { what: "the registry's list".to_owned(), max_bytes: MAX_BYTES as u64 });
            }
            let page = serde_json::from_slice(&page)
                .map_err(|error| Error::Lie(format!("the registry's list makes no sense: {error}")))?;
            all.extend(names(page).unwrap_or_default());
            next = link.filter(|link| *link != call.url);
        }
        Err(Error::Lie("the registry's list does not end".to_owned()))
    }
}

/// The next page, which must be of the same registry.
fn link(asked: &Url, response: &Response) -> Option<Url> {
    let header = response.headers().get(http::header::LINK)?.to_str().ok()?;
    next(asked, header)
}

fn next(asked: &Url, header: &str) -> Option<Url> {
    let (target, relation) = header.split_once('<')?.1.split_once('>')?;
    if !relation.contains("next") {
        return None;
    }
    asked.join(target).ok().filter(|url| url.origin() == asked.origin())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_on_within_the_registry() {
        let asked = Url::parse("http://127.0.0.1:5000/v2/a/tags/list").expect("a URL");
        for (header, expected) in [
            (r#"</v2/a/tags/list?last=b&n=2>; rel="next""#, Some("http://127.0.0.1:5000/v2/a/tags/list?last=b&n=2")),
            (
                r#"<http://127.0.0.1:5000/v2/a/tags/list?last=b>; rel="next""#,
                Some("http://127.0.0.1:5000/v2/a/tags/list?last=b"),
            ),
            (r#"<http://elsewhere/v2/a/tags/list?last=b>; rel="next""#, None),
            (r#"</v2/a/tags/list>; rel="prev""#, None),
            ("nonsense", None),
        ] {
            assert_eq!(next(&asked, header).as_ref().map(Url::as_str), expected, "{header}");
        }
    }
}
