//! The build farm: stages that run at once, steps that many builds share.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use kit::{Boxyard, Client, Options, wait_until};

/// A Boxyard with busybox and so many workers.
fn farm(workers: u32) -> Boxyard {
    let boxyard = Boxyard::start(Options { workers, ..Options::default() });
    boxyard.feed(&["load", "-q"], &kit::busybox()).ok();
    boxyard
}

/// Answers so many callers only when all of them have called; the port, and who has.
fn meeting(callers: usize) -> (u16, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let port = listener.local_addr().expect("the address").port();
    let met = thread::spawn(move || {
        let mut lines: Vec<(String, TcpStream)> = (0..callers)
            .map(|_| {
                let (stream, _) = listener.accept().expect("a caller");
                let mut said = String::new();
                BufReader::new(&stream).read_line(&mut said).expect("a line");
                (said.trim().to_owned(), stream)
            })
            .collect();
        lines.iter_mut().for_each(|(_, stream)| stream.write_all(b"all are here\n").expect("answer"));
        let mut names: Vec<String> = lines.into_iter().map(|(name, _)| name).collect();
        names.sort();
        names
    });
    (port, met)
}

#[test]
fn stages_that_do_not_need_each_other_run_at_once() {
    let boxyard = farm(1);
    let (port, met) = meeting(2);
    let call = |name: &str| format!("RUN echo {name} | timeout 60 nc 127.0.0.1 {port} > /{name} && cat /{name}\n");
    let stages = format!(
        "FROM busybox AS one\n{}FROM busybox\n{}COPY --from=one /one /\nRUN echo from one && cat /one\n",
        call("one"),
        call("two"),
    );
    let built = boxyard.feed(&["build", "--network", "host", "-t", "both", "-"], stages.as_bytes());
    built.says("Successfully tagged both:latest").says("from one\nall are here");
    assert_eq!(met.join().expect("they met"), ["one", "two"]);
    let steps: Vec<&str> = built.lines().into_iter().filter_map(|line| line.strip_prefix("Step ")).collect();
    let steps: Vec<&str> = steps.iter().map(|line| &line[..3]).collect();
    assert_eq!(steps, ["1/6", "2/6", "3/6", "4/6", "5/6", "6/6"], "{built}");
    let place = |text: &str| built.stdout.find(text).unwrap_or_else(|| panic!("{text}: {built}"));
    assert!(place("all are here\n") < place("Step 3/6"), "each stage has its place in the output: {built}");

    // The first stage that fails, in the order of the file, is the build's failure, and ends the others.
    let stages = "FROM busybox\nRUN sleep 1; exit 3\nFROM busybox\nRUN exit 4\nFROM busybox\nRUN sleep 600\n";
    let failed = boxyard.feed(&["build", "-"], stages.as_bytes());
    failed.fails(3, "returned a non-zero code: 3");
    assert!(!failed.stdout.contains("Step 3/6"), "{failed}");
    boxyard.stop();
}

/// Steps call it by name and wait until it answers.
struct Bell {
    port: u16,
    callers: Arc<Mutex<Callers>>,
}

#[derive(Default)]
struct Callers {
    names: Vec<String>,
    waiting: Vec<TcpStream>,
    open: bool,
}

impl Bell {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let port = listener.local_addr().expect("the address").port();
        let callers = Arc::<Mutex<Callers>>::default();
        let heard = callers.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map(|stream| stream.expect("a caller")) {
                let mut said = String::new();
                BufReader::new(&stream).read_line(&mut said).expect("a line");
                let mut callers = heard.lock().expect("whole");
                callers.names.push(said.trim().to_owned());
                // One that is answered is closed.
                if !callers.open {
                    callers.waiting.push(stream);
                }
            }
        });
        Self { port, callers }
    }

    /// A line of a Dockerfile that prints, calls, and prints again.
    fn step(&self, name: &str) -> String {
        let port = self.port;
        format!("RUN echo {name} began; echo {name} | timeout 120 nc 127.0.0.1 {port}; echo {name} ended\n")
    }

    /// Answers all, also those that call later.
    fn answer(&self) {
        let mut callers = self.callers.lock().expect("whole");
        callers.open = true;
        callers.waiting.clear();
    }

    /// How often a step has run.
    fn count(&self, name: &str) -> usize {
        self.callers.lock().expect("whole").names.iter().filter(|caller| *caller == name).count()
    }

    /// Steps wait for an answer again.
    fn hold(&self) {
        self.callers.lock().expect("whole").open = false;
    }
}

