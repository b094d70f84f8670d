//! What tests of the build farm share: steps that wait for the test, and builds that go on beside each other.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::thread;

use crate::{Boxyard, wait_until};

/// Steps call it by name and wait until it answers.
pub struct Bell {
    port: u16,
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
    pub fn step(&self, name: &str) -> String {
        let port = self.port;
        format!("RUN echo {name} began; echo {name} | timeout 120 nc 127.0.0.1 {port}; echo {name} ended\n")
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
    pub fn start(boxyard: &Boxyard, name: &str, dockerfile: &str, flags: &[&str]) -> Self {
        let (folder, output) = (boxyard.work_dir().join(name), boxyard.work_dir().join(format!("{name}.log")));
        fs::create_dir(&folder).expect("make the context");
        fs::write(folder.join("Dockerfile"), dockerfile).expect("write the Dockerfile");
        let folder = folder.display().to_string();
        let args = [&["build", "--network", "host"][..], flags, &[&folder]].concat();
        Self { child: boxyard.spawn_docker(&args, &output), output }
    }

    pub fn said(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    pub fn until_said(&self, text: &str) {
        wait_until(text, 90, || self.said().contains(text).then_some(()));
    }

    /// The exit code and all that was said.
    pub fn end(mut self) -> (i32, String) {
        let status = wait_until("a build to end", 120, || self.child.try_wait().ok().flatten());
        (status.code().unwrap_or(-1), self.said())
    }

    /// The id of its image, and all that was said.
    pub fn built(self) -> (String, String) {
        let (code, said) = self.end();
        assert_eq!(code, 0, "{said}");
        let id = said.lines().find_map(|line| line.strip_prefix("Successfully built ")).expect("an id").to_owned();
        (id, said)
    }
}
