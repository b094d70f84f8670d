//! File name patterns as Go's `filepath.Match` reads them, plus `**` where asked for.
//!
//! The globset crate was looked at and not used: it takes `**` only as a whole path component,
//! while Docker's `a**b` crosses folders, and its classes and escapes differ from Go's.

use std::ops::RangeInclusive;

/// A compiled pattern over `/`-separated paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Vec<Token>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// `?`
    Any,
    /// `*`
    Star,
    /// `**`
    Everything,
    /// `**/`: nothing, or folders with their slash.
    Folders,
    Class {
        negated: bool,
        ranges: Vec<RangeInclusive<char>>,
    },
}

impl Glob {
    /// Without `**`, as COPY and ADD take it. `None`: "syntax error in pattern".
    pub fn new(pattern: &str) -> Option<Self> {
        Self::compile(pattern, false)
    }

    pub(crate) fn with_double_star(pattern: &str) -> Option<Self> {
        Self::compile(pattern, true)
    }

    /// Whether a word holds anything that a pattern would read specially.
    pub fn is_pattern(text: &str) -> bool {
        text.contains(['*', '?', '[', '\\'])
    }

    fn compile(pattern: &str, double_star: bool) -> Option<Self> {
        let chars: Vec<char> = pattern.chars().collect();
        let mut tokens = Vec::new();
        let mut at = 0;
        while let Some(c) = chars.get(at) {
            at += 1;
            tokens.push(match c {
                '*' if double_star && chars.get(at) == Some(&'*') => {
                    at += 1;
                    if chars.get(at) == Some(&'/') {
                        at += 1;
                        Token::Folders
                    } else {
                        Token::Everything
                    }
                }
                '*' => Token::Star,
                '?' => Token::Any,
                '\\' => {
                    at += 1;
                    Token::Literal(*chars.get(at - 1)?)
                }
                '[' => {
                    let (token, length) = class(&chars[at..])?;
                    at += length;
                    token
                }
                c => Token::Literal(*c),
            });
        }
        Some(Self(tokens))
    }

    /// Whether the whole path matches.
    pub fn matches(&self, path: &str) -> bool {
        let chars: Vec<char> = path.chars().collect();
        let mut reach = vec![false; chars.len() + 1];
        reach[0] = true;
        for token in &self.0 {
            reach = token.advance(&reach, &chars);
        }
        reach[chars.len()]
    }
}

impl Token {
    /// From the places in the path reached so far to those reached past this token.
    fn advance(&self, reach: &[bool], chars: &[char]) -> Vec<bool> {
        let mut next = vec![false; reach.len()];
        let mut open = false;
        for at in 0..reach.len() {
            match self {
                Self::Everything => {
                    open |= reach[at];
                    next[at] = open;
                }
                Self::Star => {
                    open = reach[at] || (open && at > 0 && chars[at - 1] != '/');
                    next[at] = open;
                }
                Self::Folders => {
                    next[at] = reach[at] || (open && at > 0 && chars[at - 1] == '/');
                    open |= reach[at];
                }
                _ if at == 0 => {}
                Self::Literal(literal) => next[at] = reach[at - 1] && chars[at - 1] == *literal,
                Self::Any => next[at] = reach[at - 1] && chars[at - 1] != '/',
                Self::Class { negated, ranges } => {
                    let c = chars[at - 1];
                    let inside = ranges.iter().any(|range| range.contains(&c));
                    next[at] = reach[at - 1] && inside != *negated && c != '/';
                }
            }
        }
        next
    }
}

/// Reads a class after its `[`; gives the token and how many characters it took.
fn class(chars: &[char]) -> Option<(Token, usize)> {
    let mut at = 0;
    let negated = chars.first() == Some(&'^');
    if negated {
        at += 1;
    }
    let mut ranges = Vec::new();
    loop {
        if chars.get(at) == Some(&']') && !ranges.is_empty() {
            return Some((Token::Class { negated, ranges }, at + 1));
        }
        let low = member(chars, &mut at)?;
        let high = if chars.get(at) == Some(&'-') {
            at += 1;
            member(chars, &mut at)?
        } else {
            low
        };
        ranges.push(low..=high);
    }
}

fn member(chars: &[char], at: &mut usize) -> Option<char> {
    let c = *chars.get(*at)?;
    *at += 1;
    match c {
        '-' | ']' => None,
        '\\' => {
            *at += 1;
            chars.get(*at - 1).copied()
        }
        c => Some(c),
    }
}

#[cfg(test)]
mod tests {
    use super::Glob;

    #[test]
    fn go_patterns() {
        for (pattern, path, expected) in [
            ("*", "a", true),
            ("*", "a/b", false),
            ("*.go", "x.go", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("*/b", "a/b", true),
        ] {
            let glob = Glob::new(pattern).expect("legal");
            assert_eq!(glob.matches(path), expected, "{pattern} {path}");
        }
        for wrong in ["[", "[a", "[]a]", "[a-]", "a\\", "[-x]"] {
            assert_eq!(Glob::new(wrong), None, "{wrong}");
        }
    }
}