/// A build that goes on beside others.
struct Build {
    child: Child,
    output: PathBuf,
}

impl Build {
    fn start(boxyard: &Boxyard, name: &str, dockerfile: &str, flags: &[&str]) -> Self {
        let (folder, output) = (boxyard.work_dir().join(name), boxyard.work_dir().join(format!("{name}.log")));
        fs::create_dir(&folder).expect("make the context");
        fs::write(folder.join("Dockerfile"), dockerfile).expect("write the Dockerfile");
        let folder = folder.display().to_string();
        let args = [&["build", "--network", "host"][..], flags, &[&folder]].concat();
        Self { child: boxyard.spawn_docker(&args, &output), output }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    fn until_said(&self, text: &str) {
        wait_until(text, 90, || self.said().contains(text).then_some(()));
    }

    /// The exit code and all that was said.
    fn end(mut self) -> (i32, String) {
        let status = wait_until("a build to end", 120, || self.child.try_wait().ok().flatten());
        (status.code().unwrap_or(-1), self.said())
    }

    /// The id of its image, and all that was said.
    fn built(self) -> (String, String) {
        let (code, said) = self.end();
        assert_eq!(code, 0, "{said}");
        let id = said.lines().find_map(|line| line.strip_prefix("Successfully built ")).expect("an id").to_owned();
        (id, said)
    }
}

/// The container that a build names for a step.
fn container<'a>(said: &'a str, step: &str) -> &'a str {
    let before = said.split(&format!("\n{step} began")).next().expect("there is always a first part");
    before.rsplit(" ---> Running in ").next().expect("there is always a last part").trim()
}

#[test]
fn eight_builds_on_four_workers_run_each_step_once() {
    let (boxyard, bell) = (farm(4), Bell::new());
    let dockerfile = format!("FROM busybox\nENV A=b\n{}{}CMD [\"true\"]\n", bell.step("one"), bell.step("two"));
    let builds: Vec<Build> = (0..8).map(|n| Build::start(&boxyard, &format!("b{n}"), &dockerfile, &[])).collect();
    // All of them see what is printed while the step runs.
    builds.iter().for_each(|build| build.until_said("one began"));
    bell.answer();
    let built: Vec<(String, String)> = builds.into_iter().map(Build::built).collect();
    let (id, said) = &built[0];
    for (other_id, other) in &built {
        assert_eq!(other_id, id, "{other}");
        assert_eq!(container(other, "one"), container(said, "one"), "{other}");
        assert!(other.contains("one ended\nRemoving intermediate container"), "{other}");
    }
    assert_eq!((bell.count("one"), bell.count("two")), (1, 1));
    let images = boxyard.docker(&["images", "-aq"]);
    assert_eq!(images.lines().len(), 5, "busybox and one image for each step: {images}");
    boxyard.stop();
}

