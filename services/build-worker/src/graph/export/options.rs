//! What `--output` asks for, by BuildKit's names; what nobody knows is refused before anything is built.

use std::collections::{BTreeMap, HashMap};

use model::{ImageRef, Platform};

use super::annotations::Annotations;
use crate::failure::Failure;

/// One output of a build.
#[derive(Debug)]
pub struct Output {
    pub kind: Kind,
    /// Layers of the build get no time after SOURCE_DATE_EPOCH.
    pub rewrite_timestamp: bool,
}

#[derive(Debug)]
pub enum Kind {
    /// Recorded, named and pushed.
    Image { image: proto::ImageOutput, written: Written },
    /// An archive of the image.
    Archive { with_docker: bool, names: Vec<String>, written: Written },
    /// The root file system.
    Root { is_tar: bool, platform_split: Option<bool> },
    /// Nothing but what the cache keeps.
    CacheOnly,
}

/// How manifests are written.
#[derive(Debug)]
pub struct Written {
    pub form: proto::ImageForm,
    pub annotations: Annotations,
}

/// Reads the outputs. A build that asks for none makes an image.
///
/// # Errors
/// `User` for a type or an attribute that nobody knows, and for values that mean nothing.
pub fn parse(options: &proto::BuildOptions) -> Result<Vec<Output>, Failure> {
    if options.outputs.is_empty() {
        let image = proto::BuildOutput { r#type: "image".to_owned(), ..proto::BuildOutput::default() };
        return Ok(vec![output(&image, &options.tags)?]);
    }
    let outputs = options.outputs.iter().map(|asked| output(asked, &options.tags)).collect::<Result<Vec<_>, _>>()?;
    if options.platforms.len() < 2 && outputs.iter().any(Output::annotates_index) {
        return Err(Failure::user("index annotations not supported for single platform export"));
    }
    Ok(outputs)
}

impl Output {
    fn annotates_index(&self) -> bool {
        match &self.kind {
            Kind::Image { written, .. } | Kind::Archive { written, .. } => !written.annotations.index().is_empty(),
            Kind::Root { .. } | Kind::CacheOnly => false,
        }
    }
}

fn output(asked: &proto::BuildOutput, tags: &[String]) -> Result<Output, Failure> {
    let exporter = asked.r#type.as_str();
    let owner = format!("exporter {exporter:?}");
    let mut attributes = Attributes::new(&owner, &asked.attributes);
    // Where the client puts it.
    attributes.left.remove("dest");
    let rewrite_timestamp = attributes.switch("rewrite-timestamp", false)?;
    let kind = match exporter {
        "image" | "moby" | "" => attributes.image(tags)?,
        "oci" | "docker" => attributes.archive(exporter == "oci", tags)?,
        "tar" | "local" => {
            Kind::Root { is_tar: exporter == "tar", platform_split: attributes.maybe("platform-split")? }
        }
        "cacheonly" => Kind::CacheOnly,
        other => return Err(Failure::user(format!("exporter \"{other}\" could not be found"))),
    };
    attributes.none_left()?;
    Ok(Output { kind, rewrite_timestamp })
}

/// Attributes that nobody has read yet.
pub struct Attributes<'a> {
    /// Whose they are, for errors.
    owner: &'a str,
    left: BTreeMap<String, String>,
}

impl<'a> Attributes<'a> {
    pub fn new(owner: &'a str, all: &HashMap<String, String>) -> Self {
        Self { owner, left: all.clone().into_iter().collect() }
    }

    fn image(&mut self, tags: &[String]) -> Result<Kind, Failure> {
        let mut image = proto::ImageOutput {
            names: self.names(tags)?,
            store: self.switch("store", true)?,
            push: self.switch("push", false)?,
            push_by_digest: self.switch("push-by-digest", false)?,
            canonical_name: self.switch("name-canonical", false)?,
            dangling_prefix: self.text("dangling-name-prefix"),
        };
        // Nodes unpack what is recorded by themselves, and it is loaded where it is recorded.
        self.switch("unpack", false)?;
        self.switch("load", false)?;
        self.never_insecure()?;
        if image.push && image.names.is_empty() {
            return Err(Failure::user("tag is needed when pushing to registry"));
        }
        image.store |= !image.push;
        Ok(Kind::Image { image, written: self.written(false)? })
    }

    fn archive(&mut self, is_oci: bool, tags: &[String]) -> Result<Kind, Failure> {
        let names = self.names(tags)?;
        // The gateway, which sends the archive, goes by it.
        self.switch("tar", true)?;
        Ok(Kind::Archive { with_docker: !is_oci, names, written: self.written(is_oci)? })
    }

