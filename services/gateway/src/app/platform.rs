//! Platforms as Docker writes them: `linux/amd64`, `linux/arm/v7`.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use super::Failure;
use super::images::{Image, config_of};

const SYSTEMS: [&str; 9] = ["linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "android", "aix"];
const PROCESSORS: [&str; 16] = [
    "amd64", "x86_64", "x86-64", "386", "i386", "arm", "armhf", "armel", "arm64", "aarch64", "ppc64le", "s390x",
    "riscv64", "mips64le", "loong64", "wasm",
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    /// "v7"; empty where the architecture says it all.
    pub variant: String,
}

impl Platform {
    /// The machines' own.
    pub fn host() -> Self {
        Self::normalised("linux", std::env::consts::ARCH, "")
    }

    /// What an image's config says it was made for.
    pub fn of_image(config: &Value) -> Self {
        let text = |key: &str| config[key].as_str().unwrap_or_default();
        let or_host = |text: &str, host: String| if text.is_empty() { host } else { text.to_owned() };
        let host = Self::host();
        let (os, architecture) = (or_host(text("os"), host.os), or_host(text("architecture"), host.architecture));
        Self::normalised(&os, &architecture, text("variant"))
    }

    /// Whether an image of platform `other` will do: a variant that is not asked for does not matter.
    pub fn takes(&self, other: &Self) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && (self.variant.is_empty() || other.variant.is_empty() || self.variant == other.variant)
    }

    fn normalised(os: &str, architecture: &str, variant: &str) -> Self {
        let (architecture, variant) = match (architecture, variant) {
            ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", if variant == "v1" { "" } else { variant }),
            ("i386", _) => ("386", ""),
            ("aarch64" | "arm64", variant) => ("arm64", if matches!(variant, "8" | "v8") { "" } else { variant }),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            other => other,
        };
        Self { os: os.to_owned(), architecture: architecture.to_owned(), variant: variant.to_owned() }
    }
}

/// Docker's words for an image that is there but was made for another platform than the wanted one.
pub fn mismatch(wanted: &Platform, name: &str, image: &Image) -> Option<String> {
    let actual = Platform::of_image(&config_of(image));
    let text = || {
        format!(
            "image with reference {name} was found but does not match the specified platform: wanted {wanted}, actual: {actual}"
        )
    };
    (!wanted.takes(&actual)).then(text)
}

impl FromStr for Platform {
    type Err = Failure;

    /// `os`, `arch`, `os/arch` or `os/arch/variant` that somebody has heard of.
    fn from_str(text: &str) -> Result<Self, Failure> {
        let lower = text.to_lowercase();
        let parts: Vec<&str> = lower.split('/').collect();
        let host = Self::host();
        match parts.as_slice() {
            [one] if SYSTEMS.contains(one) => Ok(Self::normalised(one, &host.architecture, "")),
            [one] if PROCESSORS.contains(one) => Ok(Self::normalised("linux", one, "")),
            [os, processor] if SYSTEMS.contains(os) && PROCESSORS.contains(processor) => {
                Ok(Self::normalised(os, processor, ""))
            }
            [os, processor, variant] if SYSTEMS.contains(os) && PROCESSORS.contains(processor) => {
                Ok(Self::normalised(os, processor, variant))
            }
            _ => Err(Failure::invalid(format!("{text:?}: unknown operating system or architecture: invalid argument"))),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts() {
        for (text, wanted) in [
            ("linux/amd64", Some("linux/amd64")),
            ("linux/x86_64", Some("linux/amd64")),
            ("arm64", Some("linux/arm64")),
            ("linux/arm64/v8", Some("linux/arm64")),
            ("linux/arm/v7", Some("linux/arm/v7")),
            ("windows/amd64", Some("windows/amd64")),
            ("foo", None),
            ("linux/foo", None),
            ("", None),
            ("a/b/c/d", None),
        ] {
            let read = text.parse::<Platform>().ok().map(|platform| platform.to_string());
            assert_eq!(read.as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn an_image_fits_or_not() {
        let image = Platform::of_image(&json!({"os": "linux", "architecture": "arm", "variant": "v7"}));
        for (text, fits) in
            [("linux/arm", true), ("linux/arm/v7", true), ("linux/arm/v6", false), ("linux/amd64", false)]
        {
            assert_eq!(text.parse::<Platform>().expect("known").takes(&image), fits, "{text}");
        }
        assert_eq!(Platform::of_image(&json!({})), Platform::host());
    }
}
