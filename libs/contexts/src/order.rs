use std::cmp::Ordering;

/// fsutil's order of paths: component by component, so that all that lies in a folder follows it.
pub fn by_components(a: &str, b: &str) -> Ordering {
    a.split('/').map(str::as_bytes).cmp(b.split('/').map(str::as_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_comes_right_before_its_content() {
        for (a, b, wanted) in [
            ("a", "a", Ordering::Equal),
            ("a", "a/b", Ordering::Less),
            ("a/b", "a-b", Ordering::Less),
            ("a/b", "a.b", Ordering::Less),
            ("a.b", "a/b", Ordering::Greater),
            ("b", "a/z", Ordering::Greater),
            ("A", "a", Ordering::Less),
            ("é", "z", Ordering::Greater),
        ] {
            assert_eq!(by_components(a, b), wanted, "{a} {b}");
        }
    }
}
