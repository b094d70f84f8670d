//! `--name=value` words between an instruction's name and its arguments.

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
                return Err(format!("Unknown flag: {name}"));
            }
            if !many && flags.one(name).is_some() {
                return Err(format!("Duplicate flag specified: {name}"));
            }
            let value = match (bare, value) {
                (true, value) => boolean(name, value)?,
                (false, Some(value)) => value,
                (false, None) => return Err(format!("Missing a value on flag: {name}")),
            };
            flags.0.push((name.to_owned(), value.to_owned()));
        }
        Ok(flags)
    }

    pub fn one(&self, name: &str) -> Option<String> {
        self.all(name).into_iter().next()
    }

    pub fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
    }

    /// Takes out the flags of these names, in the order they were written.
    pub fn rest(&self, names: &[&str]) -> Vec<(String, String)> {
        self.0.iter().filter(|(key, _)| names.contains(&key.as_str())).cloned().collect()
    }
}

fn boolean<'a>(name: &str, value: Option<&'a str>) -> Result<&'a str, String> {
    match value.map(str::to_ascii_lowercase).as_deref() {
        None | Some("true" | "") => Ok("true"),
        Some("false") => Ok("false"),
        Some(_) => Err(format!("Expecting boolean value for flag {name}, not: {}", value.unwrap_or_default())),
    }
}

/// Splits the leading `--` words off an instruction's text.
pub(crate) fn split(text: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text.trim();
    while rest.starts_with("--") {
        let end = word_end(rest, escape);
        let (word, after) = rest.split_at(end);
        rest = after.trim_start();
        if word == "--" {
            break;
        }
        flags.push(word.to_owned());
    }
    (flags, rest)
}

/// Where the first word ends; quotes hold blanks together.
fn word_end(text: &str, escape: char) -> usize {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if std::mem::take(&mut escaped) {
            continue;
        }
        match quote {
            _ if c == escape && quote != Some('\'') => escaped = true,
            Some(open) if open == c => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c.is_whitespace() => return at,
            None => {}
        }
    }
    text.len()
}
