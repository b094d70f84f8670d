//! `--name=value` words between an instruction's name and its arguments.

use crate::suggest;

/// The flags of one instruction, checked against what it takes.
#[derive(Debug, Default)]
pub(crate) struct Flags(Vec<(String, String)>);

/// What an instruction takes. `bare` flags are booleans, `many` may be repeated.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Allowed {
    pub once: &'static [&'static str],
    pub many: &'static [&'static str],
    pub bare: &'static [&'static str],
}

impl Allowed {
    fn names(&self) -> impl Iterator<Item = &'static str> {
        [self.once, self.many, self.bare].into_iter().flatten().copied()
    }
}

impl Flags {
    pub fn check(words: &[String], allowed: Allowed) -> Result<Self, String> {
        let mut flags = Self::default();
        for word in words {
            let body = word.strip_prefix("--").unwrap_or(word);
            if body.is_empty() {
                break;
            }
            let (name, value) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (body, None),
            };
            let many = allowed.many.contains(&name);
            let bare = allowed.bare.contains(&name);
            if !many && !bare && !allowed.once.contains(&name) {
                return Err(suggest::exact(format!("unknown flag: --{name}"), name, allowed.names()));
            }
            if !many && flags.0.iter().any(|(key, _)| key == name) {
                return Err(format!("duplicate flag specified: --{name}"));
            }
            let value = match (bare, value) {
                (true, value) => boolean(name, value)?,
                (false, Some(value)) => value,
                (false, None) => return Err(missing_value(name)),
            };
            flags.0.push((name.to_owned(), value.to_owned()));
        }
        Ok(flags)
    }

    /// The value of a flag that is written at most once. An empty one counts as not written.
    pub fn one(&self, name: &str) -> Option<String> {
        self.all(name).into_iter().next().filter(|value| !value.is_empty())
    }

    pub fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
    }

    /// A boolean flag; `None` where it is not written.
    pub fn bare(&self, name: &str) -> Option<bool> {
        self.one(name).map(|value| value == "true")
    }
}

fn missing_value(name: &str) -> String {
    format!("missing a value on flag: --{name}")
}

fn boolean<'a>(name: &str, value: Option<&'a str>) -> Result<&'a str, String> {
    match value.map(str::to_ascii_lowercase).as_deref() {
        Some("") => Err(missing_value(name)),
        None | Some("true") => Ok("true"),
        Some("false") => Ok("false"),
        Some(_) => Err(format!("expecting boolean value for flag --{name}, not: {}", value.unwrap_or_default())),
    }
}

/// Splits the leading `--` words off an instruction's text, their quotes and escapes taken off.
pub(crate) fn split(text: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text.trim();
    while rest.starts_with("--") {
        let (word, end) = first_word(rest, escape);
        rest = rest[end..].trim_start();
        if word == "--" {
            break;
        }
        flags.push(word);
    }
    (flags, rest)
}

/// The first word and where it ends; quotes hold blanks together.
fn first_word(text: &str, escape: char) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if std::mem::take(&mut escaped) {
            word.push(c);
            continue;
        }
        match quote {
            _ if c == escape && quote != Some('\'') => escaped = true,
            Some(open) if open == c => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c.is_whitespace() => return (word, at),
            _ => word.push(c),
        }
    }
    (word, text.len())
}
