//! Which files of the context a build reads.

use crate::mount::absolute;

/// The ignore files of a Dockerfile, the first that exists counts: its own, then that of the whole context.
pub fn ignore_files(dockerfile: &str) -> [String; 2] {
    [format!("{dockerfile}.dockerignore"), ".dockerignore".to_owned()]
}

/// The paths that a client is asked for (`followpaths`): those of every COPY, ADD and bind mount of the context, with
/// their variables replaced. Sorted, relative, each once; empty where the whole context is needed.
pub fn follow_paths<'a>(sources: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut paths: Vec<String> =
        sources.into_iter().map(|source| absolute("/", source).trim_start_matches('/').to_owned()).collect();
    if paths.iter().any(String::is_empty) {
        return Vec::new();
    }
    paths.sort();
    paths.dedup();
    paths
}

#[cfg(test)]
mod tests {
    use super::follow_paths;

    #[test]
    fn paths_of_the_context() {
        assert_eq!(follow_paths(["b/*.c", "./a", "/a/", "../c"]), ["a", "b/*.c", "c"]);
        assert_eq!(follow_paths(["a", "."]), Vec::<String>::new());
        assert_eq!(follow_paths([]), Vec::<String>::new());
    }
}
