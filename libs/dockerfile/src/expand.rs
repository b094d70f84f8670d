//! Docker's shell lexer: `$x`, `${x:-word}`, quotes and escapes in an instruction's words.
//!
//! Reference: Dockerfile reference, "Environment replacement". The lexer is recursive, because a
//! word may hold another substitution; `MAX_DEPTH` bounds that for hostile input.

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::error::Error;
use crate::pattern::{Pattern, reversed};

/// The value of a variable, `None` when it is not set.
pub type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

const MAX_DEPTH: usize = 64;
const SPECIAL_PARAMETERS: &str = "@*#?-$!0";

/// Expands words with one escape token.
#[derive(Debug, Clone, Copy)]
pub struct Lexer {
    escape: char,
}

#[derive(Debug, Clone, Copy, Default)]
struct Mode {
    /// Quotes are plain characters (heredoc contents).
    keep_quotes: bool,
    /// Escape tokens stay, for a pattern that reads them itself.
    raw_escapes: bool,
    /// Quotes work, and stay.
    raw_quotes: bool,
    /// A variable without a value stays as it is written.
    keep_unset: bool,
    depth: usize,
}

/// What a word became, and which variables it named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expanded {
    pub text: String,
    /// Those that have a value.
    pub matched: BTreeSet<String>,
    /// Those that have none.
    pub unmatched: BTreeSet<String>,
}

impl Lexer {
    pub fn new(escape: char) -> Self {
        Self { escape }
    }

    /// Replaces variables and takes off quotes; the result is one word, blanks and all.
    pub fn expand(&self, word: &str, lookup: &Lookup) -> Result<String, Error> {
        self.run(word, lookup, Mode::default()).map(|(text, _)| text)
    }

    /// As [`Lexer::expand`], and tells which variables were asked for.
    pub fn expand_traced(&self, word: &str, lookup: &Lookup) -> Result<Expanded, Error> {
        let seen = RefCell::new((BTreeSet::new(), BTreeSet::new()));
        let text = self.expand(word, &|name| {
            let value = lookup(name);
            let (matched, unmatched) = &mut *seen.borrow_mut();
            let set = if value.is_some() { matched } else { unmatched };
            set.insert(name.to_owned());
            value
        })?;
        let (matched, unmatched) = seen.into_inner();
        Ok(Expanded { text, matched, unmatched })
    }

    /// An instruction as BuildKit's progress shows it: known variables replaced, quotes and unknown variables left as
    /// they are. Text that cannot be expanded is shown as it is.
    pub fn describe(&self, text: &str, lookup: &Lookup) -> String {
        let mode = Mode { raw_quotes: true, keep_unset: true, ..Mode::default() };
        self.run(text, lookup, mode).map_or_else(|_| text.to_owned(), |(text, _)| text)
    }

    /// As [`Lexer::expand`], split at unquoted blanks.
    pub fn expand_words(&self, word: &str, lookup: &Lookup) -> Result<Vec<String>, Error> {
        self.run(word, lookup, Mode::default()).map(|(_, words)| words)
    }

    /// Replaces variables in text whose quotes are its own.
    pub(crate) fn expand_text(&self, text: &str, lookup: &Lookup) -> Result<String, Error> {
        let mode = Mode { keep_quotes: true, ..Mode::default() };
        self.run(text, lookup, mode).map(|(text, _)| text)
    }

    /// Takes off quotes and escapes of a word without variables.
    pub(crate) fn unquote(&self, word: &str) -> Result<String, Error> {
        self.expand(word, &|name| Some(format!("${name}")))
    }

    /// Splits at unquoted blanks and keeps quotes and escapes.
    pub(crate) fn raw_words(&self, text: &str) -> Vec<String> {
        crate::words::split_quoted(text, self.escape)
    }

    fn run(&self, word: &str, lookup: &Lookup, mode: Mode) -> Result<(String, Vec<String>), Error> {
        let mut scan = Scan { chars: word.chars().collect(), at: 0, escape: self.escape, lookup };
        let mut words = Words::default();
        scan.until(None, mode, &mut words).map(|text| (text, words.done())).map_err(|message| Error::Expansion {
            line: 0,
            word: word.to_owned(),
            message,
        })
    }
}

