//! `--cache-from` and `--cache-to`. Those of type `local` are OCI layouts on this machine: the daemon reads and writes their
//! blobs, what their tags mean is ours to look up and to write.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::outputs::{Typed, typed};
use crate::failure::{Failure, Outcome};
use crate::layout;

const TAG: &str = "latest";

#[derive(Debug, Default)]
pub struct Caches {
    pub imports: Vec<Typed>,
    pub exports: Vec<Typed>,
    /// Folders by the names that the daemon asks for.
    pub contents: BTreeMap<String, PathBuf>,
    pub written: Written,
}

/// Layouts whose index is to name what the build leaves there.
#[derive(Debug, Default)]
pub struct Written(Vec<Place>);

#[derive(Debug)]
struct Place {
    /// Which of the exports it is.
    number: usize,
    folder: PathBuf,
    tag: String,
}

impl Caches {
    /// Reads the flags. A local cache that is not there is warned of and left out, as BuildKit's clients do.
    pub fn parse(from: &[String], to: &[String]) -> Outcome<Self> {
        let mut caches = Self::default();
        for flag in from {
            caches.import(cache(flag)?)?;
        }
        for (number, flag) in to.iter().enumerate() {
            caches.export(number, cache(flag)?)?;
        }
        Ok(caches)
    }

    fn import(&mut self, mut typed: Typed) -> Outcome<()> {
        if typed.kind == "local" {
            let folder = required(&typed, "src", "ERROR: local cache importer requires src")?;
            match digest(Path::new(&folder), &typed) {
                Ok(digest) => drop(typed.attributes.insert("digest".to_owned(), digest)),
                Err(why) => {
                    eprintln!("WARNING: local cache import at {folder} skipped: {why}");
                    return Ok(());
                }
            }
            self.contents.insert(format!("local:{folder}"), PathBuf::from(folder));
        }
        self.imports.push(typed);
        Ok(())
    }

    fn export(&mut self, number: usize, typed: Typed) -> Outcome<()> {
        if typed.kind == "local" {
            let folder = required(&typed, "dest", "ERROR: local cache exporter requires dest")?;
            let tag = typed.attributes.get("tag").cloned().unwrap_or_else(|| TAG.to_owned());
            self.written.0.push(Place { number, folder: PathBuf::from(&folder), tag });
            self.contents.insert(format!("local:{folder}"), PathBuf::from(folder));
        }
        self.exports.push(typed);
        Ok(())
    }
}

impl Written {
    /// Makes the folders, once it is clear that the build begins.
    pub fn prepare(&self) -> Outcome {
        for Place { folder, .. } in &self.0 {
            let told =
                |e| Failure::new(format!("ERROR: mkdir {}: {}", folder.display(), crate::commands::os_words(&e)));
            std::fs::create_dir_all(folder).map_err(told)?;
        }
        Ok(())
    }

    /// Writes what the tags mean now, as the daemon's response says. A cache whose export failed is as it was.
    pub fn update(&self, response: &Value) -> Outcome<()> {
        for Place { number, folder, tag } in &self.0 {
            let Some(manifest) = response[format!("cache.manifest.{number}")].as_str() else { continue };
            layout::put(folder, &serde_json::from_str(manifest)?, tag)?;
        }
        Ok(())
    }
}

/// A reference alone is a registry's.
fn cache(flag: &str) -> Outcome<Typed> {
    if !flag.contains('=') {
        let attributes = BTreeMap::from([("ref".to_owned(), flag.to_owned())]);
        return Ok(Typed { kind: "registry".to_owned(), attributes });
    }
    let typed = typed(flag, "cache")?;
    match typed.kind.is_empty() {
        true => Err(Failure::new(format!("ERROR: type required form> {flag:?}"))),
        false => Ok(typed),
    }
}

fn required(typed: &Typed, name: &str, missing: &str) -> Outcome<String> {
    let value = typed.attributes.get(name).filter(|value| !value.is_empty());
    value.cloned().ok_or_else(|| Failure::new(missing))
}

/// The manifest of a local cache: by digest, else by tag.
fn digest(folder: &Path, typed: &Typed) -> Result<String, String> {
    let digest = match typed.attributes.get("digest").filter(|digest| !digest.is_empty()) {
        Some(digest) => digest.parse().map_err(|_| format!("{digest:?} is no digest"))?,
        None => {
            let tag = typed.attributes.get("tag").map_or(TAG, String::as_str);
            let found = layout::resolve(folder, tag).map_err(|failure| failure.message)?;
            found.ok_or_else(|| format!("no digest found for tag {tag}"))?
        }
    };
    let blob = layout::blob(folder, &digest);
    std::fs::metadata(blob).map_err(|e| format!("digest {digest} unavailable: {}", crate::commands::os_words(&e)))?;
    Ok(digest.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(from: &[&str], to: &[&str]) -> Result<Caches, String> {
        let owned = |flags: &[&str]| flags.iter().map(|flag| (*flag).to_owned()).collect::<Vec<_>>();
        Caches::parse(&owned(from), &owned(to)).map_err(|failure| failure.message)
    }

    #[test]
    fn caches_of_registries_and_of_folders() {
        let folder = tempfile::tempdir().expect("a folder");
        let dest = folder.path().join("a/b").display().to_string();
        let to = read(&["user/app:c"], &["type=inline", &format!("type=local,dest={dest},mode=max,tag=t")]);
        let to = to.expect("read");
        assert_eq!((to.imports[0].kind.as_str(), to.imports[0].attributes["ref"].as_str()), ("registry", "user/app:c"));
        assert_eq!(to.contents[&format!("local:{dest}")], PathBuf::from(&dest));
        assert!(!Path::new(&dest).exists(), "the build may be refused still");
        to.written.prepare().expect("made");
        assert!(Path::new(&dest).is_dir());
        let digest = model::Digest::of(b"manifest");
        std::fs::create_dir_all(layout::blobs(Path::new(&dest))).expect("folders");
        std::fs::write(layout::blob(Path::new(&dest), &digest), "manifest").expect("a blob");
        let manifest = serde_json::json!({"mediaType": "m", "digest": digest.to_string(), "size": 8}).to_string();
        to.written.update(&serde_json::json!({"cache.manifest.1": manifest})).expect("written");
        let from = read(&[&format!("type=local,src={dest},tag=t"), &format!("type=local,src={dest}")], &[]);
        let from = from.expect("read");
        assert_eq!(from.imports.len(), 1, "nothing has the tag latest");
        assert_eq!(from.imports[0].attributes["digest"], digest.to_string());
        assert!(read(&["type=local,src=/nowhere/at/all"], &[]).expect("left out").imports.is_empty());
    }

    #[test]
    fn what_is_refused() {
        for (from, to, why) in [
            (&["type=local"][..], &[][..], "ERROR: local cache importer requires src"),
            (&[], &["type=local,mode=max"], "ERROR: local cache exporter requires dest"),
            (&["src=x"], &[], "ERROR: type required form> \"src=x\""),
        ] {
            assert_eq!(read(from, to).expect_err("refused"), why);
        }
    }
}
