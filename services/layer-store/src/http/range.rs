/// Part of a blob: first byte and count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub first: u64,
    pub count: u64,
}

/// The part that a `Range` header asks for (RFC 9110, section 14). None for a header that is to be ignored, which
/// means the whole; an error for one that lies outside of `size` bytes.
pub fn parse(header: &str, size: u64) -> Option<Result<Part, ()>> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    if first.is_empty() {
        let count = number(last)?.min(size);
        return Some(if count == 0 { Err(()) } else { Ok(Part { first: size - count, count }) });
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    if last < first {
        return None;
    }
    let end = last.saturating_add(1).min(size);
    Some(if first >= size { Err(()) } else { Ok(Part { first, count: end - first }) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_the_blob() {
        let part = |first, count| Some(Ok(Part { first, count }));
        for (header, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=2-", part(2, 8)),
            ("bytes=2-5", part(2, 4)),
            ("bytes=2-99", part(2, 8)),
            ("bytes=-3", part(7, 3)),
            ("bytes=-99", part(0, 10)),
            ("bytes=10-", Some(Err(()))),
            ("bytes=-0", Some(Err(()))),
            ("bytes=5-2", None),
            ("bytes=0-1,4-5", None),
            ("bytes=+1-2", None),
            ("lines=0-1", None),
            ("bytes=-", None),
        ] {
            assert_eq!(parse(header, 10), expected, "{header}");
        }
    }
}
