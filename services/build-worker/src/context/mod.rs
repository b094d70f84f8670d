//! The build context: fetched, unpacked into a folder of its own, and its Dockerfile read.

pub mod kept;
pub mod recent;
pub mod trees;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use distribution::Store;
use dockerfile::{Dialect, Ignore};
use snapshots::UnpackOptions;

use crate::archive::decompress;
use crate::copy::hash;
use crate::failure::{Doing as _, Failure, chain};
use crate::halt;
use crate::layers::blocking;
use crate::remote::access::Access;
use crate::remote::{git, http};
use crate::rooted::{self, Place, Root, clean, is_dir};
use crate::space::{self, Watched};

const DOCKERFILE: &str = "Dockerfile";
const IGNORE_FILE: &str = ".dockerignore";
const TEXT_LIMIT_BYTES: u64 = 4 << 20;

/// An unpacked context; its files do not change.
#[derive(Debug)]
pub struct Context {
    pub folder: PathBuf,
    /// Text of the Dockerfile.
    pub dockerfile: String,
    /// What the context was made of; empty for one that may be another the next time.
    pub key: String,
    /// Sum of its files' sizes.
    pub bytes: u64,
    /// The tar that it was made of, where it lies in the layer store.
    pub blob: Option<proto::Descriptor>,
    /// Text of its ignore file, where it has one.
    pub ignore: Option<String>,
    /// Of sources that were looked at.
    hashes: Mutex<HashMap<PathBuf, String>>,
}

/// Names the context of a build; empty when only fetching tells.
pub fn key(options: &proto::BuildOptions) -> String {
    match &options.context {
        Some(blob) if options.remote.is_empty() => {
            model::Digest::of(format!("{} {}", blob.digest, options.dockerfile).as_bytes()).hex().to_owned()
        }
        _ => String::new(),
    }
}

impl Context {
    /// Brings the context of a build into `folder`, which is made. A repository's server is shown what `access` says.
    pub async fn fetch(
        store: &Store,
        options: &proto::BuildOptions,
        (folder, access): (PathBuf, &Access),
    ) -> Result<Self, Failure> {
        std::fs::create_dir_all(&folder).doing(|| format!("making {}", folder.display()))?;
        space::ensure(&folder, 0).doing(|| "unpacking the context".to_owned())?;
        let remote = options.remote.as_str();
        let mut bytes = 0;
        let folder = if remote.is_empty() {
            bytes = unpack_blob(store, options.context.as_ref(), &folder).await?;
            folder
        } else if git::is_git(remote) {
            git::check_out(remote, &folder, access).await?
        } else if remote.starts_with("http://") || remote.starts_with("https://") {
            unpack_remote(remote, &folder).await?;
            folder
        } else {
            return Err(Failure::user(format!("remoteURL ({remote}) could not be recognized as URL")));
        };
        // Clients leave ignored files out themselves; only of a repository it is done here.
        let whole = git::is_git(remote);
        let name = options.dockerfile.clone();
        let blob = if remote.is_empty() { options.context.clone() } else { None };
        let words = if options.graph { Dialect::BuildKit } else { Dialect::Classic };
        let rules = Rules { whole, words, has_dockerfile: !options.session_dockerfile };
        let (key, read) = (key(options), blocking(move || read(folder, &name, &rules)).await?);
        Ok(Self { key, bytes, blob, ..read })
    }

    /// The digest of a source; computed once.
    pub fn hash(&self, root: &Root, path: &Path) -> std::io::Result<String> {
        if let Some(known) = self.hashes.lock().expect("no holder panics").get(path) {
            return Ok(known.clone());
        }
        let hash = hash::of(root, path, hash::Rules { owners: false })?;
        self.hashes.lock().expect("no holder panics").insert(path.to_owned(), hash.clone());
        Ok(hash)
    }
}

async fn unpack_blob(store: &Store, blob: Option<&proto::Descriptor>, folder: &Path) -> Result<u64, Failure> {
    let blob = blob.ok_or_else(|| Failure::internal("a build without a context"))?;
    let digest = blob.digest.parse().map_err(Failure::caused)?;
    let reader = halt::reader(store.get(&digest)).await?;
    let folder = folder.to_owned();
    blocking(move || unpack(reader, &folder)).await
}

/// Everything belongs to root in a context, whoever packed it.
fn unpack(tar: impl std::io::Read, folder: &Path) -> Result<u64, Failure> {
    let broken = |error: String| Failure::user(format!("Error processing tar file: {error}"));
    let mut tar = decompress(tar).map_err(|error| broken(error.to_string()))?;
    let mut tar = Watched::new(&mut tar, folder);
    let options = UnpackOptions { owner: Some((0, 0)), ..UnpackOptions::default() };
    let bytes = snapshots::unpack(folder, Path::new(""), &mut tar, &options).map_err(|error| match error.kind() {
        model::ErrorKind::InvalidArgument | model::ErrorKind::Corrupt => broken(chain(&error)),
        _ => Failure::caused(error),
    })?;
    // The blob's digest is checked at its end.
    std::io::copy(&mut tar, &mut std::io::sink()).map_err(|error| broken(error.to_string()))?;
    Ok(bytes)
}

/// A URL gives a Dockerfile or an archive.
async fn unpack_remote(url: &str, folder: &Path) -> Result<(), Failure> {
    let failed = |why: String| Failure::user(format!("error downloading remote context {url}: {why}"));
    let download = folder.with_extension("download");
    let fetched = http::download_as(url, download.clone(), "content").await.map_err(failed)?;
    let (folder, file) = (folder.to_owned(), fetched.folder.join(fetched.name));
    blocking(move || {
        let opening = || format!("opening {}", file.display());
        let mut content = std::fs::File::open(&file).doing(opening)?;
        if crate::archive::is_archive(&mut content).doing(opening)? {
            return unpack(content, &folder).map(drop);
        }
        std::fs::rename(&file, folder.join(DOCKERFILE)).doing(opening)
    })
    .await
}

