//! Names of images as a person writes them.

/// Name and tag or digest; `latest` when neither is given.
pub fn split(image: &str) -> (String, String) {
    if let Some((name, digest)) = image.split_once('@') {
        return (name.to_owned(), digest.to_owned());
    }
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name.to_owned(), tag.to_owned()),
        _ => (image.to_owned(), "latest".to_owned()),
    }
}

/// With its tag, as Docker's messages show it.
pub fn familiar(image: &str) -> String {
    if image.contains('@') {
        return image.to_owned();
    }
    let (name, tag) = split(image);
    format!("{name}:{tag}")
}

/// The short form of an id: 12 digits without its algorithm.
pub fn short_id(id: &str) -> &str {
    let bare = id.split_once(':').map_or(id, |(_, digits)| digits);
    bare.get(..12).unwrap_or(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitting() {
        for (image, expected) in [
            ("a", ("a", "latest")),
            ("a:b", ("a", "b")),
            ("h:5000/a", ("h:5000/a", "latest")),
            ("h:5000/a:b", ("h:5000/a", "b")),
            ("a@sha256:1", ("a", "sha256:1")),
        ] {
            let (name, tag) = split(image);
            assert_eq!((name.as_str(), tag.as_str()), expected);
        }
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
    }
}
