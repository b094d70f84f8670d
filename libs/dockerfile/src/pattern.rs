//! The shell patterns of `${x#p}`, `${x%p}` and `${x/p/r}`: `*`, `?` and escaped characters.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Literal(char),
    Any,
    Star,
}

/// What may be escaped besides the escape token: wildcards, and what would end the pattern.
const ESCAPED: &str = "*?/}";

pub(crate) struct Pattern(Vec<Token>);

impl Pattern {
    /// # Errors
    /// Says which escape is none: only what would have a meaning can be escaped.
    pub fn new(text: &str, escape: char) -> Result<Self, String> {
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Star,
                '?' => Token::Any,
                c if c == escape => match chars.next() {
                    None => Token::Literal(c),
                    Some(other) if ESCAPED.contains(other) || other == escape => Token::Literal(other),
                    Some(other) => return Err(format!("invalid escape '{escape}{other}'")),
                },
                c => Token::Literal(c),
            });
        }
        Ok(Self(tokens))
    }

    pub fn trim_prefix(&self, value: &str, longest: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        match pick(&lengths(&self.0, &chars), longest) {
            Some(length) => chars[length..].iter().collect(),
            None => value.to_owned(),
        }
    }

    pub fn trim_suffix(&self, value: &str, longest: bool) -> String {
        let backwards: Vec<char> = value.chars().rev().collect();
        let tokens: Vec<Token> = self.0.iter().rev().copied().collect();
        match pick(&lengths(&tokens, &backwards), longest) {
            Some(length) => backwards[length..].iter().rev().collect(),
            None => value.to_owned(),
        }
    }

    /// Replaces the first match, or every one; each the longest at the leftmost place.
    pub fn replace(&self, value: &str, replacement: &str, all: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let mut out = String::new();
        let mut at = 0;
        while at < chars.len() {
            match pick(&lengths(&self.0, &chars[at..]), true).filter(|length| *length > 0) {
                Some(length) => {
                    out.push_str(replacement);
                    at += length;
                    if !all {
                        break;
                    }
                }
                None => {
                    out.push(chars[at]);
                    at += 1;
                }
            }
        }
        out.extend(chars.get(at..).unwrap_or_default());
        out
    }
}

/// The pattern as it is matched from a value's end, its escapes in one piece.
pub(crate) fn reversed(text: &str, escape: char) -> String {
    let mut parts = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let escaped = if c == escape { chars.next() } else { None };
        parts.push([Some(c), escaped].into_iter().flatten().collect::<String>());
    }
    parts.reverse();
    parts.concat()
}

fn pick(lengths: &[bool], longest: bool) -> Option<usize> {
    if longest { lengths.iter().rposition(|matched| *matched) } else { lengths.iter().position(|matched| *matched) }
}

/// For each length, whether the tokens match exactly that many leading characters.
fn lengths(tokens: &[Token], chars: &[char]) -> Vec<bool> {
    let mut reach = vec![false; chars.len() + 1];
    reach[0] = true;
    for token in tokens {
        let mut next = vec![false; chars.len() + 1];
        match token {
            Token::Star => {
                let mut open = false;
                for (at, slot) in next.iter_mut().enumerate() {
                    open |= reach[at];
                    *slot = open;
                }
            }
            Token::Any => next[1..].copy_from_slice(&reach[..chars.len()]),
            Token::Literal(literal) => {
                for (at, c) in chars.iter().enumerate() {
                    next[at + 1] = reach[at] && c == literal;
                }
            }
        }
        reach = next;
    }
    reach
}

#[cfg(test)]
mod tests {
    use super::{Pattern, reversed};

    #[test]
    fn shell_patterns() {
        let pattern = |text: &str| Pattern::new(text, '\\').expect(text);
        assert_eq!(pattern("*/").trim_prefix("a/b/c", false), "b/c");
        assert_eq!(pattern("*/").trim_prefix("a/b/c", true), "c");
        assert_eq!(pattern(".*").trim_suffix("x.tar.gz", false), "x.tar");
        assert_eq!(pattern(".*").trim_suffix("x.tar.gz", true), "x");
        assert_eq!(pattern("\\*").trim_prefix("*a", false), "a");
        assert_eq!(pattern("z").trim_prefix("abc", true), "abc");
        assert_eq!(pattern("a?").replace("abac", "-", false), "-ac");
        assert_eq!(pattern("a?").replace("abac", "-", true), "--");
        assert_eq!(pattern("").replace("ab", "-", true), "ab");
        assert!(Pattern::new("\\.", '\\').is_err() && Pattern::new("a\\/\\*\\?\\}\\\\", '\\').is_ok());
        assert_eq!(reversed("\\.gz*", '\\'), "*zg\\.");
    }
}
