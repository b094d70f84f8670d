//! `annotation….KEY=VALUE`: what is noted of manifests, of the index, and of the index's entries.

use std::collections::BTreeMap;

use model::Platform;

use crate::failure::Failure;

/// Where an annotation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Manifest,
    ManifestDescriptor,
    Index,
}

#[derive(Debug)]
struct Annotation {
    place: Place,
    /// None: of every one.
    platform: Option<Platform>,
    key: String,
    value: String,
}

#[derive(Debug, Default)]
pub struct Annotations(Vec<Annotation>);

impl Annotations {
    /// Takes the attributes that are annotations out of the others.
    ///
    /// # Errors
    /// `User` for a place that nobody knows.
    pub fn take(attributes: &mut BTreeMap<String, String>) -> Result<Self, Failure> {
        let mut found = Vec::new();
        for (name, value) in std::mem::take(attributes) {
            match name.strip_prefix("annotation").filter(|rest| rest.starts_with(['.', '-', '['])) {
                Some(rest) => {
                    let invalid = || Failure::user(format!("invalid annotation {name:?}"));
                    found.push(parse(rest, value).ok_or_else(invalid)?);
                }
                None => {
                    attributes.insert(name, value);
                }
            }
        }
        Ok(Self(found))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn manifest(&self, platform: &Platform) -> BTreeMap<String, String> {
        self.of(Place::Manifest, Some(platform))
    }

    pub fn manifest_descriptor(&self, platform: &Platform) -> BTreeMap<String, String> {
        self.of(Place::ManifestDescriptor, Some(platform))
    }

    pub fn index(&self) -> BTreeMap<String, String> {
        self.of(Place::Index, None)
    }

    fn of(&self, place: Place, platform: Option<&Platform>) -> BTreeMap<String, String> {
        let fits = |one: &&Annotation| {
            one.place == place && one.platform.as_ref().is_none_or(|wanted| platform.is_some_and(|its| wanted == its))
        };
        self.0.iter().filter(fits).map(|one| (one.key.clone(), one.value.clone())).collect()
    }
}

/// `[-PLACE][\[PLATFORM\]].KEY`
fn parse(rest: &str, value: String) -> Option<Annotation> {
    let (place, rest) = match rest.strip_prefix('-') {
        None => (Place::Manifest, rest),
        Some(rest) => {
            let (word, rest) = rest.split_at(rest.find(['.', '['])?);
            let place = match word {
                "manifest" => Place::Manifest,
                "manifest-descriptor" => Place::ManifestDescriptor,
                "index" => Place::Index,
                _ => return None,
            };
            (place, rest)
        }
    };
    let (platform, rest) = match rest.strip_prefix('[') {
        None => (None, rest),
        Some(rest) => {
            let (platform, rest) = rest.split_once(']')?;
            (Some(platform.parse().ok()?), rest)
        }
    };
    let key = rest.strip_prefix('.').filter(|key| !key.is_empty())?.to_owned();
    Some(Annotation { place, platform, key, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(names: &[&str]) -> Result<(Annotations, Vec<String>), Failure> {
        let mut attributes = names.iter().map(|name| ((*name).to_owned(), "v".to_owned())).collect();
        let taken = Annotations::take(&mut attributes)?;
        Ok((taken, attributes.into_keys().collect()))
    }

    #[test]
    fn each_has_its_place() {
        let names = [
            "annotation.all",
            "annotation[linux/arm64].arm",
            "annotation-manifest.also",
            "annotation-index.index",
            "annotation-manifest-descriptor[linux/amd64].entry",
            "name",
        ];
        let (taken, left) = take(&names).expect("known");
        let (arm, amd) = ("linux/arm64".parse().expect("known"), "linux/amd64".parse().expect("known"));
        let keys = |found: BTreeMap<String, String>| found.into_keys().collect::<Vec<_>>();
        assert_eq!(keys(taken.manifest(&arm)), ["all", "also", "arm"]);
        assert_eq!(keys(taken.manifest(&amd)), ["all", "also"]);
        assert_eq!(keys(taken.manifest_descriptor(&amd)), ["entry"]);
        assert_eq!(keys(taken.index()), ["index"]);
        assert_eq!(left, ["name"]);
        for wrong in ["annotation-config.x", "annotation.", "annotation[nowhere].x", "annotation-index"] {
            assert!(take(&[wrong]).is_err(), "{wrong}");
        }
    }
}
