use model::{ErrorKind, Platform};
use oci::{Descriptor, Index};

use crate::error::Error;

/// A platform that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted(Platform);

impl Wanted {
    /// Of `linux/arm64/v8`; empty means this machine's.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no platform.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Ok(Self(Platform::host()));
        }
        let invalid =
            |error: model::PlatformError| Error::Remote { kind: ErrorKind::InvalidArgument, text: error.to_string() };
        text.parse().map(Self).map_err(invalid)
    }

    /// The image of an index for this platform; of several variants the best that this platform can run.
    ///
    /// # Errors
    /// `NotFound` in Docker's words.
    pub fn choose<'a>(&self, index: &'a Index) -> Result<&'a Descriptor, Error> {
        let fitting = index.manifests.iter().filter_map(|entry| {
            // Entries without a platform are older than platforms.
            let rank = match &entry.platform {
                Some(platform) => self.rank(platform)?,
                None => u32::MAX,
            };
            Some((rank, entry))
        });
        let best = fitting.min_by_key(|(rank, _)| *rank).map(|(_, entry)| entry);
        best.ok_or_else(|| Error::Remote {
            kind: ErrorKind::NotFound,
            text: format!("no matching manifest for {} in the manifest list entries", self.0),
        })
    }

    /// 0 is exactly what is asked for; none does not fit.
    fn rank(&self, platform: &oci::Platform) -> Option<u32> {
        let variant = platform.variant.as_deref().unwrap_or_default();
        let its = Platform::new(&platform.os, &platform.architecture, variant);
        if its.os != self.0.os || its.architecture != self.0.architecture {
            return None;
        }
        let (mine, its) = (variant_of(&self.0), variant_of(&its));
        if mine == its {
            return Some(0);
        }
        // An older variant of the same line runs too: v7 runs v6 and v5.
        match (number_of(mine), number_of(its)) {
            (Some(mine), Some(its)) if its < mine => Some(mine - its),
            _ => None,
        }
    }
}

/// An arm without a variant is a v7; "7" is another way to write it.
fn variant_of(platform: &Platform) -> &str {
    match (platform.architecture.as_str(), platform.variant.as_str()) {
        ("arm", "" | "7") => "v7",
        ("arm", "5") => "v5",
        ("arm", "6") => "v6",
        ("arm", "8") => "v8",
        (_, variant) => variant,
    }
}

fn number_of(variant: &str) -> Option<u32> {
    if variant.is_empty() { Some(1) } else { variant.strip_prefix('v')?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use model::Digest;

    use super::*;

    fn index(platforms: &[&str]) -> Index {
        let entry = |text: &&str| {
            let parts: Vec<&str> = text.split('/').collect();
            let platform = oci::Platform {
                os: parts[0].to_owned(),
                architecture: parts[1].to_owned(),
                os_version: None,
                variant: parts.get(2).map(|variant| (*variant).to_owned()),
            };
            let digest = Digest::of(text.as_bytes());
            Descriptor { platform: Some(platform), ..Descriptor::new(oci::media_type::OCI_MANIFEST, digest, 1) }
        };
        Index {
            schema_version: 2,
            media_type: None,
            manifests: platforms.iter().map(entry).collect(),
            annotations: None,
        }
    }

    #[test]
    fn the_best_image_is_chosen() {
        let all = ["windows/amd64", "linux/amd64", "linux/arm/v5", "linux/arm/v7", "linux/arm64/v8", "unknown/unknown"];
        for (wanted, found) in [
            ("linux/amd64", Some("linux/amd64")),
            ("linux/x86_64", Some("linux/amd64")),
            ("amd64", Some("linux/amd64")),
            ("linux/arm", Some("linux/arm/v7")),
            ("linux/arm/v6", Some("linux/arm/v5")),
            ("linux/arm64", Some("linux/arm64/v8")),
            ("linux/s390x", None),
            ("linux/386", None),
        ] {
            let index = index(&all);
            let chosen = Wanted::parse(wanted).expect("a platform").choose(&index);
            let expected = found.map(|text| Digest::of(text.as_bytes()));
            assert_eq!(chosen.ok().map(|entry| entry.digest.clone()), expected, "{wanted}");
        }
        let error = Wanted::parse("linux/s390x").expect("a platform").choose(&index(&all)).expect_err("not there");
        assert_eq!(error.to_string(), "no matching manifest for linux/s390x in the manifest list entries");
        for wrong in ["/", "a/b/c/d", "linux/", "linux/a b"] {
            assert!(Wanted::parse(wrong).is_err(), "{wrong}");
        }
    }
}
