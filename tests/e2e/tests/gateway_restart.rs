//! The gateway dies in the middle of builds: those of the session protocol go on, and their clients come back.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;

use kit::farm::Bell;
use kit::{Boxyard, Client, Gateway, Options, Postgres, boxyard_client, program, wait_until};

/// A build by `boxyard build` that needs its client after the bell: for files, a secret and a place for what it made.
struct Build {
    child: Child,
    folder: PathBuf,
}

impl Build {
    fn start(folder: PathBuf, socket: &Path, bell: &Bell, name: &str) -> Self {
        let (context, lib) = (folder.join("context"), folder.join("lib"));
        for path in [&context, &lib] {
            fs::create_dir_all(path).expect("a folder");
        }
        fs::write(lib.join("data"), name).expect("a file");
        fs::write(folder.join("token"), "s3cret").expect("a secret");
        let dockerfile = format!(
            "FROM busybox AS made\n{}COPY --from=lib data /out/data\n\
             RUN --mount=type=secret,id=token,required wc -c < /run/secrets/token > /out/size\n\
             FROM scratch\nCOPY --from=made /out /\n",
            bell.step(name)
        );
        fs::write(context.join("Dockerfile"), dockerfile).expect("a Dockerfile");
        let log = File::create(folder.join("log")).expect("a log");
        let at = |name: &str| folder.join(name).display().to_string();
        let child = boxyard_client(program(), socket)
            .args([
                "build",
                "--progress",
                "plain",
                "--network",
                "host",
                "--secret",
                &format!("id=token,src={}", at("token")),
            ])
            .args(["--build-context", &format!("lib={}", at("lib")), "-o", &at("out"), &at("context")])
            .stdout(log.try_clone().expect("the same log"))
            .stderr(log)
            .spawn()
            .expect("boxyard starts");
        Self { child, folder }
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Waits for its end, and checks all that it made.
    fn ends_well(mut self, name: &str) {
        let status = wait_until("the build to end", 120, || self.child.try_wait().ok().flatten());
        let said = self.said();
        assert!(status.success(), "{status}: {said}");
        assert_eq!(said.matches(&format!(" {name} began\n")).count(), 1, "nothing is told twice: {said}");
        assert!(said.contains(&format!(" {name} ended\n")) && !said.contains("s3cret"), "{said}");
        let out = |file: &str| fs::read_to_string(self.folder.join("out").join(file)).expect("an output");
        assert_eq!((out("data").as_str(), out("size").as_str()), (name, "6\n"));
    }
}

/// State and attempt of each build, the newest first.
fn builds(socket: &Path) -> Vec<(String, u64)> {
    let listed = Client::new(socket).get_json("/boxyard/v1/builds");
    let items = listed["items"].as_array().expect("items").clone();
    let one = |build: &serde_json::Value| {
        (build["state"].as_str().expect("a state").to_owned(), build["attempt"].as_u64().expect("a number"))
    };
    items.iter().map(one).collect()
}

fn done(count: usize) -> Vec<(String, u64)> {
    vec![("done".to_owned(), 1); count]
}

#[test]
fn builds_outlive_their_gateway() {
    let (mut boxyard, bell) = (Boxyard::start(Options { worker_slots: Some(3), ..Options::default() }), Bell::new());
    boxyard.feed(&["load", "-q"], &kit::busybox()).ok();
    let mut build = Build::start(boxyard.work_dir().join("attached"), boxyard.socket(), &bell, "attached");
    let alone = boxyard.work_dir().join("alone");
    fs::create_dir(&alone).expect("a folder");
    fs::write(alone.join("Dockerfile"), format!("FROM busybox\n{}", bell.step("alone"))).expect("a Dockerfile");
    let alone = alone.display().to_string();
    let detached = boxyard.boxyard(&["build", "--detach", "--network", "host", "-t", "alone", &alone]);
    wait_until("both steps", 90, || (bell.count("attached") == 1 && bell.count("alone") == 1).then_some(()));
    assert_eq!(boxyard.kill_service("boxyard-gateway"), 1);
    boxyard.wait_ready();
    bell.answer();
    assert!(build.child.try_wait().expect("asked").is_none_or(|status| status.success()), "{}", build.said());
    build.ends_well("attached");
    boxyard.boxyard(&["build", "attach", detached.ok()]).ok();
    boxyard.docker(&["image", "inspect", "-f", "{{.Id}}", "alone"]).ok();
    assert_eq!(builds(boxyard.socket()), done(2));
    assert_eq!((bell.count("attached"), bell.count("alone")), (1, 1), "no step ran twice");

    // Once more, and it fails: it ends as it would have ended anyway.
    let folder = boxyard.work_dir().join("failing");
    fs::create_dir(&folder).expect("a folder");
    bell.hold();
    let dockerfile = format!("FROM busybox\n{}RUN exit 3\n", bell.step("failing"));
    fs::write(folder.join("Dockerfile"), dockerfile).expect("a Dockerfile");
    let socket = boxyard.socket().to_owned();
    let failing = std::thread::spawn(move || {
        let mut command = boxyard_client(program(), &socket);
        kit::run_command(&mut command, &["build", "--network", "host", &folder.to_string_lossy()], None)
    });
    wait_until("the step", 90, || (bell.count("failing") == 1).then_some(()));
    assert_eq!(boxyard.kill_service("boxyard-gateway"), 1);
    boxyard.wait_ready();
    bell.answer();
    failing.join().expect("it ends").fails(1, "did not complete successfully: exit code: 3");
    boxyard.stop();
}

#[test]
fn sessions_through_two_gateways() {
    let (postgres, bell) = (Postgres::start(), Bell::new());
    let boxyard = Boxyard::start(Options { database: Some(postgres.url()), ..Options::default() });
    boxyard.feed(&["load", "-q"], &kit::busybox()).ok();
    let mut second = Gateway::start(&boxyard, "second");
    // The worker asks any gateway for all but what only the client's has.
    bell.answer();
    for (number, socket) in [second.socket(), boxyard.socket().to_owned(), second.socket()].iter().enumerate() {
        let name = format!("through{number}");
        Build::start(boxyard.work_dir().join(&name), socket, &bell, &name).ends_well(&name);
    }
    bell.hold();
    let build = Build::start(boxyard.work_dir().join("lost"), &second.socket(), &bell, "lost");
    wait_until("the step", 90, || (bell.count("lost") == 1).then_some(()));
    second.kill();
    boxyard.docker(&["ps"]).ok();
    second.up();
    bell.answer();
    build.ends_well("lost");
    assert_eq!((builds(boxyard.socket()), bell.count("lost")), (done(4), 1));
    second.stop();
    boxyard.stop();
}
