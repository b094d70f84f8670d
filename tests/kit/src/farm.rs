//! What tests of the build farm share: a farm whose workers are machines of their own, steps that wait for the test, and
//! builds that go on beside each other.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use crate::cluster::{HEAD, STORE_PORT};
use crate::network::listen_in;
use crate::{Boxyard, Client, Cluster, Output, Postgres, Throttle, wait_until};

/// Port of the head's where a farm's bell is.
const BELL_PORT: u16 = 7000;

/// A head (gateway, NATS, layer store, registry-sync) and build workers: each has a network namespace, a data folder, a
/// user of the bus and a token of the store of its own, and reaches nothing but the head's three ports, and the bell.
pub struct Farm {
    pub cluster: Cluster,
    /// Names of the workers and their machines.
    pub workers: Vec<String>,
}

impl Farm {
    /// With busybox; every worker is known to the gateway.
    pub fn start(workers: usize) -> Self {
        Self::of(Cluster::start(), workers)
    }

    /// The same with its records in this PostgreSQL.
    pub fn start_on(postgres: &Postgres, workers: usize) -> Self {
        Self::of(Cluster::start_on(postgres), workers)
    }

    fn of(mut cluster: Cluster, workers: usize) -> Self {
        cluster.feed(&["load", "-q"], &crate::busybox()).ok();
        let workers: Vec<String> = (1..=workers).map(|number| format!("w{number}")).collect();
        for worker in &workers {
            cluster.join_behind_firewall(worker, &[("worker", worker)], BELL_PORT);
        }
        let farm = Self { cluster, workers };
        wait_until("all workers to be known", 30, || (farm.alive().len() == farm.workers.len()).then_some(()));
        farm
    }

    /// Workers that the gateway knows.
    pub fn alive(&self) -> Vec<String> {
        let listed = self.get("/boxyard/v1/workers");
        let ready = |worker: &&Value| worker["alive"] == true;
        let workers = listed["items"].as_array().into_iter().flatten().filter(ready);
        workers.filter_map(|worker| worker["id"].as_str()).map(str::to_owned).collect()
    }

    pub fn get(&self, path: &str) -> Value {
        Client::new(&self.cluster.socket()).get_json(path)
    }

    /// A bell that steps on the workers' networks reach.
    pub fn bell(&self) -> Bell {
        Bell::in_namespace(&self.cluster.namespace("head"), HEAD)
    }

    /// Puts a wire of this rate between a worker, which is started anew, and the layer store. There is one in a farm, and no
    /// bell then.
    pub fn slow_store(&mut self, worker: &str, bytes_per_second: u64) -> Throttle {
        let ends = [BELL_PORT, STORE_PORT].map(|port| format!("{HEAD}:{port}").parse().expect("an address"));
        let wire = Throttle::in_namespace(&self.cluster.namespace("head"), ends, bytes_per_second);
        self.cluster.kill(worker);
        self.cluster.set_store_port(worker, BELL_PORT);
        self.cluster.up(worker);
        wire
    }

    pub fn boxyard(&self, args: &[&str]) -> Output {
        self.cluster.boxyard_client(args)
    }

    /// A build by the graph builder, as `boxyard build` asks for it.
    pub fn build(&self, name: &str, dockerfile: &str, flags: &[&str]) -> Build {
        Build::spawn(&self.cluster.work_dir(), name, dockerfile, |folder, output| {
            let own = ["build", "--progress", "plain", "--network", "host", "-t", name];
            self.cluster.spawn_boxyard(&[&own[..], flags, &[folder]].concat(), output)
        })
    }

    /// A build by the classic builder, as the docker command asks for it.
    pub fn classic(&self, name: &str, dockerfile: &str, flags: &[&str]) -> Build {
        Build::spawn(&self.cluster.work_dir(), name, dockerfile, |folder, output| {
            let own = ["build", "--network", "host", "-t", name];
            self.cluster.spawn_docker(&[&own[..], flags, &[folder]].concat(), output)
        })
    }

    /// What begins here, and is with a worker when it returns, is with another worker than this one.
    pub fn elsewhere<T>(&self, worker: &str, begin: impl FnOnce() -> T) -> T {
        self.boxyard(&["worker", "drain", worker]).ok();
        let begun = begin();
        self.boxyard(&["worker", "undrain", worker]).ok();
        begun
    }

    /// Bytes that came from the layer store to each worker so far.
    pub fn received(&self) -> BTreeMap<String, u64> {
        let of = |worker: &String| (worker.clone(), self.cluster.received_from_store(worker));
        self.workers.iter().map(of).collect()
    }

    /// Bytes of an image.
    pub fn bytes_of(&self, name: &str) -> u64 {
        self.cluster.docker(&["image", "inspect", "-f", "{{.Size}}", name]).ok().parse().expect("bytes")
    }

    /// The id of an image.
    pub fn image(&self, name: &str) -> String {
        self.cluster.docker(&["image", "inspect", "-f", "{{.Id}}", name]).ok().to_owned()
    }

    /// The build whose image is called so: its id and what is known of it.
    pub fn build_of(&self, tag: &str) -> Value {
        let listed = self.get("/boxyard/v1/builds");
        let is_tag = |named: &Value| named.as_str().is_some_and(|named| named.trim_end_matches(":latest") == tag);
        let is_tagged = |build: &&Value| build["tags"].as_array().is_some_and(|tags| tags.iter().any(is_tag));
        let builds = listed["items"].as_array().into_iter().flatten();
        builds.into_iter().find(is_tagged).cloned().unwrap_or_else(|| panic!("no build of {tag}: {listed}"))
    }

