use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::request::Parts;
use model::Platform;
use serde_json::Value;

use crate::app::filters::Filters;
use crate::app::{Failure, Outcome};

/// The query as it was sent: a key may come several times.
pub struct Query(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        Ok(Self(pairs.map_or_else(|_| Vec::new(), |pairs| pairs.0)))
    }
}

impl Query {
    pub fn text(&self, key: &str) -> String {
        self.maybe(key).unwrap_or_default().to_owned()
    }

    pub fn maybe(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    pub fn all(&self, key: &str) -> Vec<String> {
        self.0.iter().filter(|(k, _)| k == key).map(|(_, v)| v.clone()).collect()
    }

    /// Docker's booleans: empty, 0, no, false and none are false.
    pub fn flag(&self, key: &str) -> bool {
        self.flag_or(key, false)
    }

    pub fn flag_or(&self, key: &str, absent: bool) -> bool {
        let value = self.maybe(key).map(|value| value.trim().to_ascii_lowercase());
        value.map_or(absent, |value| !matches!(value.as_str(), "" | "0" | "no" | "false" | "none"))
    }

    pub fn number<T: std::str::FromStr>(&self, key: &str) -> Outcome<Option<T>> {
        match self.maybe(key).filter(|text| !text.is_empty()) {
            None => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|_| Failure::invalid(format!("strconv.Atoi: parsing \"{text}\": invalid syntax"))),
        }
    }

    pub fn platform(&self) -> Outcome<Option<Platform>> {
        Ok(self.maybe("platform").filter(|text| !text.is_empty()).map(str::parse).transpose()?)
    }

    /// A platform as the endpoints of images take it: the JSON of an OCI platform.
    pub fn image_platform(&self, key: &str) -> Outcome<Option<Platform>> {
        self.maybe(key).filter(|text| !text.is_empty()).map(image_platform).transpose()
    }

    /// `filters` with whatever keys, as `/events` takes them.
    pub fn filters_of_any(&self) -> Outcome<Filters> {
        Filters::read(self.maybe("filters").unwrap_or_default())
    }

    /// `filters`, of which only the keys in `allowed` are known.
    pub fn filters(&self, allowed: &[&str]) -> Outcome<Filters> {
        Filters::parse(self.maybe("filters").unwrap_or_default(), allowed)
    }
}

fn image_platform(text: &str) -> Outcome<Platform> {
    let read: Value =
        serde_json::from_str(text).map_err(|e| Failure::invalid(format!("failed to parse platform: {e}")))?;
    let part = |key: &str| read[key].as_str().unwrap_or_default();
    let (os, architecture) = (part("os"), part("architecture"));
    if os.is_empty() || architecture.is_empty() {
        return Err(Failure::invalid("both OS and Architecture must be provided"));
    }
    Ok(Platform::new(os, architecture, part("variant")))
}

/// A JSON body; empty is null.
pub fn json_body(bytes: &[u8]) -> Outcome<Value> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(bytes).map_err(|e| Failure::invalid(format!("invalid JSON: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_of_images_are_json() {
        for (text, wanted) in [
            (r#"{"os":"linux","architecture":"arm","variant":"v7"}"#, Ok("linux/arm/v7")),
            (r#"{"os":"linux","architecture":"amd64"}"#, Ok("linux/amd64")),
            (r#"{"os":"linux"}"#, Err("both OS and Architecture must be provided")),
            ("linux/amd64", Err("failed to parse platform: ")),
        ] {
            match (image_platform(text), wanted) {
                (Ok(platform), Ok(wanted)) => assert_eq!(platform.to_string(), wanted),
                (Err(failure), Err(words)) => assert!(failure.message.starts_with(words), "{failure}"),
                (read, _) => panic!("{text}: {read:?}"),
            }
        }
    }
}
