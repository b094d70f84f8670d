//! Builds each case on both engines and holds the listings side by side.

use std::fmt::Write as _;
use std::path::Path;

use kit::{Engine, Kind, Output};

use super::listing::{CONTEXT_TIME, Image};
use super::{DockerfileCase, DockerfileDifference};
use crate::sides::with_dockerd;

const TAG: &str = "corpus:built";

/// Debian 13's dockerd with its BuildKit and a Boxyard; with `COMPARE_WITH=dockerd` a second dockerd in its place. Both
/// are asked by the docker command and buildx of the same release.
pub struct DockerfileSides {
    docker: Engine,
    ours: Engine,
    base: Image,
}

impl DockerfileSides {
    pub fn start() -> Self {
        let docker = Engine::start(Kind::Docker26);
        let ours = Engine::start(if with_dockerd() { Kind::Docker26 } else { Kind::Boxyard });
        for engine in [&docker, &ours] {
            engine.load_busybox();
        }
        Self { docker, ours, base: Image::read(&kit::busybox()) }
    }

    /// Runs all cases whose names hold `CORPUS` of the environment (all without) and panics with what differs and is not
    /// listed, and with what is listed and does not differ.
    pub fn hold(self, cases: &[DockerfileCase], differences: &[DockerfileDifference]) {
        let wanted = std::env::var("CORPUS").unwrap_or_default();
        let mut failures = String::new();
        for case in cases.iter().filter(|case| case.name.contains(&wanted) && (case.has_peer() || !with_dockerd())) {
            if let Some(text) = self.compare(case, differences) {
                let _ = writeln!(failures, "{}\n{text}", case.name);
                eprintln!("{}\n{text}", case.name);
            }
        }
        self.docker.stop();
        self.ours.stop();
        assert!(failures.is_empty(), "not as BuildKit:\n{failures}");
    }

    fn compare(&self, case: &DockerfileCase, differences: &[DockerfileDifference]) -> Option<String> {
        let folder = prepare(case, self.docker.work_dir());
        // Both at once: the longer of two times is waited for, not their sum.
        let (theirs, ours) = std::thread::scope(|scope| {
            let theirs = scope.spawn(|| case.has_peer().then(|| self.build(&self.docker, case, &folder)));
            let ours = self.build(&self.ours, case, &folder);
            (theirs.join().expect("the thread of dockerd's build"), ours)
        });
        if let Some(error) = &case.error {
            let held = ours.code != 0 && ours.lines.last().is_some_and(|line| line.contains(error.as_str()));
            return (!held).then(|| format!("  expected the error {error:?}, saw:\n{}", indent(&ours.lines)));
        }
        let (theirs, own) = match theirs {
            Some(theirs) => (theirs.lines, ours.lines),
            None => (case.tree.iter().flat_map(|tree| tree.lines()).map(str::to_owned).collect(), ours.files),
        };
        let expected = differences.iter().filter(|row| row.cases.contains(&case.name) && !with_dockerd());
        let (mut only_docker, mut only_here) = (without(&theirs, &own), without(&own, &theirs));
        let mut text = String::new();
        for row in expected {
            take_out(&mut only_docker, &row.docker, &mut text);
            take_out(&mut only_here, &row.here, &mut text);
        }
        text.extend(only_docker.iter().map(|line| format!("  - {line}\n")));
        text.extend(only_here.iter().map(|line| format!("  + {line}\n")));
        (!text.is_empty()).then_some(text)
    }

    fn build(&self, engine: &Engine, case: &DockerfileCase, folder: &Path) -> Built {
        let mut args = vec!["build", "--progress", "plain", "-t", TAG];
        let file = folder.with_file_name("Dockerfile").to_string_lossy().into_owned();
        if !case.dockerfile.is_empty() {
            args.extend(["-f", &file]);
        }
        args.extend(case.args.iter().map(String::as_str));
        args.push(".");
        let mut client = kit::client26(engine.socket());
        client.env("BUILDX_NO_DEFAULT_ATTESTATIONS", "1").current_dir(folder);
        let output = kit::run_command(&mut client, &args, None);
        if output.code != 0 {
            return Built::failed(case, &output);
        }
        let saved = engine.work_dir().join("saved.tar");
        engine.docker(&["save", "-o", &saved.to_string_lossy(), TAG]).ok();
        let image = Image::read(&std::fs::read(&saved).expect("the saved image"));
        engine.docker(&["rmi", "-f", TAG]).ok();
        let files = image.files(&self.base);
        let lines = [files.clone(), image.config()].concat();
        Built { code: 0, lines, files }
    }
}

