//! A shell in a step of a build: as its failed command left it, or as the step saw it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use e2e::session;
use kit::{Boxyard, Client, Output, boxyard_client, program, wait_until};

const DOCKERFILE: &str = "FROM busybox\nENV A=1\nWORKDIR /w\nRUN mkdir /kept && echo input > /kept/f\n\
                          RUN --mount=type=secret,id=token --mount=type=tmpfs,target=/scratch \
                          echo half > half; rm /kept/f; exit 3\n";

/// A Boxyard with busybox, and a context whose last step fails.
fn start() -> (Boxyard, PathBuf) {
    let (boxyard, folder) = session::start();
    fs::write(folder.join("Dockerfile"), DOCKERFILE).expect("a Dockerfile");
    fs::write(folder.with_file_name("token"), "s3cret").expect("a secret");
    (boxyard, folder)
}

fn build(boxyard: &Boxyard, folder: &Path, flags: &[&str]) -> Output {
    let secret = format!("id=token,src={}", folder.with_file_name("token").display());
    session::build(boxyard, folder, &[&["--secret", &secret], flags].concat())
}

/// Id of the newest build.
fn newest(boxyard: &Boxyard) -> String {
    boxyard.boxyard(&["build", "ls", "-q", "--no-trunc", "-n", "1"]).ok().to_owned()
}

/// The digest of the step whose name has this in it.
fn digest(boxyard: &Boxyard, id: &str, name: &str) -> String {
    let steps = Client::new(boxyard.socket()).get_json(&format!("/boxyard/v1/builds/{id}/steps"));
    let steps = steps["items"].as_array().expect("steps").clone();
    let step = steps.iter().find(|step| step["name"].as_str().is_some_and(|text| text.contains(name)));
    step.expect("the step is told")["digest"].as_str().expect("a digest").to_owned()
}

#[test]
fn the_file_system_of_a_step() {
    let (boxyard, folder) = start();
    build(&boxyard, &folder, &["--on-error=shell"]).fails(1, "ERROR: --on-error=shell needs a terminal");
    assert_eq!(boxyard.boxyard(&["build", "ls", "-q"]).ok(), "", "refused before the build");
    build(&boxyard, &folder, &[]).fails(1, "exit code: 3");
    let id = newest(&boxyard);
    let shell = |step: &str, script: &str| {
        boxyard.boxyard(&["build", "shell", &format!("{id}{step}"), "--", "sh", "-c", script])
    };
    // What is asked for is one word of a shell: exit code and output are its own.
    let left = shell(
        "",
        "cat half; pwd; echo $A; ls /kept | wc -l; ls /run/secrets; grep -c ' /scratch ' /proc/mounts; exit 7",
    );
    left.fails(7, "");
    assert_eq!(left.stdout.trim_end(), "half\n/w\n1\n0\n1", "{left}");
    let before = digest(&boxyard, &id, "RUN mkdir");
    assert_eq!(shell(&format!("@{before}"), "ls -d /kept; hostname").stdout, "buildkitsandbox\n");
    let failed = digest(&boxyard, &id, "exit 3");
    assert_eq!(shell(&format!("@{}", &failed[7..30]), "cat half").ok(), "half");
    shell("@77", "true").fails(1, "has no step 77");
    shell("@1", "true").fails(1, "has no file system to look at");
    boxyard.boxyard(&["build", "shell", "nosuch"]).fails(1, "no such build: nosuch");
    shell("", "nosuchcommand").fails(127, "not found");
    // A shell reads what it is given, where there is no terminal.
    let mut command = boxyard_client(program(), boxyard.socket());
    let piped = kit::run_command(&mut command, &["build", "shell", &id[..12]], Some(b"echo read $((1 + 1)); exit 4\n"));
    piped.fails(4, "as its failed command left it: [stage-0 4/4] RUN");
    assert!(piped.stderr.contains("\nnot mounted: secret /run/secrets/token\n"), "{piped}");
    assert_eq!(piped.stdout, "read 2\n", "{piped}");
    assert_eq!(boxyard.docker(&["ps", "-aq"]).ok(), "", "no container stays");
    assert_eq!(boxyard.docker(&["images", "-aq"]).ok().lines().count(), 1, "nor an image");
    // What a build remembers holds no layers.
    boxyard.boxyard(&["build", "prune", "--force"]).ok();
    let pruned = shell("", "true");
    pruned.fails(1, "is not held any more");
    assert!(pruned.stderr.contains("build it again"), "{pruned}");
    boxyard.stop();
}

#[test]
fn a_shell_when_a_command_fails() {
    let (boxyard, folder) = start();
    let shown = folder.with_file_name("shown");
    let line = format!(
        "{} build --on-error=shell --secret id=token,src={} {}",
        program().display(),
        folder.with_file_name("token").display(),
        folder.display()
    );
    let mut terminal = boxyard_client("script", boxyard.socket())
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(File::create(&shown).expect("a file"))
        .spawn()
        .expect("script starts");
    let mut keys = terminal.stdin.take().expect("piped");
    let until_shown = |text: &str| {
        wait_until(text, 90, || fs::read_to_string(&shown).unwrap_or_default().contains(text).then_some(()));
    };
    until_shown("as its failed command left it");
    keys.write_all(b"cat half && tty && echo told $((40 + 2))\n").expect("typed");
    until_shown("told 42");
    keys.write_all(b"exit 9\n").expect("typed");
    // The build ends as it would have ended without it.
    let status = wait_until("the build to end", 60, || terminal.try_wait().ok().flatten());
    let said = fs::read_to_string(&shown).expect("said");
    assert_eq!(status.code(), Some(1), "{said}");
    let (half, error) = (said.find("half\r\n/dev/"), said.rfind("ERROR: failed to solve: process"));
    assert!(half.is_some() && half < error, "{said}");
    assert_eq!(boxyard.docker(&["ps", "-aq"]).ok(), "", "no container stays");
    boxyard.stop();
}