/// What is read of an unpacked context.
struct Rules {
    /// What is ignored has not been left out by a client.
    whole: bool,
    words: Dialect,
    /// The Dockerfile is its own.
    has_dockerfile: bool,
}

fn read(folder: PathBuf, name: &str, rules: &Rules) -> Result<Context, Failure> {
    let root = Root::open(&folder).doing(|| "opening the context".to_owned())?;
    let name = if name.is_empty() { DOCKERFILE } else { name };
    let mut path = clean(Path::new(name));
    if root.stat(&path).is_err() && name == DOCKERFILE {
        // As Docker: the lower-case name will do.
        path = PathBuf::from(DOCKERFILE.to_lowercase());
    }
    let content = match rules.has_dockerfile {
        true => read_dockerfile(&root, &path, (name, rules.words))?,
        false => Vec::new(),
    };
    let ignored = rooted::read_limited(&root, Path::new(IGNORE_FILE), TEXT_LIMIT_BYTES);
    let ignored = ignored.ok().map(|ignored| String::from_utf8_lossy(&ignored).into_owned());
    if let Some(ignored) = &ignored {
        let ignore = Ignore::parse(ignored);
        leave_out(&root, &ignore, &path, rules.whole).doing(|| format!("applying {IGNORE_FILE}"))?;
    }
    Ok(Context {
        folder,
        dockerfile: String::from_utf8_lossy(&content).into_owned(),
        key: String::new(),
        bytes: 0,
        blob: None,
        ignore: ignored,
        hashes: Mutex::default(),
    })
}

fn read_dockerfile(root: &Root, path: &Path, (name, words): (&str, Dialect)) -> Result<Vec<u8>, Failure> {
    let content = rooted::read_limited(root, path, TEXT_LIMIT_BYTES).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Failure::user(match words {
            Dialect::Classic => format!("Cannot locate specified Dockerfile: {name}"),
            Dialect::BuildKit => format!("failed to read dockerfile: open {name}: no such file or directory"),
        }),
        _ => Failure::user(format!("failed to read dockerfile: {name}: {error}")),
    })?;
    if content.is_empty() && words == Dialect::Classic {
        return Err(Failure::user(format!("the Dockerfile ({name}) cannot be empty")));
    }
    Ok(content)
}

/// Removes what is ignored. The two files that a client must send come last, since they were needed until now.
fn leave_out(root: &Root, ignore: &Ignore, dockerfile: &Path, whole: bool) -> std::io::Result<()> {
    if whole {
        let top = Place { dir: root.dir(Path::new(""))?.into(), name: ".".into() };
        remove_ignored(&top, Path::new(""), ignore)?;
    }
    for path in [dockerfile, Path::new(IGNORE_FILE)] {
        if path.to_str().is_some_and(|text| ignore.excludes(text, false))
            && let Ok(place) = root.place(path)
        {
            place.remove()?;
        }
    }
    Ok(())
}

fn remove_ignored(folder: &Place, path: &Path, ignore: &Ignore) -> std::io::Result<()> {
    for child in folder.children()? {
        let path = path.join(&child.name);
        let Some(stat) = child.stat()? else { continue };
        let excluded = path.to_str().is_some_and(|text| ignore.excludes(text, is_dir(&stat)));
        if excluded {
            child.remove()?;
        } else if is_dir(&stat) {
            remove_ignored(&child, &path, ignore)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: Rules = Rules { whole: false, words: Dialect::Classic, has_dockerfile: true };

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let temp = tempfile::tempdir().expect("temp folder");
        for (name, content) in files {
            let path = temp.path().join(name);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            std::fs::write(path, content).expect("file");
        }
        temp
    }

    fn error(files: &[(&str, &str)], name: &str) -> String {
        let temp = folder(files);
        read(temp.path().to_owned(), name, &SENT).expect_err("an error").to_string()
    }

    #[test]
    fn dockerfiles() {
        let temp = folder(&[("dockerfile", "FROM a"), ("sub/D", "FROM b")]);
        let text = |name| read(temp.path().to_owned(), name, &SENT).expect("read").dockerfile;
        assert_eq!(text(""), "FROM a");
        assert_eq!(text("sub/D"), "FROM b");
        assert_eq!(text("../../sub/D"), "FROM b", "a path stays inside");
        assert_eq!(error(&[], "nope"), "Cannot locate specified Dockerfile: nope");
        assert_eq!(error(&[("Dockerfile", "")], ""), "the Dockerfile (Dockerfile) cannot be empty");
    }

    #[test]
    fn ignored_files() {
        let files = [
            ("Dockerfile", "FROM a"),
            (".dockerignore", "Dockerfile\n*.log\nd\n!d/keep\n"),
            ("a.log", ""),
            ("d/x", ""),
            ("d/keep", ""),
        ];
        let sent = folder(&files);
        read(sent.path().to_owned(), "", &SENT).expect("read");
        assert!(!sent.path().join("Dockerfile").exists(), "it was only sent because it is needed");
        assert!(sent.path().join("a.log").exists(), "the client did not leave it out");
        let cloned = folder(&files);
        read(cloned.path().to_owned(), "", &Rules { whole: true, ..SENT }).expect("read");
        assert!(!cloned.path().join("a.log").exists() && !cloned.path().join("d/x").exists());
        assert!(cloned.path().join("d/keep").exists());
    }
}
