use crate::Digest;

/// The `sharing` of a cache mount that one step at a time has.
pub const PRIVATE: &str = "private";

/// Names a cache mount in tables and folders by its id: 64 hex digits. A private one is another than the shared or locked
/// one with the same id.
pub fn cache_key(id: &str, sharing: &str) -> String {
    let digest = match sharing {
        PRIVATE => Digest::of(format!("{PRIVATE} {id}").as_bytes()),
        _ => Digest::of(id.as_bytes()),
    };
    digest.hex().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_private_ones_are_apart() {
        assert_eq!(cache_key("npm", "shared"), cache_key("npm", "locked"));
        assert_ne!(cache_key("npm", "shared"), cache_key("npm", PRIVATE));
        assert_ne!(cache_key("npm", "shared"), cache_key("pip", "shared"));
    }
}