#[test]
fn a_step_that_others_follow() {
    let (boxyard, bell) = (farm(2), Bell::new());
    let start = |name: &str, dockerfile: &str, flags: &[&str]| Build::start(&boxyard, name, dockerfile, flags);

    // The client that had it leaves; the other one gets the step's result.
    let dockerfile = format!("FROM busybox\n{}", bell.step("left"));
    let mut leaves = start("leaves", &dockerfile, &[]);
    leaves.until_said("left began");
    let stays = start("stays", &dockerfile, &[]);
    stays.until_said("left began");
    leaves.child.kill().and_then(|()| leaves.child.wait()).expect("killed");
    let builds = || Client::new(boxyard.socket()).get_json("/boxyard/v1/builds").to_string();
    wait_until("the build to be cancelled", 30, || builds().contains("cancelled").then_some(()));
    bell.answer();
    let (_, said) = stays.built();
    assert!(said.contains("left ended"), "{said}");
    assert_eq!((bell.count("left"), container(&said, "left")), (1, container(&leaves.said(), "left")));

    // Without the cache a build does not follow, and its result is the one that counts from then on.
    bell.hold();
    let dockerfile = format!("FROM busybox\n{}", bell.step("anew"));
    let first = start("first", &dockerfile, &[]);
    first.until_said("anew began");
    let anew = start("anew", &dockerfile, &["--no-cache"]);
    wait_until("both to run", 60, || (bell.count("anew") == 2).then_some(()));
    bell.answer();
    let (first, anew) = (first.built().0, anew.built().0);
    assert_ne!(first, anew);
    assert!([first, anew].contains(&start("found", &dockerfile, &[]).built().0));

    // A command that fails fails for all who followed it, and runs again for who comes later.
    bell.hold();
    let dockerfile = format!("FROM busybox\n{}", bell.step("fails").replace("echo fails ended", "exit 7"));
    let one = start("fails-1", &dockerfile, &[]);
    one.until_said("fails began");
    let other = start("fails-2", &dockerfile, &[]);
    other.until_said("fails began");
    bell.answer();
    for (code, said) in [one.end(), other.end()] {
        assert!(code == 7 && said.contains("returned a non-zero code: 7"), "{said}");
    }
    assert_eq!(bell.count("fails"), 1);
    assert_eq!(start("fails-3", &dockerfile, &[]).end().0, 7);
    assert_eq!(bell.count("fails"), 2);
    boxyard.stop();
}

#[test]
fn the_same_step_in_two_stages_of_a_build_is_found_by_the_later_one() {
    let boxyard = farm(1);
    let stages = "FROM busybox\nRUN echo once; sleep 1\nFROM busybox\nRUN echo once; sleep 1\n";
    let built = boxyard.feed(&["build", "-"], stages.as_bytes());
    let (first, second) = built.ok().split_once("Step 3/4").expect("two stages");
    assert!(first.contains("once\nRemoving") && !first.contains("Using cache"), "{built}");
    assert!(second.contains(" ---> Using cache") && !second.contains("Running in"), "{built}");
    boxyard.stop();
}

#[test]
fn a_worker_that_stops_costs_the_step_that_it_ran() {
    let (boxyard, bell) = (farm(2), Bell::new());
    let dockerfile = format!("FROM busybox\nRUN echo before\n{}", bell.step("lost"));
    let first = Build::start(&boxyard, "first", &dockerfile, &[]);
    first.until_said("lost began");
    let second = Build::start(&boxyard, "second", &dockerfile, &[]);
    second.until_said("lost began");
    // The worker that has the step is the parent of its shim.
    let shim = boxyard.pids_of("boxyard-shim").into_iter().next().expect("a step runs");
    let status = fs::read_to_string(format!("/proc/{shim}/status")).expect("it is there");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent");
    let worker = Pid::from_raw(parent.trim().parse().expect("a number"));
    kill(worker, Signal::SIGSTOP).expect("stopped");
    wait_until("the step to run again", 90, || (bell.count("lost") == 2).then_some(()));
    bell.answer();
    let ended: Vec<(String, String)> = [first, second].map(Build::built).into();
    // It wakes up late, and changes nothing.
    kill(worker, Signal::SIGCONT).expect("goes on");
    for (id, said) in &ended {
        assert!(*id == ended[0].0 && said.contains("lost ended"), "{said}");
    }
    assert_eq!(bell.count("lost"), 2);
    boxyard.stop();
}