/// How a build ended: the listing, or the line that says why it failed.
struct Built {
    code: i32,
    lines: Vec<String>,
    files: Vec<String>,
}

impl Built {
    fn failed(case: &DockerfileCase, output: &Output) -> Self {
        let last = output.stderr.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        let ended = ["error reading from server: EOF", "connection refused", "Is the docker daemon running?"];
        assert!(!ended.iter().any(|text| last.contains(text)), "{}: the engine has ended\n{output}", case.name);
        let mut lines: Vec<String> = output.stderr.lines().filter_map(marked).collect();
        lines.push(format!("exit {}: {}", output.code, essential(last)));
        Self { code: output.code, lines: lines.clone(), files: lines }
    }
}

/// A line of the Dockerfile that is marked as failed: `   2 | >>> RUN false`.
fn marked(line: &str) -> Option<String> {
    let (number, text) = line.split_once(" | >>> ")?;
    number.trim().parse::<u32>().ok().map(|number| format!("line {number}: {}", text.trim_end()))
}

/// The error without the names of the parts that it passed and of their folders.
fn essential(line: &str) -> String {
    const PARTS: [&str; 7] = [
        "ERROR: ",
        "failed to solve: ",
        "failed to load LLB: ",
        "failed to run Build function: ",
        "failed to marshal LLB definition: ",
        "failed to compute cache key: ",
        "rpc error: code = Unknown desc = ",
    ];
    let line = without_folders(line);
    let mut line = line.as_str();
    while let Some(rest) = PARTS.iter().find_map(|part| line.strip_prefix(part)) {
        line = rest;
    }
    // The checksum is one of a random reference.
    match line.split_once("failed to calculate checksum of ref ") {
        Some((_, rest)) => rest.split_once(": ").map_or(rest, |(_, error)| error).to_owned(),
        None => line.to_owned(),
    }
}

/// The folders where dockerd mounts an image's root are as good as that root.
fn without_folders(line: &str) -> String {
    let is_root = |part: &str| part.starts_with("buildkit-mount") || part == "merged";
    let word = |word: &str| match word.split('/').position(is_root) {
        Some(at) if word.starts_with('/') => format!("/{}", word.split('/').skip(at + 1).collect::<Vec<_>>().join("/")),
        _ => word.to_owned(),
    };
    line.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// Writes Dockerfile and context; all of the context has one time, so that what keeps a time can be told.
fn prepare(case: &DockerfileCase, work: &Path) -> std::path::PathBuf {
    // A folder of its own: what a client sent of another is not compared with it.
    let folder = work.join(case.name.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
    let context = folder.join("context");
    std::fs::create_dir_all(&context).expect("make the context");
    std::fs::write(folder.join("Dockerfile"), &case.dockerfile).expect("write the Dockerfile");
    // A client that knows a file by its path, size and time must not take another case's for it.
    let nanos = case.name.bytes().fold(0_u32, |sum, byte| (sum * 31 + u32::from(byte)) % 1_000_000);
    let times = format!("find . -depth -exec touch -h -d @{CONTEXT_TIME}.{nanos:06} {{}} +");
    let script = format!("set -e\n{}\n{times}", case.context);
    let mut command = std::process::Command::new("/bin/bash");
    kit::run_command(command.current_dir(&context), &["-c", &script], None).ok();
    context
}

/// The lines of one that the other lacks, as often as it lacks them.
fn without(lines: &[String], other: &[String]) -> Vec<String> {
    let mut other = other.to_vec();
    let mut left = Vec::new();
    for line in lines {
        match other.iter().position(|found| found == line) {
            Some(at) => drop(other.swap_remove(at)),
            None => left.push(line.clone()),
        }
    }
    left
}

fn take_out(lines: &mut Vec<String>, listed: &[String], text: &mut String) {
    for line in listed {
        match lines.iter().position(|found| found == line) {
            Some(at) => drop(lines.remove(at)),
            None => text.push_str(&format!("  is listed as a difference and does not differ: {line}\n")),
        }
    }
}

fn indent(lines: &[String]) -> String {
    lines.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}