    /// Familiar names with their tags.
    fn names(&mut self, tags: &[String]) -> Result<Vec<String>, Failure> {
        let written = self.text("name");
        let written = written.split(',').map(str::trim).filter(|name| !name.is_empty());
        let mut names: Vec<String> = Vec::new();
        for name in written.chain(tags.iter().map(String::as_str)) {
            let read = name.parse::<ImageRef>();
            let name = read.map_err(|error| Failure::user(format!("failed to parse {name}: {error}")))?;
            let name = name.or_latest().familiar();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn written(&mut self, oci: bool) -> Result<Written, Failure> {
        let annotations = Annotations::take(&mut self.left)?;
        let mut form = self.form(oci)?;
        // Docker's own documents have no place for them.
        form.oci |= !annotations.is_empty();
        form.index_annotations = annotations.index().into_iter().collect();
        Ok(Written { form, annotations })
    }

    /// How documents are written and layers are packed.
    pub fn form(&mut self, oci: bool) -> Result<proto::ImageForm, Failure> {
        let compression = self.text("compression");
        if !matches!(compression.as_str(), "" | "gzip" | "zstd" | "uncompressed") {
            return Err(Failure::user(format!("unsupported layer compression type {compression}")));
        }
        let level = self.text("compression-level");
        let level = match level.as_str() {
            "" => 0,
            text => {
                let wrong = |_| Failure::user(format!("non-int value {text:?} specified for compression-level"));
                text.parse().map_err(wrong)?
            }
        };
        Ok(proto::ImageForm {
            // Docker's own documents have no place for zstd.
            oci: self.switch("oci-mediatypes", oci)? || compression == "zstd",
            level: level_of(&compression, level),
            force: self.switch("force-compression", false)?,
            index_annotations: HashMap::new(),
            compression,
        })
    }

    pub fn text(&mut self, name: &str) -> String {
        self.left.remove(name).unwrap_or_default()
    }

    /// The words that Go's strconv.ParseBool takes; the name alone means yes.
    fn maybe(&mut self, name: &str) -> Result<Option<bool>, Failure> {
        let Some(text) = self.left.remove(name) else { return Ok(None) };
        match contexts::parse_bool(&text) {
            _ if text.is_empty() => Ok(Some(true)),
            Some(value) => Ok(Some(value)),
            None => Err(Failure::user(format!("non-bool value {text:?} specified for {name}"))),
        }
    }

    /// Which registries need no TLS is the daemon's to say.
    pub fn never_insecure(&mut self) -> Result<(), Failure> {
        if self.switch("registry.insecure", false)? {
            let text =
                "registry.insecure is not an attribute of a build here: the registry is named by --insecure-registry";
            return Err(Failure::user(text));
        }
        Ok(())
    }

    /// One that must say something.
    pub fn required(&mut self, name: &str, missing: &str) -> Result<(), Failure> {
        match self.text(name).is_empty() {
            true => Err(Failure::user(missing)),
            false => Ok(()),
        }
    }

    pub fn switch(&mut self, name: &str, default: bool) -> Result<bool, Failure> {
        Ok(self.maybe(name)?.unwrap_or(default))
    }

    pub fn none_left(&self) -> Result<(), Failure> {
        match self.left.keys().next() {
            Some(name) => Err(Failure::user(format!("unknown attribute {name:?} of {}", self.owner))),
            None => Ok(()),
        }
    }
}

/// The nearest level that the packer has.
fn level_of(compression: &str, level: i32) -> i32 {
    match compression {
        "zstd" => level.clamp(0, 22),
        "uncompressed" => 0,
        _ => level.clamp(0, 9),
    }
}

/// The folder of a platform in a tree of several: `linux_arm64`.
pub fn folder_of(platform: &Platform) -> String {
    platform.to_string().replace('/', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(exporter: &str, attributes: &[(&str, &str)]) -> Result<Output, String> {
        let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        output(&proto::BuildOutput { r#type: exporter.to_owned(), attributes, store: String::new() }, &[])
            .map_err(|error| error.to_string())
    }

    #[test]
    fn images_have_names_and_a_form() {
        let Ok(Output { kind: Kind::Image { image, written }, .. }) =
            read("image", &[("name", "a, b:2"), ("push", "true"), ("store", "false"), ("compression", "zstd")])
        else {
            panic!("an image");
        };
        assert_eq!(image.names, ["a:latest", "b:2"]);
        assert!(image.push && !image.store && written.form.oci);
        let Ok(Output { kind: Kind::Archive { with_docker: true, written, .. }, .. }) = read("docker", &[]) else {
            panic!("an archive");
        };
        assert!(!written.form.oci);
        let without = proto::BuildOptions { tags: vec!["x".to_owned()], ..Default::default() };
        let Kind::Image { image, .. } = &parse(&without).expect("an image")[0].kind else { panic!("an image") };
        assert_eq!((image.names.as_slice(), image.store), (&["x:latest".to_owned()][..], true));
    }

    #[test]
    fn what_nobody_knows_is_refused() {
        for (exporter, attributes, why) in [
            ("iso", &[][..], "exporter \"iso\" could not be found"),
            ("oci", &[("colour", "red")], "unknown attribute \"colour\" of exporter \"oci\""),
            ("image", &[("push", "perhaps")], "non-bool value \"perhaps\" specified for push"),
            ("image", &[("push", "true")], "tag is needed when pushing to registry"),
            ("image", &[("compression", "lzma")], "unsupported layer compression type lzma"),
            ("oci", &[("compression-level", "x")], "non-int value \"x\" specified for compression-level"),
            ("local", &[("name", "x")], "unknown attribute \"name\" of exporter \"local\""),
        ] {
            assert_eq!(read(exporter, attributes).expect_err(exporter), why);
        }
    }
}
