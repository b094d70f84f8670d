//! "(did you mean …?)": the option that is nearest to what was written.

/// One more change than this and a word is no longer taken for a slip.
const MAX_DISTANCE: usize = 2;

/// The message with a suggestion, if an option is near; case counts.
pub(crate) fn exact<'a>(message: String, written: &str, options: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(written, options) {
        Some(option) => format!("{message} (did you mean {option}?)"),
        None => message,
    }
}

/// As [`exact`], with the suggestion in the case of what was written.
pub(crate) fn ignoring_case<'a>(message: String, written: &str, options: impl IntoIterator<Item = &'a str>) -> String {
    let options: Vec<String> = options.into_iter().map(str::to_lowercase).collect();
    let Some(option) = nearest(&written.to_lowercase(), options.iter().map(String::as_str)) else {
        return message;
    };
    let option = if written == written.to_uppercase() { option.to_uppercase() } else { option.to_owned() };
    format!("{message} (did you mean {option}?)")
}

/// The nearest option within two changes; `None` also when the word is one of them.
pub(crate) fn nearest<'a>(written: &str, options: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best: Option<(usize, &str)> = None;
    for option in options {
        let distance = distance(written, option);
        if distance == 0 {
            return None;
        }
        if distance <= MAX_DISTANCE && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, option));
        }
    }
    best.map(|(_, option)| option)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::{distance, nearest};

    #[test]
    fn the_nearest_within_two_changes() {
        assert_eq!((distance("", "abc"), distance("kitten", "sitting"), distance("a", "a")), (3, 3, 0));
        assert_eq!(nearest("frm", ["from", "form"]), Some("from"));
        assert_eq!(nearest("from", ["form", "from"]), None);
        assert_eq!(nearest("xyz", ["from"]), None);
    }
}
