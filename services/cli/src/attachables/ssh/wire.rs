//! How SSH writes what it says (RFC 4251, section 5): numbers, strings, and big numbers.

/// Writes a message.
#[derive(Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    #[must_use]
    pub fn byte(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    #[must_use]
    pub fn number(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    #[must_use]
    pub fn string(self, bytes: &[u8]) -> Self {
        let mut longer = self.number(u32::try_from(bytes.len()).expect("what is signed or listed is short"));
        longer.0.extend(bytes);
        longer
    }

    /// A number that is not negative, from its bytes, the highest one first.
    #[must_use]
    pub fn mpint(self, bytes: &[u8]) -> Self {
        let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
        let digits = &bytes[first..];
        match digits.first() {
            // Else it would count as negative.
            Some(high) if *high >= 0x80 => self.string(&[&[0], digits].concat()),
            _ => self.string(digits),
        }
    }

    pub fn done(self) -> Vec<u8> {
        self.0
    }
}

/// Reads a message; `None` where it is too short.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn number(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*bytes))
    }

    pub fn string(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_the_specification_writes_them() {
        for (value, written) in [
            (&[][..], &[0, 0, 0, 0][..]),
            (&[0, 0], &[0, 0, 0, 0]),
            (&[0x80], &[0, 0, 0, 2, 0, 0x80]),
            (&[0, 0x09, 0xa3], &[0, 0, 0, 2, 0x09, 0xa3]),
        ] {
            assert_eq!(Writer::default().mpint(value).done(), written);
        }
    }

    #[test]
    fn what_is_too_short_is_not_read() {
        let text = Writer::default().string(b"abc").number(7).done();
        let mut reader = Reader(&text);
        assert_eq!((reader.string(), reader.number(), reader.number()), (Some(&b"abc"[..]), Some(7), None));
        assert_eq!(Reader(&[0, 0, 0, 9, 1]).string(), None);
    }
}
