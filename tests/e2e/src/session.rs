//! Builds by the boxyard command's sessions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kit::{Boxyard, Options, Output};

/// A Boxyard with busybox, and a folder for contexts.
pub fn start() -> (Boxyard, PathBuf) {
    start_with(Options::default())
}

/// The same, started so.
pub fn start_with(options: Options) -> (Boxyard, PathBuf) {
    let boxyard = Boxyard::start(options);
    boxyard.feed(&["load", "-q"], &kit::busybox()).ok();
    let folder = boxyard.work_dir().join("context");
    fs::create_dir_all(folder.join("src")).expect("folders");
    (boxyard, folder)
}

/// `boxyard build` with plain progress, which is on its standard error.
pub fn build(boxyard: &Boxyard, folder: &Path, flags: &[&str]) -> Output {
    let folder = folder.to_string_lossy();
    boxyard.boxyard(&[&["build", "--progress", "plain"], flags, &[&folder]].concat())
}

/// The names of the steps that a build found in a cache, in the order of its log.
pub fn cached(built: &Output) -> Vec<String> {
    let lines: Vec<&str> = built.stderr.lines().collect();
    let numbers = lines.iter().filter_map(|line| line.strip_suffix(" CACHED"));
    let name = |number: &str| {
        let names = lines.iter().filter_map(|line| line.strip_prefix(number)?.strip_prefix(" ["));
        names.into_iter().find_map(|rest| rest.split_once("] ")).map(|(_, name)| name.to_owned())
    };
    numbers.filter_map(name).filter(|name| !name.starts_with("FROM ")).collect()
}

/// Debian's skopeo, by http where a registry is asked.
pub fn skopeo(args: &[&str]) -> Output {
    kit::run_command(&mut Command::new("skopeo"), args, None)
}
