//! Paths that a build asks for, with the links along them: what is needed is the link and what it names.

use std::collections::BTreeSet;
use std::path::Path;

use dockerfile::Glob;

/// Links that one path may lead through.
const MAX_LINKS: usize = 255;

/// The paths as patterns of what to send (relative, wildcards only where the path has some that match nothing), each
/// with the links that stand along it and what they name. Nothing leads out of the folder.
pub fn follow(root: &Path, paths: &[String]) -> Vec<String> {
    let mut found = BTreeSet::new();
    for path in paths {
        let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned);
        let mut walk = Walk { root, found: &mut found, links: 0 };
        walk.go(String::new(), parts.rev().collect());
    }
    found.into_iter().collect()
}

struct Walk<'a> {
    root: &'a Path,
    found: &'a mut BTreeSet<String>,
    links: usize,
}

impl Walk<'_> {
    /// `rest` holds what is still to go, its next part last.
    fn go(&mut self, at: String, mut rest: Vec<String>) {
        let Some(part) = rest.pop() else {
            self.found.insert(quoted(&at));
            return;
        };
        if part == ".." {
            let above = at.rsplit_once('/').map_or("", |(above, _)| above).to_owned();
            return self.go(above, rest);
        }
        if !Glob::is_pattern(&part) {
            return self.step(join(&at, &part), &at, rest);
        }
        let Some(glob) = Glob::new(&part) else { return };
        // A folder that cannot be read is told of when it is sent.
        let names = std::fs::read_dir(self.root.join(&at)).into_iter().flatten().flatten();
        let names: Vec<String> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        for name in names.iter().filter(|name| glob.matches(name)) {
            self.step(join(&at, name), &at, rest.clone());
        }
    }

    fn step(&mut self, path: String, within: &str, mut rest: Vec<String>) {
        let Ok(target) = std::fs::read_link(self.root.join(&path)) else { return self.go(path, rest) };
        self.found.insert(quoted(&path));
        self.links += 1;
        let Some(target) = target.to_str().filter(|_| self.links <= MAX_LINKS) else { return };
        let start = if target.starts_with('/') { String::new() } else { within.to_owned() };
        rest.extend(target.split('/').rev().filter(|part| !part.is_empty() && *part != ".").map(str::to_owned));
        self.go(start, rest);
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// A name as a pattern that matches it alone.
fn quoted(path: &str) -> String {
    let mut pattern = String::new();
    for c in path.chars() {
        if "*?[\\".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_wildcards() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        std::fs::create_dir_all(root.join("real/sub")).expect("folders");
        std::fs::write(root.join("real/sub/x[1].c"), "").expect("a file");
        std::os::unix::fs::symlink("real", root.join("link")).expect("a link");
        std::os::unix::fs::symlink("/real/sub/../../../etc", root.join("out")).expect("a link");
        std::os::unix::fs::symlink("loop", root.join("loop")).expect("a link");
        let follow = |path: &str| follow(root, &[path.to_owned()]);
        assert_eq!(follow("link/sub"), ["link", "real/sub"]);
        assert_eq!(follow("link/*/*.c"), ["link", "real/sub/x\\[1].c"]);
        assert_eq!(follow("out"), ["etc", "out"], "a link does not lead out of the folder");
        assert_eq!(follow("loop"), ["loop"]);
        assert_eq!(follow("missing"), ["missing"]);
        assert_eq!(follow("none*"), Vec::<String>::new());
    }
}
