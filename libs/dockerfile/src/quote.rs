//! Text and characters as Go's `%q` prints them: errors and an image's history are in its words.

use std::fmt::Write as _;

/// As Go's `strconv.Quote`: `"a\n\u200b"`.
pub fn quote(text: &str) -> String {
    quoted(text, '"')
}

/// As Go's `strconv.QuoteRune` of a number; what is no character is the replacement character.
pub fn quote_number(number: i64) -> String {
    let c = u32::try_from(number).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
    quoted(c.encode_utf8(&mut [0; 4]), '\'')
}

fn quoted(text: &str, mark: char) -> String {
    let mut out = String::from(mark);
    for c in text.chars() {
        match c {
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if c == mark || c == '\\' => out.extend(['\\', c]),
            c if is_print(c) => out.push(c),
            c => {
                let code = u32::from(c);
                // A string takes any writing.
                let _ = match code {
                    0..0x20 | 0x7f => write!(out, "\\x{code:02x}"),
                    ..0x1_0000 => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(mark);
    out
}

/// As Go's `unicode.IsPrint`: letters, marks, numbers, punctuation, symbols, and the blank.
fn is_print(c: char) -> bool {
    if c.is_ascii() {
        return matches!(c, ' '..='~');
    }
    // Rust escapes what it takes for unprintable; behind another character, marks are none of that.
    !format!("a{c}").escape_debug().skip(1).any(|c| c == '\\')
}

#[cfg(test)]
mod tests {
    use super::{quote, quote_number};

    #[test]
    fn text_as_go_quotes_it() {
        for (text, expected) in [
            ("", r#""""#),
            ("a b", r#""a b""#),
            ("it's \"x\" \\", r#""it's \"x\" \\""#),
            ("\n\t\r\x07\x08\x0b\x0c", r#""\n\t\r\a\b\v\f""#),
            ("\0\x01\x1b\x7f", r#""\x00\x01\x1b\x7f""#),
            ("ä→日😀", "\"ä→日😀\""),
            ("e\u{301}", "\"e\u{301}\""),
            ("\u{a0}\u{200b}\u{feff}\u{85}", r#""\u00a0\u200b\ufeff\u0085""#),
            ("\u{e0001}", r#""\U000e0001""#),
        ] {
            assert_eq!(quote(text), expected, "{text:?}");
        }
    }

    #[test]
    fn numbers_as_characters() {
        for (number, expected) in [
            (0, r"'\x00'"),
            (2, r"'\x02'"),
            (7, r"'\a'"),
            (10, r"'\n'"),
            (34, "'\"'"),
            (39, r"'\''"),
            (65, "'A'"),
            (92, r"'\\'"),
            (127, r"'\x7f'"),
            (160, r"'\u00a0'"),
            (228, "'ä'"),
            (0xd800, "'\u{fffd}'"),
            (0x11_0000, "'\u{fffd}'"),
            (-1, "'\u{fffd}'"),
        ] {
            assert_eq!(quote_number(number), expected, "{number}");
        }
    }
}
