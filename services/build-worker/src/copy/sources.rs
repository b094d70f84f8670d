use std::io;
use std::path::{Path, PathBuf};

use dockerfile::Glob;

use crate::rooted::{self, Root, clean};

/// Where COPY and ADD look for files.
pub struct Tree<'a> {
    pub root: &'a Root,
    /// The build context, as opposed to another image: decides the words of an error.
    pub is_context: bool,
}

impl Tree<'_> {
    /// The paths that one source word means, cleaned and relative to the tree. A word without wildcards is one path
    /// that must be there; wildcards give what matches in the order of names, and nothing is no error yet.
    pub fn find(&self, word: &str) -> Result<Vec<PathBuf>, String> {
        if self.is_context && leaves(word) {
            return Err(format!("forbidden path outside the build context: {word} ()"));
        }
        if has_wildcards(word) {
            let pattern = word.trim_start_matches('/');
            let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
            return matches(self.root, pattern).map_err(|error| error.to_string());
        }
        let path = clean(Path::new(&unescape(word)));
        match self.root.stat(&path) {
            Ok(_) => Ok(vec![path]),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                let missing = format!("stat {}: file does not exist", path.display());
                Err(match self.is_context {
                    true => format!("file not found in build context or excluded by .dockerignore: {missing}"),
                    false => missing,
                })
            }
            Err(error) => Err(format!("stat {}: {error}", path.display())),
        }
    }
}

/// What a pattern means in a root, in the order of names. A wildcard does not cross a slash, so only folders that the
/// pattern names are read.
pub fn matches(root: &Root, pattern: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.split('/') {
        let Some(glob) = Glob::new(part) else {
            return Ok(Vec::new());
        };
        let mut deeper = Vec::new();
        for folder in found {
            // Files, and links to folders, have nothing below them, as in a walk.
            let walkable =
                folder.as_os_str().is_empty() || root.place(&folder)?.stat()?.is_some_and(|stat| rooted::is_dir(&stat));
            if !walkable {
                continue;
            }
            for name in rooted::list(root, &folder)? {
                if name.to_str().is_some_and(|name| glob.matches(name)) {
                    deeper.push(folder.join(name));
                }
            }
        }
        found = deeper;
    }
    Ok(found)
}

/// Whether a word holds a wildcard that is not escaped.
pub fn has_wildcards(word: &str) -> bool {
    let mut chars = word.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                chars.next();
            }
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

/// A word without its escapes.
pub fn unescape(word: &str) -> String {
    let mut chars = word.chars();
    let mut plain = String::new();
    while let Some(c) = chars.next() {
        plain.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    plain
}

/// Whether a relative path climbs above where it starts.
fn leaves(word: &str) -> bool {
    let mut depth = 0_i32;
    for part in word.trim_start_matches('/').split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_to_paths() {
        let temp = tempfile::tempdir().expect("temp folder");
        for file in ["a.txt", "b.txt", "q[1].txt", "d/x", "d/s/y"] {
            let path = temp.path().join(file);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            std::fs::write(path, file).expect("file");
        }
        std::os::unix::fs::symlink("/etc/passwd", temp.path().join("out")).expect("link");
        let root = Root::open(temp.path()).expect("root");
        let tree = Tree { root: &root, is_context: true };
        for (word, expected) in [
            ("a.txt", Ok(vec!["a.txt"])),
            ("/a.txt", Ok(vec!["a.txt"])),
            ("d/s/../x", Ok(vec!["d/x"])),
            (".", Ok(vec![""])),
            ("", Ok(vec![""])),
            ("*.txt", Ok(vec!["a.txt", "b.txt", "q[1].txt"])),
            ("q[[]1].txt", Ok(vec!["q[1].txt"])),
            ("d/*", Ok(vec!["d/s", "d/x"])),
            ("./d/*", Ok(vec!["d/s", "d/x"])),
            ("n*", Ok(vec![])),
            ("[", Ok(vec![])),
            ("a.txt/*", Ok(vec![])),
            ("../x", Err("forbidden path outside the build context: ../x ()")),
            ("d/../../x", Err("forbidden path outside the build context: d/../../x ()")),
            (
                "nope",
                Err("file not found in build context or excluded by .dockerignore: stat nope: file does not exist"),
            ),
            ("out", Err("file not found in build context or excluded by .dockerignore: stat out: file does not exist")),
        ] {
            let expected: Result<Vec<PathBuf>, String> =
                expected.map(|paths| paths.into_iter().map(PathBuf::from).collect()).map_err(str::to_owned);
            assert_eq!(tree.find(word), expected, "{word:?}");
        }
        let image = Tree { root: &root, is_context: false };
        assert_eq!(image.find("/nope"), Err("stat nope: file does not exist".to_owned()));
        assert_eq!(image.find("../../a.txt"), Ok(vec![PathBuf::from("a.txt")]));
    }
}
