use std::cmp::Ordering;
use std::collections::HashSet;
use std::mem::discriminant;

use contexts::{Entry, Kind, Tree, by_components};

/// What makes a folder with one tree hold another.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Paths that go with all that is below them.
    pub removed: Vec<String>,
    /// Positions of entries that are made, in order; what bears the name is no folder.
    pub made: Vec<usize>,
    /// Positions of entries that only have other metadata.
    pub described: Vec<usize>,
}

pub fn difference(old: &Tree, new: &Tree) -> Difference {
    let mut found = Difference::default();
    // Files that are new, so that hard links to them are made anew.
    let mut fresh = HashSet::<&str>::new();
    for (before, after) in pairs(old, new) {
        match (before, after) {
            (Some(before), None) => remove(&mut found.removed, &before.path),
            (_, Some((at, after))) => {
                let first_is_fresh = matches!(&after.kind,
                    Kind::File { hard_link: Some(first), .. } if fresh.contains(first.as_str()));
                match before {
                    Some(before) if is_same(before, after) && !first_is_fresh => {
                        if !is_described_alike(before, after) {
                            found.described.push(at);
                        }
                        continue;
                    }
                    Some(before) => remove(&mut found.removed, &before.path),
                    None => {}
                }
                fresh.insert(&after.path);
                found.made.push(at);
            }
            (None, None) => {}
        }
    }
    found
}

/// How many entries are in both.
pub fn shared(old: &Tree, new: &Tree) -> usize {
    pairs(old, new).filter(|pair| matches!(pair, (Some(a), Some((_, b))) if is_same(a, b))).count()
}

fn remove(removed: &mut Vec<String>, path: &str) {
    let is_below = |last: &String| path.strip_prefix(last.as_str()).is_some_and(|rest| rest.starts_with('/'));
    if !removed.last().is_some_and(is_below) {
        removed.push(path.to_owned());
    }
}

/// The same content, or link, or device; it may have other metadata.
fn is_same(a: &Entry, b: &Entry) -> bool {
    match (&a.kind, &b.kind) {
        (Kind::File { content: x, hard_link: p }, Kind::File { content: y, hard_link: q }) => {
            (x.sha256, x.size, p) == (y.sha256, y.size, q)
        }
        // A link's owner and time are few; it is made anew.
        (Kind::Symlink { .. }, Kind::Symlink { .. }) => a.kind == b.kind && is_described_alike(a, b),
        (x, y) => discriminant(x) == discriminant(y) && x == y,
    }
}

fn is_described_alike(a: &Entry, b: &Entry) -> bool {
    let of = |entry: &Entry| (entry.mode, entry.uid, entry.gid, entry.mtime_ns);
    of(a) == of(b) && a.xattrs == b.xattrs
}

type Pair<'a> = (Option<&'a Entry>, Option<(usize, &'a Entry)>);

/// Both trees side by side, by path.
fn pairs<'a>(old: &'a Tree, new: &'a Tree) -> impl Iterator<Item = Pair<'a>> {
    let (mut old, mut new) = (old.entries.iter().peekable(), new.entries.iter().enumerate().peekable());
    std::iter::from_fn(move || {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some((_, b))) => by_components(&a.path, &b.path),
        };
        Some(match order {
            Ordering::Less => (old.next(), None),
            Ordering::Greater => (None, new.next()),
            Ordering::Equal => (old.next(), new.next()),
        })
    })
}

#[cfg(test)]
mod tests {
    use contexts::Content;

    use super::*;

    /// `d/` a folder, `l>x` a symbolic link, `f=1` a file with content 1, `h~f` a hard link, `!` with another time.
    fn tree(words: &str) -> Tree {
        let content = |text: &str| Content { sha256: [text.as_bytes()[0]; 32], size: 1, pack: Some(0), offset: 0 };
        let entries = words.split_whitespace().map(|word| {
            let (word, mtime_ns) = word.strip_suffix('!').map_or((word, 0), |word| (word, 1));
            let (path, kind) = if let Some(path) = word.strip_suffix('/') {
                (path, Kind::Folder)
            } else if let Some((path, target)) = word.split_once('>') {
                (path, Kind::Symlink { target: target.to_owned() })
            } else if let Some((path, first)) = word.split_once('~') {
                (path, Kind::File { content: content("1"), hard_link: Some(first.to_owned()) })
            } else {
                let (path, text) = word.split_once('=').expect("a file");
                (path, Kind::File { content: content(text), hard_link: None })
            };
            Entry { path: path.to_owned(), mode: 0, uid: 0, gid: 0, mtime_ns, xattrs: Vec::new(), kind }
        });
        Tree { entries: entries.collect(), ..Tree::default() }
    }

    #[test]
    fn what_differs() {
        for (old, new, removed, made, described) in [
            ("", "a=1 d/ d/x=1", "", "a d d/x", ""),
            ("a=1 d/ d/x=1", "a=1 d/ d/x=1", "", "", ""),
            ("a=1", "a=1!", "", "", "a"),
            ("a=1", "a=2", "a", "a", ""),
            ("d/ d/e/ d/e/x=1 f=1", "f=1", "d", "", ""),
            ("d/ d/x=1", "d=1", "d", "d", ""),
            ("d=1", "d/ d/x=1", "d", "d d/x", ""),
            ("l>a", "l>b", "l", "l", ""),
            ("l>a", "l>a!", "l", "l", ""),
            ("f=2 h~f", "f=1 h~f", "f h", "f h", ""),
            ("f=1 h~f", "f=1 h=1", "h", "h", ""),
            ("a=1 c=1", "a=1 b=1 c=1", "", "b", ""),
        ] {
            let (old, new) = (tree(old), tree(new));
            let found = difference(&old, &new);
            let paths =
                |list: &[usize]| list.iter().map(|at| new.entries[*at].path.as_str()).collect::<Vec<_>>().join(" ");
            let told = (found.removed.join(" "), paths(&found.made), paths(&found.described));
            assert_eq!(told, (removed.to_owned(), made.to_owned(), described.to_owned()), "{old:?} {new:?}");
        }
    }
}
