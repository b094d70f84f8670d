//! Files that steps read: where they come from, which are meant, and what they are worth in a key.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use contexts::Tree;
use dockerfile::Ignore;
use proto::step_input::From;

use super::Graph;
use super::key::{self, FileInput};
use super::view::View;
use crate::context::Context;
use crate::copy::hash::{self, Rules};
use crate::copy::sources;
use crate::failure::{Doing as _, Failure};
use crate::layers::blocking;
use crate::rooted::{Root, clean};

/// Where files come from.
#[derive(Clone)]
pub enum Origin {
    /// A context that was sent as a tar.
    Context(Arc<Context>),
    /// What a client sent.
    Tree(proto::Descriptor, Arc<Tree>),
    /// A stage or an image, base layer first.
    Layers(Vec<proto::Layer>),
    /// The Dockerfile itself.
    Inline(Vec<proto::InlineFile>),
}

/// What a step reads of an origin.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Patterns, or one path where the whole is read.
    pub paths: Vec<String>,
    pub excludes: Vec<String>,
    /// The names of folders above count.
    pub parents: bool,
    /// It is a mount: one path, whose name does not count.
    pub whole: bool,
}

impl Origin {
    pub fn input(&self) -> proto::StepInput {
        let from = match self {
            Self::Context(context) => From::Tar(context.blob.clone().unwrap_or_default()),
            Self::Tree(descriptor, _) => From::Tree(descriptor.clone()),
            Self::Layers(layers) => From::Layers(proto::LayerList { layers: layers.clone() }),
            Self::Inline(files) => From::Files(proto::InlineFiles { files: files.clone() }),
        };
        proto::StepInput { from: Some(from) }
    }
}

impl Reading {
    /// What it is worth without a look at any file: by the layers' digests. Not for a context, whose files are there.
    pub fn quickly(&self, origin: &Origin) -> Option<Vec<FileInput>> {
        let digest = match origin {
            Origin::Context(_) | Origin::Tree(..) => return None,
            Origin::Layers(layers) => {
                let chain: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
                key::digest(chain.join(" ").as_bytes())
            }
            Origin::Inline(files) => return Some(inline(files)),
        };
        let name = |path: &String| FileInput { name: path.clone(), digest: format!("layers {digest}") };
        Some(self.paths.iter().map(name).collect())
    }
}

impl Graph {
    /// What a step reads, by content.
    ///
    /// # Errors
    /// `User` for a file that is not there, in BuildKit's words.
    pub(super) async fn digests(&self, origin: &Origin, reading: &Reading) -> Result<Vec<FileInput>, Failure> {
        let reading = reading.clone();
        match origin {
            Origin::Inline(files) => Ok(inline(files)),
            Origin::Context(context) => {
                let context = context.clone();
                blocking(move || {
                    let folder = context.folder.clone();
                    reading.digests(&folder, |root, path| context.hash(root, path), Rules { owners: false })
                })
                .await
            }
            Origin::Tree(_, tree) => {
                let tree = tree.clone();
                blocking(move || reading.of_tree(&View(&tree))).await
            }
            Origin::Layers(layers) => {
                let folder = self.executor.worker.machine.step_folder(&self.executor.build_id);
                let tree = crate::tree::Tree::mount(&self.executor.layers, layers, folder).await?;
                blocking(move || {
                    let rules = Rules { owners: true };
                    reading.digests(&tree.root(), |root, path| hash::of(root, path, rules), rules)
                })
                .await
            }
        }
    }
}

impl Reading {
    fn of_tree(&self, view: &View) -> Result<Vec<FileInput>, Failure> {
        let mut files = Vec::new();
        let excludes = self.ignore();
        for pattern in &self.paths {
            let wanted = Wanted::new(pattern, self.parents);
            for path in wanted.find_in(view).ok_or_else(|| missing(pattern))? {
                let leads = view.follow(&path).ok_or_else(|| missing(pattern))?;
                let digest = view.digest(&leads, &|below, is_dir| wanted.leaves_out(excludes.as_ref(), below, is_dir));
                let name = if self.whole { String::new() } else { wanted.name(&path) };
                files.push(FileInput { name, digest });
            }
        }
        Ok(files)
    }

