//! What `--cache-from` and `--cache-to` ask for, by BuildKit's names; what nobody knows is refused before anything is built.

use crate::failure::Failure;
use crate::graph::export::options::Attributes;

/// Which results go into a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Those whose layers the images have.
    Min,
    Max,
}

/// A cache that is to be handed out.
#[derive(Debug)]
pub struct Export {
    pub mode: Mode,
    pub form: proto::ImageForm,
    /// A build whose cache cannot be handed out is built nevertheless.
    pub ignores_error: bool,
}

/// Checks what is asked for.
///
/// # Errors
/// `User` for types and attributes that nobody knows, and for caches that are named by nothing.
pub fn check(options: &proto::BuildOptions) -> Result<(), Failure> {
    for option in &options.cache_imports {
        import(option)?;
    }
    options.cache_exports.iter().try_for_each(|option| export(option).map(drop))
}

fn import(option: &proto::CacheOption) -> Result<(), Failure> {
    let mut attributes = Attributes::new("cache importer", &option.attributes);
    match option.r#type.as_str() {
        "registry" => attributes.required("ref", "registry cache importer requires ref")?,
        "local" => {
            attributes.required("src", "local cache importer requires src")?;
            attributes.required("digest", "local cache importer requires explicit digest")?;
        }
        other => return Err(Failure::user(format!("unknown cache importer: {other:?}"))),
    }
    // What else is said may be meant for who writes the cache: people give both the same words.
    attributes.never_insecure()
}

/// Reads what a cache is to be.
pub fn export(option: &proto::CacheOption) -> Result<Export, Failure> {
    let mut attributes = Attributes::new("cache exporter", &option.attributes);
    match option.r#type.as_str() {
        "registry" => attributes.required("ref", "registry cache exporter requires ref")?,
        "local" => {
            attributes.required("dest", "local cache exporter requires dest")?;
            // The client's own.
            attributes.text("tag");
        }
        "inline" => {}
        other => return Err(Failure::user(format!("unknown cache exporter: {other:?}"))),
    }
    let mode = match attributes.text("mode").as_str() {
        "" | "min" => Mode::Min,
        "max" => Mode::Max,
        other => return Err(Failure::user(format!("invalid cache export mode: {other}"))),
    };
    if !attributes.switch("image-manifest", true)? || !attributes.switch("oci-mediatypes", true)? {
        return Err(Failure::user("a cache is an OCI image manifest here: it has no other form"));
    }
    attributes.never_insecure()?;
    let ignores_error = attributes.switch("ignore-error", false)?;
    let form = attributes.form(true)?;
    attributes.none_left()?;
    Ok(Export { mode, form, ignores_error })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(kind: &str, attributes: &[(&str, &str)]) -> proto::CacheOption {
        proto::CacheOption {
            r#type: kind.to_owned(),
            attributes: attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    #[test]
    fn what_nobody_knows_is_refused() {
        for (kind, attributes, why) in [
            ("s3", &[][..], "unknown cache importer: \"s3\""),
            ("inline", &[], "unknown cache importer: \"inline\""),
            ("registry", &[], "registry cache importer requires ref"),
            ("local", &[("digest", "sha256:1")], "local cache importer requires src"),
            ("local", &[("src", "d")], "local cache importer requires explicit digest"),
        ] {
            let options = proto::BuildOptions { cache_imports: vec![option(kind, attributes)], ..Default::default() };
            assert_eq!(check(&options).expect_err("refused").to_string(), why);
        }
        for (kind, attributes, why) in [
            ("s3", &[][..], "unknown cache exporter: \"s3\""),
            ("registry", &[], "registry cache exporter requires ref"),
            ("local", &[], "local cache exporter requires dest"),
            ("registry", &[("ref", "x"), ("mode", "full")], "invalid cache export mode: full"),
            ("local", &[("dest", "d"), ("compression", "lzma")], "unsupported layer compression type lzma"),
            ("local", &[("dest", "d"), ("reset", "true")], "unknown attribute \"reset\" of cache exporter"),
            (
                "local",
                &[("dest", "d"), ("oci-mediatypes", "false")],
                "a cache is an OCI image manifest here: it has no other form",
            ),
        ] {
            let options = proto::BuildOptions { cache_exports: vec![option(kind, attributes)], ..Default::default() };
            assert_eq!(check(&options).expect_err("refused").to_string(), why);
        }
    }

    #[test]
    fn what_a_cache_is_to_be() {
        let asked = [("dest", "d"), ("mode", "max"), ("compression", "zstd"), ("ignore-error", "true")];
        let Export { mode, form, ignores_error } = export(&option("local", &asked)).expect("known");
        assert!(mode == Mode::Max && form.oci && form.compression == "zstd" && ignores_error);
        assert!(export(&option("registry", &[("ref", "x")])).expect("known").mode == Mode::Min);
    }
}
