//! A file of what was built, or of what a URL leads to, for a client that reads it (BuildKit's `ReadFile`, `StatFile`).

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::files::Origin;
use super::named::{Named, parse};
use super::{Finished, Graph};
use crate::failure::Failure;
use crate::layers::blocking;
use crate::remote::Archives;
use crate::rooted::{Root, read_limited};
use crate::tree::Tree;

/// The answer is a part of the last chunk of the build's log.
const MAX_BYTES: u64 = 512 << 10;

impl Graph {
    /// # Errors
    /// `User` for what is not there, and for a file that is too large.
    pub(super) async fn look_at(&self, wanted: &proto::LookAt) -> Result<Finished, Failure> {
        let [context] = self.options.contexts.as_slice() else {
            return Err(Failure::user("one context is looked at"));
        };
        let (layers, path) = match parse(context)? {
            Named::Url(url) => self.url_to_look_at(url, &wanted.path).await?,
            Named::Brought(image) => {
                let platform = model::Platform::host();
                (self.brought(&image, &platform).await?.image.layers.clone(), PathBuf::from(&wanted.path))
            }
            _ => return Err(Failure::user(format!("context {} is not looked at", context.source))),
        };
        let folder = self.executor.worker.machine.step_folder(&self.executor.build_id);
        let tree = Tree::mount(&self.executor.layers, &layers, folder).await?;
        let wanted = wanted.clone();
        let response = blocking(move || {
            look(&tree.root(), &path, wanted.content).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Failure::user(format!("lstat {}: no such file or directory", wanted.path)),
                _ => Failure::user(format!("open {}: {error}", wanted.path)),
            })
        });
        Ok(Finished { response: response.await?, ..Finished::default() })
    }

    /// Without a path the file that the URL names.
    async fn url_to_look_at(&self, url: String, path: &str) -> Result<(Vec<proto::Layer>, PathBuf), Failure> {
        let archives = if path.is_empty() { Archives::Kept } else { Archives::Unpacked };
        let file = proto::RemoteFile { url, ..proto::RemoteFile::default() };
        let remote = self.remote(&file, archives, true).await?;
        let Origin::Layers(layers) = remote.origin else { return Err(Failure::internal("a URL without a layer")) };
        let source = PathBuf::from(&remote.source);
        // An empty one would make a folder of a file.
        Ok((layers, if path.is_empty() { source } else { source.join(path.trim_start_matches('/')) }))
    }
}

fn look(root: &Path, path: &Path, with_content: bool) -> io::Result<super::export::Response> {
    let root = Root::open(root)?;
    let stat = root.stat(path)?;
    let mut told = super::export::Response::from([
        ("mode".to_owned(), stat.st_mode.to_string()),
        ("size".to_owned(), stat.st_size.to_string()),
    ]);
    if with_content {
        told.insert("content".to_owned(), STANDARD.encode(read_limited(&root, path, MAX_BYTES)?));
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_inside_are_read() {
        let temp = tempfile::tempdir().expect("a folder");
        let at = |name: &str| temp.path().join(name);
        std::fs::write(at("file"), "text").expect("a file");
        std::fs::create_dir(at("folder")).expect("a folder");
        std::os::unix::fs::symlink("/etc/passwd", at("out")).expect("a link");
        std::fs::File::create(at("large")).and_then(|file| file.set_len(MAX_BYTES + 1)).expect("a large file");
        let told = look(temp.path(), Path::new("file"), true).expect("there");
        assert_eq!((told["content"].as_str(), told["size"].as_str()), (STANDARD.encode("text").as_str(), "4"));
        assert!(!look(temp.path(), Path::new("folder"), false).expect("there").contains_key("content"));
        for path in ["out", "none", "folder", "large", "../etc/passwd"] {
            assert!(look(temp.path(), Path::new(path), true).is_err(), "{path}");
        }
    }
}