    /// The files that are read of a tree, each with its digest.
    pub fn files_of(&self, view: &View) -> Vec<(String, String)> {
        let excludes = self.ignore();
        let mut files = Vec::new();
        for pattern in &self.paths {
            let wanted = Wanted::new(pattern, self.parents);
            for path in wanted.find_in(view).unwrap_or_default() {
                let Some(leads) = view.follow(&path) else { continue };
                let leaves_out = |below: &Path, is_dir: bool| wanted.leaves_out(excludes.as_ref(), below, is_dir);
                files.extend(view.files(&leads, &leaves_out));
            }
        }
        files
    }

    fn ignore(&self) -> Option<Ignore> {
        (!self.excludes.is_empty()).then(|| Ignore::parse(&self.excludes.join("\n")))
    }

    fn digests(
        &self,
        folder: &Path,
        hash: impl Fn(&Root, &Path) -> io::Result<String>,
        rules: Rules,
    ) -> Result<Vec<FileInput>, Failure> {
        let root = Root::open(folder).doing(|| "opening a step's files".to_owned())?;
        let mut files = Vec::new();
        let excludes = self.ignore();
        for pattern in &self.paths {
            let wanted = Wanted::new(pattern, self.parents);
            for path in
                wanted.find(&root).doing(|| format!("looking for {pattern}"))?.ok_or_else(|| missing(pattern))?
            {
                let digest = match (&excludes, &wanted.inside) {
                    (None, None) => hash(&root, &path),
                    (excludes, _) => hash::of_some(&root, &path, rules, &|below, is_dir| {
                        wanted.leaves_out(excludes.as_ref(), below, is_dir)
                    }),
                };
                let digest = digest.doing(|| format!("reading {}", path.display()))?;
                let name = if self.whole { String::new() } else { wanted.name(&path) };
                files.push(FileInput { name, digest });
            }
        }
        Ok(files)
    }
}

/// A source word of COPY or ADD.
pub struct Wanted {
    /// The pattern of what is copied; with `--parents` the folder that names are relative to.
    pattern: String,
    /// With `--parents`: what is copied of that folder.
    pub inside: Option<Inside>,
}

/// A pattern below a folder, of which the folders on the way are copied too.
pub struct Inside {
    parts: Vec<String>,
    /// It must be there.
    pub required: bool,
}

impl Wanted {
    pub fn new(word: &str, parents: bool) -> Self {
        if !parents {
            return Self { pattern: word.to_owned(), inside: None };
        }
        // What stands before the pivot is not part of the names.
        let (folder, below) = word.split_once("/./").unwrap_or(("/", word));
        let parts = clean(Path::new(below)).iter().map(|part| part.to_string_lossy().into_owned()).collect();
        let required = !sources::has_wildcards(word);
        Self {
            pattern: if folder.is_empty() { "/" } else { folder }.to_owned(),
            inside: Some(Inside { parts, required }),
        }
    }

