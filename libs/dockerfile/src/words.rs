//! How an instruction's arguments are split, before any variable is looked at.

/// Splits at blanks outside quotes; quotes and escapes stay in the words.
pub(crate) fn split_quoted(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut started = false;
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            if started {
                words.push(std::mem::take(&mut word));
                started = false;
            }
            continue;
        }
        started = true;
        // Inside single quotes nothing is escaped.
        if c == escape && quote != Some('\'') {
            if let Some(escaped) = chars.next() {
                word.extend([c, escaped]);
            }
            continue;
        }
        match quote {
            Some(open) if open == c => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            _ => {}
        }
        word.push(c);
    }
    if started && !word.is_empty() {
        words.push(word);
    }
    words
}

/// `name value` or `name=value ...`, as ENV and LABEL take them.
pub(crate) fn pairs(text: &str, command: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let words = split_quoted(text, escape);
    let Some(first) = words.first() else {
        return Ok(Vec::new());
    };
    if !first.contains('=') {
        return match text.trim().split_once(char::is_whitespace) {
            Some((name, value)) => Ok(vec![(name.to_owned(), value.trim_start().to_owned())]),
            None => Err(format!("{command} must have two arguments")),
        };
    }
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(format!(
                "Syntax error - can't find = in {}. Must be of the form: name=value",
                crate::quote::quote(word)
            )),
        })
        .collect()
}

/// A JSON array of strings; `Ok(None)` when the text is no JSON array and so is shell form.
pub(crate) fn json_strings(text: &str) -> Result<Option<Vec<String>>, String> {
    let text = text.trim_start();
    if !text.starts_with('[') {
        return Ok(None);
    }
    // As in Docker, what follows the array is not looked at.
    let first = serde_json::Deserializer::from_str(text).into_iter::<Vec<serde_json::Value>>().next();
    let Some(Ok(values)) = first else {
        return Ok(None);
    };
    values
        .into_iter()
        .map(|value| match value {
            serde_json::Value::String(text) => Ok(text),
            _ => Err("when using JSON array syntax, arrays must be comprised of strings only".to_owned()),
        })
        .collect::<Result<_, _>>()
        .map(Some)
}
