use crate::glob::Glob;

/// The rules of a `.dockerignore`: the last one that matches a path, or a folder above it, wins.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    /// `!`: brings back what an earlier rule left out.
    keeps: bool,
    text: String,
    glob: Option<Glob>,
}

impl Ignore {
    /// Reads the file. A line that is no legal pattern matches nothing.
    pub fn parse(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let rules =
            text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| Rule::parse(line.trim())).collect();
        Self { rules }
    }

    /// Whether a path of the context, relative and `/`-separated, is left out. A folder is left
    /// out only if no later `!` rule could bring back something inside it, so a walk may skip it
    /// with all it holds.
    pub fn excludes(&self, path: &str, is_dir: bool) -> bool {
        let path = clean(path);
        let mut excluded = false;
        for rule in &self.rules {
            if rule.keeps == excluded && rule.matches(&path) {
                excluded = !rule.keeps;
            }
        }
        excluded && !(is_dir && self.may_keep_inside(&path))
    }

    /// Whether all lines are patterns.
    pub fn is_legal(&self) -> bool {
        self.rules.iter().all(|rule| rule.glob.is_some())
    }

    /// Whether there is no rule at all.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    fn may_keep_inside(&self, dir: &str) -> bool {
        self.rules.iter().filter(|rule| rule.keeps).any(|rule| rule.reaches_into(dir))
    }
}

impl Rule {
    fn parse(line: &str) -> Option<Self> {
        let (keeps, pattern) = match line.strip_prefix('!') {
            Some(pattern) => (true, pattern.trim()),
            None => (false, line),
        };
        if pattern.is_empty() {
            return None;
        }
        let text = clean(pattern);
        Some(Self { keeps, glob: Glob::with_double_star(&text), text })
    }

    fn matches(&self, path: &str) -> bool {
        let Some(glob) = &self.glob else {
            return false;
        };
        let above = path.char_indices().filter(|(_, c)| *c == '/').map(|(at, _)| &path[..at]);
        path != "." && (glob.matches(path) || above.into_iter().any(|dir| glob.matches(dir)))
    }

    /// Whether the pattern may match below a folder: their components agree up to the first one
    /// that holds a wildcard.
    fn reaches_into(&self, dir: &str) -> bool {
        let mut folders = dir.split('/');
        for part in self.text.split('/') {
            let Some(folder) = folders.next() else {
                return true;
            };
            if Glob::is_pattern(part) {
                return true;
            }
            if part != folder {
                return false;
            }
        }
        false
    }
}

/// A path without `.`, `..`, doubled, leading and trailing slashes.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if path.starts_with('/') => {}
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return ".".to_owned();
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::Ignore;

    fn check(rules: &str, excluded: &[&str], kept: &[&str]) {
        let ignore = Ignore::parse(rules);
        for path in excluded {
            assert!(ignore.excludes(path, false), "{rules:?} should exclude {path}");
        }
        for path in kept {
            assert!(!ignore.excludes(path, false), "{rules:?} should keep {path}");
        }
    }

    #[test]
    fn names_and_wildcards() {
        check("foo", &["foo", "foo/bar"], &["a/foo", "foox"]);
        check("*/temp*", &["a/temp", "a/temporary/x"], &["temp", "a/b/temp"]);
        check("*/*/temp*", &["a/b/tempo"], &["a/temp"]);
        check("temp?", &["tempa", "tempb"], &["temp", "tempab"]);
        check("*.md\n", &["README.md"], &["docs/README.md"]);
    }

    #[test]
    fn double_star() {
        check("**/*.go", &["a.go", "x/y/a.go"], &["a.rs"]);
        check("**", &["a", "a/b"], &["."]);
        check("a/**", &["a/b", "a/b/c"], &["a", "b"]);
        check("a/**/z", &["a/z", "a/b/c/z"], &["z", "az"]);
        check("a**b", &["a/x/b", "ab"], &["a/x/c"]);
    }

    #[test]
    fn exceptions_in_order() {
        check("*.md\n!README.md", &["x.md"], &["README.md"]);
        check("*.md\n!README*.md\nREADME-secret.md", &["README-secret.md"], &["README-x.md"]);
        check("!README.md\n*.md", &["README.md"], &[]);
        check("dir\n!dir/keep", &["dir/x"], &["dir/keep", "dir/keep/y"]);
    }

    #[test]
    fn text_of_the_file() {
        check("\u{feff}# a\n\n  /foo/  \n#foo2", &["foo"], &["foo2", "# a"]);
        check("a/../b", &["b"], &["a"]);
        check(" ! x", &[], &["x"]);
        check("[", &[], &["["]);
    }

    #[test]
    fn folders_that_must_be_walked() {
        let ignore = Ignore::parse("a\nb\n!b/c/d\n");
        assert!(ignore.excludes("a", true));
        assert!(!ignore.excludes("b", true));
        assert!(!ignore.excludes("b/c", true));
        assert!(ignore.excludes("b/x", true));
        assert!(!Ignore::parse("*\n!**/keep").excludes("any/where", true));
    }
}
