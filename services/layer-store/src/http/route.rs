use axum::http::StatusCode;
use model::Digest;

use super::refusal::Refusal;
use crate::repositories::{Name, Tag};

/// What a path below `/v2/` means. Names hold slashes, so a path is read from its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    Catalog,
    Tags(Name),
    Manifest(Name, Reference),
    Blob(Name, Digest),
    Uploads(Name),
    Upload(Name, String),
    Referrers(Name, Digest),
}

#[derive(Debug, PartialEq, Eq)]
pub enum Reference {
    Tag(Tag),
    Digest(Digest),
}

impl Route {
    /// # Errors
    /// The specification's code for what is wrong with the path.
    pub fn parse(rest: &str) -> Result<Self, Refusal> {
        if rest == "_catalog" {
            return Ok(Self::Catalog);
        }
        if let Some(repository) = rest.strip_suffix("/tags/list") {
            return Ok(Self::Tags(name(repository)?));
        }
        if let Some(repository) = rest.strip_suffix("/blobs/uploads/").or_else(|| rest.strip_suffix("/blobs/uploads")) {
            return Ok(Self::Uploads(name(repository)?));
        }
        let (front, last) = rest.rsplit_once('/').ok_or_else(not_found)?;
        if let Some(repository) = front.strip_suffix("/blobs/uploads") {
            return Ok(Self::Upload(name(repository)?, last.to_owned()));
        }
        if let Some(repository) = front.strip_suffix("/blobs") {
            return Ok(Self::Blob(name(repository)?, digest(last)?));
        }
        if let Some(repository) = front.strip_suffix("/manifests") {
            return Ok(Self::Manifest(name(repository)?, reference(last)?));
        }
        if let Some(repository) = front.strip_suffix("/referrers") {
            return Ok(Self::Referrers(name(repository)?, digest(last)?));
        }
        Err(not_found())
    }

    pub fn is_internal(&self) -> bool {
        match self {
            Self::Catalog => false,
            Self::Tags(name)
            | Self::Manifest(name, _)
            | Self::Blob(name, _)
            | Self::Uploads(name)
            | Self::Referrers(name, _)
            | Self::Upload(name, _) => name.is_internal(),
        }
    }
}

fn name(text: &str) -> Result<Name, Refusal> {
    Name::parse(text).ok_or_else(Refusal::name_invalid)
}

pub fn digest(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|error: model::DigestError| Refusal::digest_invalid(error.to_string()))
}

fn reference(text: &str) -> Result<Reference, Refusal> {
    if text.contains(':') {
        return Ok(Reference::Digest(digest(text)?));
    }
    Tag::parse(text).map(Reference::Tag).ok_or_else(|| {
        Refusal::new(StatusCode::BAD_REQUEST, "TAG_INVALID", "manifest tag did not match the grammar of tags")
    })
}

fn not_found() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "no such path in this registry")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_from_their_end() {
        let name = |text| Name::parse(text).expect("valid");
        let empty = Digest::of(b"");
        for (path, route) in [
            ("_catalog".to_owned(), Route::Catalog),
            ("a/b/tags/list".to_owned(), Route::Tags(name("a/b"))),
            ("tags/list/tags/list".to_owned(), Route::Tags(name("tags/list"))),
            (format!("a/blobs/blobs/{empty}"), Route::Blob(name("a/blobs"), empty.clone())),
            (format!("a/referrers/{empty}"), Route::Referrers(name("a"), empty.clone())),
            ("a/blobs/uploads/".to_owned(), Route::Uploads(name("a"))),
            ("a/blobs/uploads/17".to_owned(), Route::Upload(name("a"), "17".to_owned())),
            ("a/manifests/v1".to_owned(), Route::Manifest(name("a"), Reference::Tag(Tag::parse("v1").expect("valid")))),
            (format!("a/manifests/{empty}"), Route::Manifest(name("a"), Reference::Digest(empty.clone()))),
        ] {
            assert_eq!(Route::parse(&path).ok(), Some(route), "{path}");
        }
        for (path, code) in [
            ("../x/blobs/uploads/", "NAME_INVALID"),
            ("a/../../b/tags/list", "NAME_INVALID"),
            ("a/blobs/sha256:12", "DIGEST_INVALID"),
            ("a/blobs/..", "DIGEST_INVALID"),
            ("a/manifests/..", "TAG_INVALID"),
            ("a/other/x", "NAME_UNKNOWN"),
            ("a", "NAME_UNKNOWN"),
        ] {
            assert_eq!(Route::parse(path).map_err(|refusal| refusal.code), Err(code), "{path}");
        }
    }
}
