//! Splits a Go template (text/template) into text and the tokens of its actions.

#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    Text(String),
    Open,
    Close,
    /// `.` alone.
    Dot,
    /// `.Name`; the position is that of its dot.
    Field(String),
    Variable(String),
    Ident(String),
    Number(String),
    Text2(String),
    Char(char),
}

/// A token and its byte offset in the template.
pub type Spanned = (Token, usize);

pub fn lex(source: &str) -> Result<Vec<Spanned>, String> {
    let mut tokens = Vec::new();
    let mut at = 0;
    let mut trim_next = false;
    loop {
        let open = source[at..].find("{{").map(|i| at + i);
        let mut text = &source[at..open.unwrap_or(source.len())];
        if trim_next {
            text = text.trim_start();
        }
        let Some(open) = open else {
            push_text(&mut tokens, text);
            return Ok(tokens);
        };
        let mut inner = open + 2;
        if source[inner..].starts_with("- ") {
            text = text.trim_end();
            inner += 2;
        }
        push_text(&mut tokens, text);
        if source[inner..].starts_with("/*") {
            let end = source[inner..].find("*/").ok_or("unclosed comment")? + inner + 2;
            let rest = &source[end..];
            trim_next = rest.starts_with(" -}}");
            let closing = if trim_next { 4 } else { 2 };
            if !rest[closing - 2..].starts_with("}}") {
                return Err("comment ends before closing delimiter".into());
            }
            at = end + closing;
            continue;
        }
        tokens.push((Token::Open, open));
        (at, trim_next) = action(source, inner, &mut tokens)?;
    }
}

fn push_text(tokens: &mut Vec<Spanned>, text: &str) {
    if !text.is_empty() {
        tokens.push((Token::Text(text.to_owned()), 0));
    }
}

/// Reads one action's tokens; gives the offset after it and whether it trims what follows.
fn action(source: &str, mut at: usize, tokens: &mut Vec<Spanned>) -> Result<(usize, bool), String> {
    loop {
        let rest = &source[at..];
        if rest.starts_with(" -}}") {
            tokens.push((Token::Close, at));
            return Ok((at + 4, true));
        }
        if rest.starts_with("}}") {
            tokens.push((Token::Close, at));
            return Ok((at + 2, false));
        }
        let Some(first) = rest.chars().next() else { return Err("unclosed action".into()) };
        let (token, length) = match first {
            c if c.is_whitespace() => (Token::Char(' '), c.len_utf8()),
            '"' => quoted(rest)?,
            '`' => {
                let end = rest[1..].find('`').ok_or("unterminated raw quoted string")?;
                (Token::Text2(rest[1..=end].to_owned()), end + 2)
            }
            '.' if rest[1..].starts_with(is_word) => {
                let name = word(&rest[1..]);
                (Token::Field(name.to_owned()), 1 + name.len())
            }
            '.' => (Token::Dot, 1),
            '$' => {
                let name = word(&rest[1..]);
                (Token::Variable(format!("${name}")), 1 + name.len())
            }
            c if c.is_ascii_digit()
                || (matches!(c, '-' | '+') && rest[1..].starts_with(|d: char| d.is_ascii_digit())) =>
            {
                let end =
                    rest[1..].find(|d: char| !(d.is_ascii_alphanumeric() || d == '.')).map_or(rest.len(), |i| i + 1);
                (Token::Number(rest[..end].to_owned()), end)
            }
            c if is_word(c) => {
                let name = word(rest);
                (Token::Ident(name.to_owned()), name.len())
            }
            c @ ('|' | '(' | ')' | ',' | '=') => (Token::Char(c), 1),
            ':' if rest.starts_with(":=") => (Token::Char(':'), 2),
            c => return Err(format!("unexpected {c:?} in operand")),
        };
        tokens.push((token, at));
        at += length;
    }
}

fn quoted(rest: &str) -> Result<(Token, usize), String> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Text2(text), i + 1)),
            '\n' => break,
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some('r') => text.push('\r'),
                Some(c) => text.push(c),
                None => break,
            },
            c => text.push(c),
        }
    }
    Err("unterminated quoted string".into())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn word(text: &str) -> &str {
    &text[..text.find(|c| !is_word(c)).unwrap_or(text.len())]
}
