use std::fmt;
use std::str::FromStr;

const SYSTEMS: [&str; 9] = ["linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "android", "aix"];
const PROCESSORS: [&str; 16] = [
    "amd64", "x86_64", "x86-64", "386", "i386", "arm", "armhf", "armel", "arm64", "aarch64", "ppc64le", "s390x",
    "riscv64", "mips64le", "loong64", "wasm",
];

/// What an image is made for, as Docker writes it: `linux/amd64`, `linux/arm/v7`. Names that mean the same are one
/// (containerd's rules): `x86_64` is `amd64`, `arm64/v8` is `arm64`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    /// "v7"; empty where the architecture says it all.
    pub variant: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    #[error("{0:?}: unknown operating system or architecture: invalid argument")]
    Unknown(String),
    #[error("{0:?}: cannot parse platform specifier: invalid argument")]
    TooManyParts(String),
}

impl Platform {
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
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

    /// This machine's own.
    pub fn host() -> Self {
        Self::new("linux", std::env::consts::ARCH, "")
    }

    /// Whether an image of platform `other` will do: a variant that is not asked for does not matter.
    pub fn takes(&self, other: &Self) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && (self.variant.is_empty() || other.variant.is_empty() || self.variant == other.variant)
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    /// `os`, `arch`, `os/arch` or `os/arch/variant` that somebody has heard of.
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let lower = text.to_lowercase();
        let parts: Vec<&str> = lower.split('/').collect();
        match parts.as_slice() {
            [one] if SYSTEMS.contains(one) => Ok(Self { os: (*one).to_owned(), ..Self::host() }),
            [one] if PROCESSORS.contains(one) => Ok(Self::new("linux", one, "")),
            [os, processor] if SYSTEMS.contains(os) && PROCESSORS.contains(processor) => {
                Ok(Self::new(os, processor, ""))
            }
            [os, processor, variant] if SYSTEMS.contains(os) && PROCESSORS.contains(processor) => {
                Ok(Self::new(os, processor, variant))
            }
            [_, _, _, _, ..] => Err(PlatformError::TooManyParts(text.to_owned())),
            _ => Err(PlatformError::Unknown(text.to_owned())),
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
        let error = "a/b/c/d".parse::<Platform>().expect_err("four parts");
        assert_eq!(error.to_string(), r#""a/b/c/d": cannot parse platform specifier: invalid argument"#);
    }
}
