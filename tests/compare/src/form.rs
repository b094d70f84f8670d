//! Replaces what must differ between two engines (ids, times, random names, addresses) by its form.

use crate::Ids;
use crate::progress::by_layer;

/// The text with ids, times, addresses and random names replaced by what they are, and columns by one space. Ids that are
/// the same on both sides stay.
pub fn normalised(text: &str, ids: Ids) -> String {
    // Red text comes in pieces as it was read from the container's pipe: their seams are no difference.
    let text = text.replace('\r', "").replace("\u{1b}[0m\u{1b}[91m", "");
    by_layer(&text, ids).lines().map(|text| line(text, ids)).collect::<Vec<_>>().join("\n")
}

fn line(text: &str, ids: Ids) -> String {
    let text = ago(&ago_words(text));
    // How long a manifest is goes by how well each side's packer packs.
    let text = match text.rsplit_once(" size: ") {
        Some((front, _)) if ids == Ids::Blanked && front.contains(": digest: ") => format!("{front} size: <size>"),
        _ => text,
    };
    let mut out = String::new();
    let mut word = String::new();
    for character in text.chars() {
        if character.is_ascii_alphanumeric() || "_.:+-".contains(character) {
            word.push(character);
        } else {
            out.push_str(&token(&word, ids));
            word.clear();
            out.push(character);
        }
    }
    out.push_str(&token(&word, ids));
    squeeze(out.trim_end())
}

/// Columns are as wide as their widest cell, and a cell may hold an age: only that there is a gap counts.
fn squeeze(text: &str) -> String {
    let mut out = String::new();
    let mut spaces = 0;
    for character in text.chars() {
        if character == ' ' {
            spaces += 1;
            continue;
        }
        out.push_str(match spaces {
            0 => "",
            1 => " ",
            _ => "  ",
        });
        spaces = 0;
        out.push(character);
    }
    out
}

fn token(word: &str, ids: Ids) -> String {
    let (body, tail) = match word.strip_suffix([':', '.', '-']) {
        Some(body) => (body, &word[body.len()..]),
        None => (word, ""),
    };
    let hex = |text: &str, length: usize| {
        ids == Ids::Blanked
            && text.len() == length
            && text.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
    };
    let form = if let Some(id) = body.strip_prefix("sha256:") {
        if hex(id, 64) {
            "<sha256>"
        } else if hex(id, 12) {
            "<sha256 short>"
        } else {
            body
        }
    } else if let Some((kind, id)) = body.split_once(':').filter(|(kind, _)| ["file", "dir", "multi"].contains(kind)) {
        // A table cuts them off.
        if hex(id, 64) || hex(id, 16) { return format!("{kind}:<sum>{tail}") } else { body }
    } else if hex(body, 64) {
        "<id>"
    } else if hex(body, 12) {
        "<short id>"
    } else if is_time(body) {
        "<time>"
    } else if body.split('.').count() == 4 && body.split('.').all(|part| part.parse::<u8>().is_ok()) {
        "<address>"
    } else if is_random_name(body) {
        "<random name>"
    } else {
        body
    };
    format!("{form}{tail}")
}

/// `2026-11-24T08:18:17.123Z` and the like.
fn is_time(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.len() >= 19
        && bytes[4] == b'-'
        && bytes[7] == b'-'
        && bytes[10] == b'T'
        && bytes[13] == b':'
        && bytes[16] == b':'
}

/// Docker's `adjective_surname`.
fn is_random_name(word: &str) -> bool {
    word.split_once('_').is_some_and(|(first, last)| {
        // A name that was taken gets one digit.
        let last = last.strip_suffix(|c: char| c.is_ascii_digit()).unwrap_or(last);
        first.len() >= 3
            && last.len() >= 2
            && [first, last].iter().all(|part| part.chars().all(|c| c.is_ascii_lowercase()))
    }) && !["test_container", "first_docker_image"].contains(&word)
}

/// "Less than a second" and "About a minute" as ages of one word.
fn ago_words(text: &str) -> String {
    text.replace("Less than a second", "0 seconds")
        .replace("About a minute", "1 minutes")
        .replace("About an hour", "1 hours")
}

/// "3 seconds ago" and "Up 3 seconds" become an age.
fn ago(text: &str) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    let mut out: Vec<String> = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let unit = words.get(at + 1).copied().unwrap_or_default().trim_end_matches(['.', ',']);
        let is_unit = ["second", "seconds", "minute", "minutes", "hour", "hours"].contains(&unit);
        if words[at].parse::<u32>().is_ok() && is_unit {
            out.push("<age>".to_owned());
            at += 2;
        } else {
            out.push(words[at].to_owned());
            at += 1;
        }
    }
    out.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_stay() {
        let text = "Digest: sha256:5cf648d6afb8 5cf648d6afb8 2026-11-24T08:18:17.1Z";
        assert_eq!(normalised(text, Ids::Kept), "Digest: sha256:5cf648d6afb8 5cf648d6afb8 <time>");
    }

    #[test]
    fn forms() {
        let id = "5cf648d6afb8".repeat(6)[..64].to_owned();
        for (given, expected) in [
            (
                "busybox   latest    5cf648d6afb8   2 seconds ago   1.98MB",
                "busybox  latest  <short id>  <age> ago  1.98MB",
            ),
            ("Up Less than a second", "Up <age>"),
            ("Up About a minute", "Up <age>"),
            (" ---> 5cf648d6afb8", " ---> <short id>"),
            (" ---> 5cf648d6afb", " ---> 5cf648d6afb"),
            (&format!("Deleted: sha256:{id}"), "Deleted: <sha256>"),
            (&format!("\"{id}\"."), "\"<id>\"."),
            ("2026-11-24T08:18:17.1Z out", "<time> out"),
            ("1: digest: sha256:5cf648d6afb8 size: 735", "1: digest: <sha256 short> size: <size>"),
            ("fervent_satoshi", "<random name>"),
            ("bright_shannon9", "<random name>"),
            ("reverent_tu", "<random name>"),
            ("bright_shannon97", "bright_shannon97"),
            ("test_container", "test_container"),
            ("10.0.0.1/24", "<address>/24"),
            ("exit 5", "exit 5"),
        ] {
            assert_eq!(normalised(given, Ids::Blanked), expected);
        }
    }
}
