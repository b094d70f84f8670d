//! Re-indents JSON without decoding it, so that numbers and escapes stay as the daemon
//! wrote them.

pub fn indent(raw: &[u8], unit: &str) -> String {
    let mut out: Vec<u8> = Vec::with_capacity(raw.len() * 2);
    let mut depth = 0usize;
    let mut in_text = false;
    let mut escaped = false;
    let newline = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        for _ in 0..depth {
            out.extend_from_slice(unit.as_bytes());
        }
    };
    let mut pending_open = false;
    for &byte in raw {
        if in_text {
            out.push(byte);
            in_text = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        if byte.is_ascii_whitespace() {
            continue;
        }
        let closes = matches!(byte, b'}' | b']');
        if pending_open && !closes {
            newline(&mut out, depth);
        }
        match byte {
            b'{' | b'[' => {
                depth += 1;
                out.push(byte);
                pending_open = true;
                continue;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if !pending_open {
                    newline(&mut out, depth);
                }
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                newline(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            b'"' => {
                out.push(byte);
                in_text = true;
            }
            _ => out.push(byte),
        }
        pending_open = false;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn keeps_escapes_and_empties() {
        let raw = br#"[{"a":{},"b":[1, "x\"\u003e,{"]}]"#;
        let expected = "[\n  {\n    \"a\": {},\n    \"b\": [\n      1,\n      \"x\\\"\\u003e,{\"\n    ]\n  }\n]";
        assert_eq!(super::indent(raw, "  "), expected);
    }
}