    /// Paths relative to the root; `None` where a path without wildcards is not there.
    pub fn find(&self, root: &Root) -> io::Result<Option<Vec<PathBuf>>> {
        if sources::has_wildcards(&self.pattern) {
            return sources::matches(root, self.relative()).map(Some);
        }
        let path = clean(Path::new(&sources::unescape(&self.pattern)));
        let there = self.required(&path);
        match root.stat(&there) {
            Ok(_) => Ok(Some(vec![path])),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// As [`Wanted::find`], in a tree.
    fn find_in(&self, view: &View) -> Option<Vec<PathBuf>> {
        if sources::has_wildcards(&self.pattern) {
            return Some(view.matches(self.relative()));
        }
        let path = clean(Path::new(&sources::unescape(&self.pattern)));
        view.follow(&self.required(&path)).map(|_| vec![path])
    }

    fn relative(&self) -> &str {
        self.pattern.trim_start_matches("./").trim_start_matches('/')
    }

    /// What must be there for a path without wildcards.
    fn required(&self, path: &Path) -> PathBuf {
        match &self.inside {
            Some(Inside { parts, required: true }) => path.join(parts.iter().collect::<PathBuf>()),
            _ => path.to_owned(),
        }
    }

    /// Whether something below the folder is not copied.
    fn leaves_out(&self, excludes: Option<&Ignore>, below: &Path, is_dir: bool) -> bool {
        excludes.is_some_and(|ignore| ignore.excludes(&below.to_string_lossy(), is_dir))
            || self.inside.as_ref().is_some_and(|inside| match is_dir {
                true => !inside.reaches(below),
                false => !inside.covers(below),
            })
    }

    /// The part of a path that shows in the result.
    fn name(&self, path: &Path) -> String {
        match &self.inside {
            Some(inside) => inside.parts.join("/"),
            None => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        }
    }
}

impl Inside {
    /// Whether a path below the folder is copied, or leads to what is.
    pub fn reaches(&self, below: &Path) -> bool {
        self.walk(below).is_some()
    }

    /// Whether the pattern's end is at this path or above it: all below is copied.
    pub fn covers(&self, below: &Path) -> bool {
        self.walk(below) == Some(true)
    }

    /// Follows a path through the pattern: none where it leads away from it, true where it has come to its end. A part
    /// `**` stands for any number of folders.
    fn walk(&self, below: &Path) -> Option<bool> {
        let end = self.parts.len();
        let is_any = |at: usize| self.parts.get(at).is_some_and(|part| part == "**");
        // Each place in the pattern where the path may be; `**` may stand for nothing.
        let skip = |mut places: BTreeSet<usize>| {
            for at in (0..end).filter(|at| is_any(*at)) {
                if places.contains(&at) {
                    places.insert(at + 1);
                }
            }
            places
        };
        let mut places = skip(BTreeSet::from([0]));
        for component in below {
            if places.contains(&end) {
                return Some(true);
            }
            let name = component.to_string_lossy();
            let matches = |at: usize| dockerfile::Glob::new(&self.parts[at]).is_some_and(|glob| glob.matches(&name));
            let next = places.iter().filter_map(|&at| match is_any(at) {
                true => Some(at),
                false => matches(at).then_some(at + 1),
            });
            places = skip(next.collect());
            if places.is_empty() {
                return None;
            }
        }
        Some(places.contains(&end))
    }
}

pub fn missing(path: &str) -> Failure {
    let path = Path::new("/").join(clean(Path::new(path)));
    let reference = key::digest(path.as_os_str().as_encoded_bytes());
    Failure::user(format!(
        "failed to compute cache key: failed to calculate checksum of ref {}: \"{}\": not found",
        &reference[..25.min(reference.len())],
        path.display()
    ))
}

fn inline(files: &[proto::InlineFile]) -> Vec<FileInput> {
    files.iter().map(|file| FileInput { name: file.name.clone(), digest: key::digest(&file.content) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_below_a_folder() {
        for (word, path, expected) in [
            ("x/**/c.txt", "x", Some(false)),
            ("x/**/c.txt", "x/c.txt", Some(true)),
            ("x/**/c.txt", "x/y", Some(false)),
            ("x/**/c.txt", "x/y/b.txt", Some(false)),
            ("x/**/c.txt", "x/y/z/c.txt", Some(true)),
            ("x/**/c.txt", "x/y/c.txt/below", Some(true)),
            ("x/**/c.txt", "y", None),
            ("x/**", "x/y/z", Some(true)),
            ("**/a/**/b", "q/a/w/e/b", Some(true)),
            ("x/y", "x", Some(false)),
            ("x/y", "x/y/z", Some(true)),
            ("x/*.md", "x/a.txt", None),
            (".", "anything", Some(true)),
        ] {
            let inside = Wanted::new(word, true).inside.expect("a pattern");
            assert_eq!(inside.walk(Path::new(path)), expected, "{word} {path}");
        }
    }
}
