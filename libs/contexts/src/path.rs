use std::collections::HashSet;

use crate::{Error, by_components};

const MAX_PATH_BYTES: usize = 4095;
const MAX_NAME_BYTES: usize = 255;

/// Relative, without `.`, `..`, empty components or NUL, and of a length that Linux can hold.
fn is_clean(path: &str) -> bool {
    let is_name = |name: &str| !matches!(name, "" | "." | "..") && name.len() <= MAX_NAME_BYTES;
    path.len() <= MAX_PATH_BYTES && !path.contains('\0') && path.split('/').all(is_name)
}

/// Takes the paths of a tree one after the other, and refuses one that is not clean, not in order, or in no folder.
#[derive(Debug, Default)]
pub struct Sequence {
    last: Option<String>,
    folders: HashSet<String>,
}

impl Sequence {
    /// # Errors
    /// `InvalidArgument`: `Path`, `Order` or `Parent`.
    pub fn next(&mut self, path: &str, is_folder: bool) -> Result<(), Error> {
        if !is_clean(path) {
            return Err(Error::Path(path.to_owned()));
        }
        if let Some(last) = &self.last
            && by_components(last, path).is_ge()
        {
            return Err(Error::Order { path: path.to_owned(), before: last.clone() });
        }
        if let Some((parent, _)) = path.rsplit_once('/')
            && !self.folders.contains(parent)
        {
            return Err(Error::Parent { path: path.to_owned(), parent: parent.to_owned() });
        }
        if is_folder {
            self.folders.insert(path.to_owned());
        }
        self.last = Some(path.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clean_paths_in_folders_of_the_tree() {
        let long = "x".repeat(256);
        for (paths, passes) in [
            (&["a/", "a/b", "a.b"][..], true),
            (&["a", "b"], true),
            (&["a/", "a/b/", "a/b/c"], true),
            (&["b", "a"], false),
            (&["a", "a"], false),
            (&["a/b"], false),
            // A link or a file is no folder.
            (&["a", "a/b"], false),
            (&["/a"], false),
            (&[".."], false),
            (&["../a"], false),
            (&["a/", "a/../b"], false),
            (&["a/", "a//b"], false),
            (&["."], false),
            (&[""], false),
            (&["a\0b"], false),
            (&[long.as_str()], false),
        ] {
            let mut sequence = Sequence::default();
            let passed = paths.iter().all(|path| {
                let (name, is_folder) = path.strip_suffix('/').map_or((*path, false), |name| (name, true));
                sequence.next(name, is_folder).is_ok()
            });
            assert_eq!(passed, passes, "{paths:?}");
        }
    }
}
