use std::fmt;

use model::ImageRef;

/// A repository's name as the distribution-spec allows it; safe as a file name once `/` is `+`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

/// A tag as the distribution-spec allows it; safe as a file name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag(String);

impl Name {
    /// None when `text` is not a repository's name.
    pub fn parse(text: &str) -> Option<Self> {
        let reference: ImageRef = format!("any.registry/{text}").parse().ok()?;
        let plain = reference.path() == text && !reference.has_tag_or_digest();
        plain.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The store's own repository, of blobs without a name.
    pub fn is_internal(&self) -> bool {
        self.0 == "boxyard.internal"
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Tag {
    /// None when `text` is not a tag.
    pub fn parse(text: &str) -> Option<Self> {
        let any: ImageRef = "any.registry/any".parse().ok()?;
        any.with_tag(text).ok().map(|_| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_and_tags_of_the_specification_reach_the_disk() {
        for name in ["app", "library/busybox", "a/b/c-d.e", "boxyard.internal"] {
            assert_eq!(Name::parse(name).as_ref().map(Name::as_str), Some(name));
        }
        for name in ["", "..", "../x", "a/../b", "/a", "a/", "A", "a+b", "a:b", "a@b", "a b", "a\0b", ".tmp"] {
            assert_eq!(Name::parse(name), None, "{name:?}");
        }
        for tag in ["", ".", "..", "a/b", "../a", "-a", "a b"] {
            assert_eq!(Tag::parse(tag), None, "{tag:?}");
        }
        assert!(Tag::parse("v1.0_x-Y").is_some());
    }
}