/// Collects words while text is expanded.
#[derive(Default)]
struct Words {
    word: String,
    words: Vec<String>,
}

impl Words {
    fn push(&mut self, c: char) {
        if !c.is_whitespace() {
            self.word.push(c);
        } else if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
    }

    fn done(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        self.words
    }
}

struct Scan<'a> {
    chars: Vec<char>,
    at: usize,
    escape: char,
    lookup: &'a Lookup<'a>,
}

impl Scan<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    fn until(&mut self, stop: Option<char>, mode: Mode, words: &mut Words) -> Result<String, String> {
        let mut out = String::new();
        while let Some(c) = self.peek() {
            if Some(c) == stop {
                self.at += 1;
                return Ok(out);
            }
            match c {
                '\'' | '"' if !mode.keep_quotes => {
                    let mut quoted = if c == '"' { self.double_quoted(mode)? } else { self.single_quoted()? };
                    if mode.raw_quotes {
                        quoted = format!("{c}{quoted}{c}");
                    }
                    words.word.push_str(&quoted);
                    out.push_str(&quoted);
                }
                '$' => {
                    let value = self.dollar(mode)?;
                    value.chars().for_each(|c| words.push(c));
                    out.push_str(&value);
                }
                _ => {
                    self.at += 1;
                    if c != self.escape {
                        words.push(c);
                        out.push(c);
                        continue;
                    }
                    if mode.raw_escapes {
                        words.word.push(c);
                        out.push(c);
                    }
                    if let Some(escaped) = self.next() {
                        words.word.push(escaped);
                        out.push(escaped);
                    }
                }
            }
        }
        match stop {
            Some(stop) => Err(format!("unexpected end of statement while looking for matching {stop}")),
            None => Ok(out),
        }
    }

    fn single_quoted(&mut self) -> Result<String, String> {
        self.at += 1;
        let mut out = String::new();
        while let Some(c) = self.next() {
            if c == '\'' {
                return Ok(out);
            }
            out.push(c);
        }
        Err("unexpected end of statement while looking for matching single-quote".to_owned())
    }

    fn double_quoted(&mut self, mode: Mode) -> Result<String, String> {
        self.at += 1;
        let mut out = String::new();
        while let Some(c) = self.peek() {
            match c {
                '"' => {
                    self.at += 1;
                    return Ok(out);
                }
                '$' => out.push_str(&self.dollar(mode)?),
                _ => {
                    self.at += 1;
                    if c != self.escape {
                        out.push(c);
                        continue;
                    }
                    // Only these can be escaped here; any other escape token stays.
                    match self.peek() {
                        None => {}
                        Some(next) if next == '"' || next == '$' || next == self.escape => {
                            self.at += 1;
                            out.push(next);
                        }
                        Some(_) => out.push(c),
                    }
                }
            }
        }
        Err("unexpected end of statement while looking for matching double-quote".to_owned())
    }

    fn dollar(&mut self, mode: Mode) -> Result<String, String> {
        let start = self.at;
        self.at += 1;
        if self.peek() == Some('{') {
            return self.braced(start, mode);
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        match (self.lookup)(&name) {
            None if mode.keep_unset => Ok(self.written(start)),
            value => Ok(value.unwrap_or_default()),
        }
    }

    fn written(&self, start: usize) -> String {
        self.chars[start..self.at].iter().collect()
    }

    fn braced(&mut self, start: usize, mode: Mode) -> Result<String, String> {
        self.at += 1;
        match self.peek() {
            None => return Err("syntax error: missing '}'".to_owned()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".to_owned()),
            Some(_) => {}
        }
        if mode.depth >= MAX_DEPTH {
            return Err("syntax error: substitutions are nested too deeply".to_owned());
        }
        let name = self.name();
        let value = (self.lookup)(&name);
        let stays = mode.keep_unset && value.is_none();
        let mode = Mode { depth: mode.depth + 1, raw_escapes: false, ..mode };
        let result = self.modified(&name, value, mode);
        if stays && result.is_ok() { Ok(self.written(start)) } else { result }
    }

    /// What follows the name in `${name…}`.
    fn modified(&mut self, name: &str, value: Option<String>, mode: Mode) -> Result<String, String> {
        match self.next() {
            Some('}') => Ok(value.unwrap_or_default()),
            Some(':') => {
                let modifier = self.next();
                if let Some(other) = modifier.filter(|modifier| !"+-?}".contains(*modifier)) {
                    return Err(unsupported(&format!(":{other}")));
                }
                let word = self.operand(mode)?;
                substitute(name, value, modifier, &word, true)
            }
            Some(modifier @ ('+' | '-' | '?')) => {
                let word = self.operand(mode)?;
                substitute(name, value, Some(modifier), &word, false)
            }
            Some(modifier @ ('#' | '%')) => {
                let longest = self.peek() == Some(modifier);
                if longest {
                    self.at += 1;
                }
                let pattern = self.operand(Mode { raw_escapes: true, ..mode })?;
                let shown = if modifier == '#' { pattern.clone() } else { reversed(&pattern, self.escape) };
                let pattern = Pattern::new(&pattern, self.escape).map_err(|why| not_a_pattern(&shown, &why))?;
                let value = value.unwrap_or_default();
                Ok(if modifier == '#' {
                    pattern.trim_prefix(&value, longest)
                } else {
                    pattern.trim_suffix(&value, longest)
                })
            }
            Some('/') => self.replace(&value.unwrap_or_default(), mode),
            other => Err(unsupported(&other.unwrap_or(char::REPLACEMENT_CHARACTER).to_string())),
        }
    }

    /// The word of `${name:-word}`, up to its brace.
    fn operand(&mut self, mode: Mode) -> Result<String, String> {
        self.until(Some('}'), mode, &mut Words::default())
            .map_err(|message| if self.peek().is_none() { "syntax error: missing '}'".to_owned() } else { message })
    }

    fn replace(&mut self, value: &str, mode: Mode) -> Result<String, String> {
        let all = self.peek() == Some('/');
        if all {
            self.at += 1;
        }
        let raw = Mode { raw_escapes: true, ..mode };
        let pattern = self
            .until(Some('/'), raw, &mut Words::default())
            .map_err(|_| "syntax error: missing '/' in ${}".to_owned())?;
        let replacement = self.operand(mode)?;
        let read = Pattern::new(&pattern, self.escape).map_err(|why| not_a_pattern(&pattern, &why))?;
        Ok(read.replace(value, &replacement, all))
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            if name.is_empty() && c.is_ascii_digit() {
                while let Some(digit) = self.peek().filter(char::is_ascii_digit) {
                    name.push(digit);
                    self.at += 1;
                }
                return name;
            }
            if name.is_empty() && SPECIAL_PARAMETERS.contains(c) {
                self.at += 1;
                return c.to_string();
            }
            if !c.is_alphanumeric() && c != '_' {
                break;
            }
            name.push(c);
            self.at += 1;
        }
        name
    }
}

fn substitute(
    name: &str,
    value: Option<String>,
    modifier: Option<char>,
    word: &str,
    empty_is_unset: bool,
) -> Result<String, String> {
    let present = value.as_ref().is_some_and(|value| !(empty_is_unset && value.is_empty()));
    let value = value.filter(|_| present);
    match modifier {
        Some('-') => Ok(value.unwrap_or_else(|| word.to_owned())),
        Some('+') if present => Ok(word.to_owned()),
        Some('+') => Ok(String::new()),
        Some('?') => value.ok_or_else(|| {
            let why = match word {
                "" if empty_is_unset => "is not allowed to be empty",
                "" => "is not allowed to be unset",
                word => word,
            };
            format!("{name}: {why}")
        }),
        other => Err(unsupported(&other.map(String::from).unwrap_or_default())),
    }
}

fn unsupported(modifier: &str) -> String {
    format!("unsupported modifier ({modifier}) in substitution")
}

fn not_a_pattern(pattern: &str, why: &str) -> String {
    format!("invalid pattern ({pattern}) in substitution: {why}")
}