    /// What ran of a build that is over, and where: each step's name and worker, without those that were found.
    pub fn ran(&self, tag: &str) -> Vec<(String, String)> {
        let id = self.build_of(tag)["id"].as_str().expect("an id").to_owned();
        let steps = wait_until("the build's steps", 30, || {
            let told = self.get(&format!("/boxyard/v1/builds/{id}/steps"));
            told["items"].as_array().filter(|steps| !steps.is_empty()).cloned()
        });
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let ran = steps.iter().filter(|step| step["cached"] == false && step["worker_id"].is_string());
        ran.map(|step| (text(&step["name"]), text(&step["worker_id"]))).collect()
    }

    /// The workers that ran those steps of a build that is over whose names hold this text.
    pub fn ran_on(&self, tag: &str, text: &str) -> Vec<String> {
        let of_text = self.ran(tag).into_iter().filter(|(step, _)| step.contains(text));
        of_text.map(|(_, worker)| worker).collect()
    }

    /// The worker that has a build, or had it last.
    pub fn worker_of(&self, tag: &str) -> String {
        self.build_of(tag)["worker_id"].as_str().expect("a worker").to_owned()
    }

    /// The shim of a step that runs, and its worker's machine.
    pub fn running_step(&self) -> (i32, String) {
        wait_until("a step to run", 30, || {
            self.workers.iter().find_map(|worker| {
                let shim = self.cluster.pids_of(worker, "boxyard-shim").into_iter().next()?;
                Some((shim, worker.clone()))
            })
        })
    }

    pub fn stop(self) {
        self.cluster.stop();
    }
}

/// Steps call it by name and wait until it answers.
pub struct Bell {
    address: String,
    callers: Arc<Mutex<Callers>>,
}

#[derive(Default)]
struct Callers {
    names: Vec<String>,
    waiting: Vec<TcpStream>,
    open: bool,
}

impl Default for Bell {
    fn default() -> Self {
        Self::new()
    }
}

impl Bell {
    pub fn new() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("listen"))
    }

    /// At this address of another network namespace.
    fn in_namespace(namespace: &Path, address: &str) -> Self {
        let address = format!("{address}:{BELL_PORT}").parse().expect("an address");
        Self::on(listen_in(namespace, address))
    }

    fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("the address").to_string().replace(':', " ");
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
        Self { address, callers }
    }

    /// A line of a Dockerfile that prints, calls, and prints again.
    pub fn step(&self, name: &str) -> String {
        let call = self.call(name);
        format!("RUN echo {name} began; {call}; echo {name} ended\n")
    }

    /// A command that calls, and ends when it is answered.
    pub fn call(&self, name: &str) -> String {
        format!("echo {name} | timeout 120 nc {}", self.address)
    }

    /// Answers all, also those that call later.
    pub fn answer(&self) {
        let mut callers = self.callers.lock().expect("whole");
        callers.open = true;
        callers.waiting.clear();
    }

    /// How often a step has run.
    pub fn count(&self, name: &str) -> usize {
        self.callers.lock().expect("whole").names.iter().filter(|caller| *caller == name).count()
    }

    /// Who has called, in order.
    pub fn callers(&self) -> Vec<String> {
        self.callers.lock().expect("whole").names.clone()
    }

    /// Steps wait for an answer again.
    pub fn hold(&self) {
        self.callers.lock().expect("whole").open = false;
    }
}

/// A build that goes on beside others.
pub struct Build {
    pub child: Child,
    output: PathBuf,
}

impl Build {
    /// One that another user of this machine asks for by `boxyard build`.
    pub fn start_as(boxyard: &Boxyard, user: u32, name: &str, dockerfile: &str, flags: &[&str]) -> Self {
        Self::spawn(boxyard.work_dir(), name, dockerfile, |folder, output| {
            let own = ["build", "--progress", "plain", "--network", "host", "-t", name];
            boxyard.spawn_boxyard_as(user, &[&own[..], flags, &[folder]].concat(), output)
        })
    }

    fn spawn(work: &Path, name: &str, dockerfile: &str, spawn: impl FnOnce(&str, &Path) -> Child) -> Self {
        let (folder, output) = (work.join(name), work.join(format!("{name}.log")));
        fs::create_dir(&folder).expect("make the context");
        fs::write(folder.join("Dockerfile"), dockerfile).expect("write the Dockerfile");
        Self { child: spawn(&folder.display().to_string(), &output), output }
    }

    pub fn said(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    pub fn until_said(&self, text: &str) {
        wait_until(text, 90, || self.said().contains(text).then_some(()));
    }

    /// Whether a step has printed this line, and what was said from there on: `#5 0.1 line` of plain progress, not the
    /// step's own text.
    pub fn printed(&self, line: &str) -> Option<String> {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        let at = lines.iter().position(|shown| shown.splitn(3, ' ').nth(2) == Some(line))?;
        Some(lines[at..].join("\n"))
    }

    pub fn until_printed(&self, line: &str) {
        wait_until(line, 90, || self.printed(line));
    }

    /// The exit code and all that was said.
    pub fn end(mut self) -> (i32, String) {
        let status = wait_until("a build to end", 120, || self.child.try_wait().ok().flatten());
        (status.code().unwrap_or(-1), self.said())
    }

    /// What it said; it must end well.
    pub fn done(self) -> String {
        let (code, said) = self.end();
        assert_eq!(code, 0, "{said}");
        said
    }

    /// The id of a classic build's image, and all that was said.
    pub fn built(self) -> (String, String) {
        let (code, said) = self.end();
        assert_eq!(code, 0, "{said}");
        let id = said.lines().find_map(|line| line.strip_prefix("Successfully built ")).expect("an id").to_owned();
        (id, said)
    }
}
