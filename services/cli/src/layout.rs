//! OCI layouts in folders of this machine (OCI image-spec, Image Layout): what their index names.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use model::Digest;
use serde_json::{Value, json};

use crate::failure::{Failure, Outcome};
use crate::{draft, regular};

/// Where an entry of the index has its tag.
const NAME: &str = "org.opencontainers.image.ref.name";
const INDEX: &str = "index.json";
/// Each tag of a folder is an entry.
const MAX_INDEX_BYTES: u64 = 16 << 20;

/// The folder of a layout's blobs.
pub fn blobs(folder: &Path) -> PathBuf {
    folder.join("blobs/sha256")
}

pub fn blob(folder: &Path, digest: &Digest) -> PathBuf {
    blobs(folder).join(digest.hex())
}

/// What a tag means; none where no entry has it.
///
/// # Errors
/// A folder that is no layout.
pub fn resolve(folder: &Path, tag: &str) -> Outcome<Option<Digest>> {
    let index = read(folder)?;
    let entries = index["manifests"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = entries.iter().rev().find(|entry| has_tag(entry, tag));
    let Some(found) = found else { return Ok(None) };
    let digest = found["digest"].as_str().unwrap_or_default();
    digest.parse().map(Some).map_err(|_| Failure::new(format!("{}: {digest:?} is no digest", folder.display())))
}

/// Has a tag mean what a descriptor describes, whatever it has meant. Builds that end at the same time wait for each other.
pub fn put(folder: &Path, descriptor: &Value, tag: &str) -> Outcome<()> {
    let turn = std::fs::File::open(folder)?;
    turn.lock()?;
    let empty = || json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []});
    let mut index = if folder.join(INDEX).exists() { read(folder)? } else { empty() };
    let mut entry = descriptor.clone();
    let Some(fields) = entry.as_object_mut() else {
        return Err(Failure::new(format!("{}: {descriptor} describes nothing", folder.display())));
    };
    let annotations = fields.entry("annotations").or_insert_with(|| json!({}));
    match annotations.as_object_mut() {
        Some(annotations) => drop(annotations.insert(NAME.to_owned(), tag.into())),
        None => *annotations = json!({NAME: tag}),
    }
    let entries = index.get_mut("manifests").and_then(Value::as_array_mut);
    let entries = entries.ok_or_else(|| Failure::new(format!("{}: {INDEX} has no manifests", folder.display())))?;
    entries.retain(|old| !has_tag(old, tag));
    entries.push(entry);
    write(folder, "oci-layout", &json!({"imageLayoutVersion": "1.0.0"}))?;
    write(folder, INDEX, &index)
}

fn has_tag(entry: &Value, tag: &str) -> bool {
    entry["annotations"][NAME] == tag
}

fn read(folder: &Path) -> Outcome<Value> {
    let told = |why: String| Failure::new(format!("{}: {why}", folder.join(INDEX).display()));
    let file = regular::open(&folder.join(INDEX)).map_err(|e| told(crate::commands::os_words(&e)))?;
    let mut bytes = Vec::new();
    file.take(MAX_INDEX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| told(crate::commands::os_words(&e)))?;
    if bytes.len() as u64 > MAX_INDEX_BYTES {
        return Err(told(format!("larger than {MAX_INDEX_BYTES} bytes")));
    }
    serde_json::from_slice(&bytes).map_err(|e| told(e.to_string()))
}

/// A page is there whole, or as it was.
fn write(folder: &Path, name: &str, page: &Value) -> Outcome<()> {
    let written = || -> io::Result<()> {
        let mut next = draft::begin(folder)?;
        next.write_all(page.to_string().as_bytes())?;
        draft::finish(next, &folder.join(name))
    };
    Ok(written()?)
}

/// `DIR[:TAG][@DIGEST]` of `oci-layout://`.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    pub folder: PathBuf,
    pub tag: Option<String>,
    pub digest: Option<Digest>,
}

impl Place {
    pub fn parse(text: &str) -> Self {
        let (rest, digest) = match text.rsplit_once('@') {
            Some((rest, digest)) if digest.parse::<Digest>().is_ok() => (rest, digest.parse().ok()),
            _ => (text, None),
        };
        let is_tag = |tag: &str| !tag.is_empty() && tag.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        let (folder, tag) = match rest.rsplit_once(':') {
            Some((folder, tag)) if is_tag(tag) => (folder, Some(tag.to_owned())),
            _ => (rest, None),
        };
        Self { folder: PathBuf::from(folder), tag, digest }
    }

    /// The image that is meant: by digest, else by tag, else `latest`.
    ///
    /// # Errors
    /// A folder that is no layout, and a tag that it does not have.
    pub fn digest(&self) -> Outcome<Digest> {
        if let Some(digest) = &self.digest {
            return Ok(digest.clone());
        }
        let tag = self.tag.as_deref().unwrap_or("latest");
        let missing = || Failure::new(format!("{}: no image has the tag {tag:?}", self.folder.display()));
        resolve(&self.folder, tag)?.ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let digest = Digest::of(b"x");
        for (text, folder, tag, has_digest) in [
            ("/a/b".to_owned(), "/a/b", None, false),
            ("a/b:v1.2-x".to_owned(), "a/b", Some("v1.2-x"), false),
            (format!("a@b:v1@{digest}"), "a@b", Some("v1"), true),
            (format!("a@{digest}"), "a", None, true),
            ("/odd:name/x".to_owned(), "/odd:name/x", None, false),
            ("a@sha256:12".to_owned(), "a@sha256", Some("12"), false),
        ] {
            let place = Place::parse(&text);
            let found = (place.folder.to_str(), place.tag.as_deref(), place.digest.is_some());
            assert_eq!(found, (Some(folder), tag, has_digest), "{text}");
        }
    }

    #[test]
    fn a_tag_means_what_it_was_given_last() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        assert!(resolve(folder, "latest").is_err(), "no layout");
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let entry = |digest: &Digest| json!({"mediaType": "m", "size": 1, "digest": digest.to_string()});
        put(folder, &entry(&one), "latest").expect("written");
        put(folder, &entry(&one), "v1").expect("written");
        put(folder, &entry(&two), "latest").expect("written");
        assert_eq!(resolve(folder, "latest").expect("a layout"), Some(two));
        assert_eq!(Place::parse(&format!("{}:v1", folder.display())).digest().expect("there"), one);
        assert_eq!(resolve(folder, "v2").expect("a layout"), None);
        assert_eq!(read(folder).expect("a layout")["manifests"].as_array().map(Vec::len), Some(2));
        for broken in ["{", "[]", "{}", "3"] {
            std::fs::write(folder.join(INDEX), broken).expect("written");
            assert!(put(folder, &entry(&one), "v1").is_err(), "what is there is not lost: {broken}");
        }
        assert!(put(folder, &json!("no descriptor"), "v1").is_err());
    }

    #[test]
    fn builds_that_end_at_once_lose_no_tag() {
        let folder = tempfile::tempdir().expect("a folder");
        let entry = json!({"mediaType": "m", "size": 1, "digest": Digest::of(b"1").to_string()});
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (folder, entry) = (folder.path(), &entry);
                scope.spawn(move || {
                    (0..20).for_each(|tag| put(folder, entry, &format!("t{thread}-{tag}")).expect("written"));
                });
            }
        });
        let index = read(folder.path()).expect("a layout");
        assert_eq!(index["manifests"].as_array().map(Vec::len), Some(80));
    }
}
