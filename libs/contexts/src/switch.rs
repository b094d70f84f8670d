//! Attributes that say yes or no. A client, its gateway and the worker must read the same in them.

/// What the words of Go's `strconv.ParseBool` say; nothing for any other.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Whether an output that is an archive by itself shall be a folder, by its attribute `tar`.
pub fn is_folder(tar: Option<&str>) -> bool {
    tar.and_then(parse_bool) == Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_no_makes_a_folder() {
        for (tar, wanted) in [
            (None, false),
            (Some(""), false),
            (Some("1"), false),
            (Some("TRUE"), false),
            (Some("no"), false),
            (Some("fALSE"), false),
            (Some("0"), true),
            (Some("f"), true),
            (Some("F"), true),
            (Some("false"), true),
            (Some("False"), true),
            (Some("FALSE"), true),
        ] {
            assert_eq!(is_folder(tar), wanted, "{tar:?}");
        }
    }
}
