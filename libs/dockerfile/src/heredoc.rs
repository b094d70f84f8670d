use crate::expand::Lexer;

/// A here-document of RUN, COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word after `<<`, unquoted: the closing line, and the file's name in COPY and ADD.
    pub name: String,
    /// Every line with its newline.
    pub content: String,
    /// False when the word was quoted: variables in the content stay as they are.
    pub expand: bool,
    /// `<<-`: leading tabs are taken off each line.
    pub strip_tabs: bool,
    /// The file descriptor before `<<`, 0 where none is written.
    pub descriptor: u32,
}

/// It stands apart from its word.
pub(crate) const APART: &str = "<<";

/// Reads one word such as `<<EOF`, `3<<-"EOF"`; `None` when it is none.
pub(crate) fn parse_word(word: &str, escape: char) -> Option<Heredoc> {
    let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (descriptor, rest) = word.split_at(digits);
    let rest = rest.strip_prefix("<<")?;
    let (strip_tabs, raw) = match rest.strip_prefix('-') {
        Some(raw) => (true, raw),
        None => (false, rest),
    };
    if raw.is_empty() || raw.contains('<') {
        return None;
    }
    let name = Lexer::new(escape).unquote(raw).ok()?;
    if name.is_empty() || name.contains(char::is_whitespace) {
        return None;
    }
    Some(Heredoc {
        expand: name == raw,
        name,
        content: String::new(),
        strip_tabs,
        descriptor: if descriptor.is_empty() { 0 } else { descriptor.parse().ok()? },
    })
}

/// The heredocs that an instruction's line announces, in order and without their content.
pub(crate) fn announced(line: &str, escape: char) -> Vec<Heredoc> {
    if !line.contains("<<") {
        return Vec::new();
    }
    let mut rest = line.trim();
    let mut word = first_word(rest);
    if word.eq_ignore_ascii_case("onbuild") {
        rest = rest[word.len()..].trim_start();
        word = first_word(rest);
    }
    let takes_heredocs = ["run", "copy", "add"].iter().any(|name| word.eq_ignore_ascii_case(name));
    let rest = rest[word.len()..].trim_start();
    if !takes_heredocs || rest.starts_with('[') {
        return Vec::new();
    }
    let words = Lexer::new(escape).raw_words(rest);
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        // Docker takes a blank between `<<` and its word, though not after `<<-`.
        let word =
            if word == APART { words.get(at + 1).map(|next| format!("{APART}{next}")) } else { Some(word.clone()) };
        found.extend(word.and_then(|word| parse_word(&word, escape)));
    }
    found
}

fn first_word(text: &str) -> &str {
    text.split(char::is_whitespace).next().unwrap_or_default()
}
