use model::ErrorKind;
use oci::{Descriptor, Index, Platform};

use crate::error::Error;

/// A platform that is asked for, `os/architecture[/variant]` in its normal form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    os: String,
    architecture: String,
    variant: String,
    /// As an error shows it.
    shown: String,
}

impl Wanted {
    /// Of `linux/arm64/v8`; empty means this machine's.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no platform.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let here = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let mut parts = text.split('/').map(str::to_ascii_lowercase).collect::<Vec<_>>();
        if text.is_empty() {
            parts = vec!["linux".to_owned(), here.to_owned()];
        } else if let [one] = parts.as_slice() {
            // An operating system or an architecture alone means this machine's other half.
            parts =
                if one == "linux" { vec![one.clone(), here.to_owned()] } else { vec!["linux".to_owned(), one.clone()] };
        }
        let valid = |part: &String| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        };
        if parts.len() > 3 || !parts.iter().all(valid) {
            let text = format!("{text:?}: platform specifier must be \"<os>|<arch>|<os>/<arch>[/<variant>]\"");
            return Err(Error::Remote { kind: ErrorKind::InvalidArgument, text });
        }
        let variant = parts.get(2).cloned().unwrap_or_default();
        let (architecture, variant) = normal(&parts[1], &variant);
        let shown = parts.join("/");
        Ok(Self { os: parts[0].clone(), architecture, variant, shown })
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
            text: format!("no matching manifest for {} in the manifest list entries", self.shown),
        })
    }

    /// 0 is exactly what is asked for; none does not fit.
    fn rank(&self, platform: &Platform) -> Option<u32> {
        let (architecture, variant) = normal(&platform.architecture, platform.variant.as_deref().unwrap_or_default());
        if platform.os != self.os || architecture != self.architecture {
            return None;
        }
        if variant == self.variant {
            return Some(0);
        }
        // An older variant of the same line runs too: v7 runs v6 and v5.
        let number = |variant: &str| variant.strip_prefix('v').and_then(|number| number.parse::<u32>().ok());
        let default = |variant: &str| if variant.is_empty() { Some(1) } else { number(variant) };
        match (default(&self.variant), default(&variant)) {
            (Some(mine), Some(its)) if its < mine => Some(mine - its),
            _ => None,
        }
    }
}

/// Names that mean the same, brought to one (the rules of containerd's platforms).
fn normal(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = match (architecture, variant) {
        ("x86_64" | "x86-64" | "amd64", "v1" | "") => ("amd64", ""),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("i386", _) => ("386", ""),
        ("aarch64" | "arm64", "8" | "v8" | "") => ("arm64", ""),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    (architecture.to_owned(), variant.to_owned())
}

#[cfg(test)]
mod tests {
    use model::Digest;

    use super::*;

    fn index(platforms: &[&str]) -> Index {
        let entry = |text: &&str| {
            let parts: Vec<&str> = text.split('/').collect();
            let platform = Platform {
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
