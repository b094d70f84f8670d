//! The cluster of `compose/compose.yaml`, by docker-compose on a private dockerd.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::engine::{client, run_command};
use crate::leftovers::{named_on_host, remove_named_on_host, wait_until};
use crate::{Client, Dockerd, Output};

/// What the file calls its nodes and workers on their machines.
const INSTANCES: [&str; 4] = ["c0a001", "c0a002", "c0b001", "c0b002"];
/// Networks that every dockerd has.
const OWN_NETWORKS: usize = 3;

/// A running cluster.
#[derive(Debug)]
pub struct Compose {
    dockerd: Dockerd,
    socket: PathBuf,
    /// What the host had of these names before: they are the file's own, so another cluster of it may have left it.
    before: Vec<String>,
}

impl Compose {
    /// Starts it from an archive of the image `boxyard`, and returns when both nodes are there.
    pub fn start(image: &Path) -> Self {
        let before = named();
        // Apart from the networks of other tests.
        let pool = "--default-address-pool=base=10.150.0.0/16,size=24".to_owned();
        let dockerd = Dockerd::start_with(None, &[pool]);
        let run = dockerd.folder().join("run");
        fs::create_dir_all(run.join("client")).expect("make the folder of the cluster's socket");
        let cluster = Self { dockerd, socket: run.join("docker.sock"), before };
        cluster.outer(&["load", "-q", "-i", &image.display().to_string()]).ok();
        cluster.compose(&["up", "-d"]).ok();
        wait_until("both nodes of the cluster", 90, || cluster.has_both_nodes().then_some(()));
        cluster
    }

    fn has_both_nodes(&self) -> bool {
        let answer = Client::new(&self.socket).send("GET", "/boxyard/v1/nodes", "", "");
        let nodes = answer.ok().filter(|answer| answer.status == 200).map(|answer| answer.json());
        nodes.and_then(|nodes| Some(nodes["items"].as_array()?.len())) == Some(2)
    }

    /// docker-compose on the file.
    pub fn compose(&self, args: &[&str]) -> Output {
        let mut command = Command::new("docker-compose");
        command
            .env("DOCKER_HOST", format!("unix://{}", self.dockerd.socket().display()))
            .env("BOXYARD_RUN", self.socket.parent().expect("it lies in a folder"))
            .env("COMPOSE_PROJECT_NAME", "kit")
            .env("COMPOSE_HTTP_TIMEOUT", "120")
            .arg("-f")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../compose/compose.yaml"));
        run_command(&mut command, args, None)
    }

    /// The docker command on the cluster's gateway.
    pub fn docker(&self, args: &[&str]) -> Output {
        run_command(&mut client(&self.socket), args, None)
    }

    /// The same with these bytes as its standard input.
    pub fn feed(&self, args: &[&str], stdin: &[u8]) -> Output {
        run_command(&mut client(&self.socket), args, Some(stdin))
    }

    /// The docker command on the dockerd that the cluster runs on.
    fn outer(&self, args: &[&str]) -> Output {
        run_command(&mut client(self.dockerd.socket()), args, None)
    }

    /// Takes it down with all that it has kept, and checks that dockerd and the machine have nothing of it.
    pub fn stop(self) {
        let logs = self.compose(&["logs", "--no-color"]).ok().to_owned();
        let errors: Vec<&str> = logs.lines().filter(|line| line.contains(" ERROR ")).collect();
        assert_eq!(errors, [] as [&str; 0], "services logged errors");
        self.compose(&["down", "-v"]).ok();
        assert_eq!(self.outer(&["ps", "-aq"]).ok(), "", "containers are left");
        assert_eq!(self.outer(&["volume", "ls", "-q"]).ok(), "", "volumes are left");
        assert_eq!(self.outer(&["network", "ls", "-q"]).lines().len(), OWN_NETWORKS, "a network is left");
        let left: Vec<String> = named().into_iter().filter(|name| !self.before.contains(name)).collect();
        assert_eq!(left, [] as [String; 0], "things of the host are left");
    }
}

/// What the host has that is named after the nodes and workers of a cluster.
fn named() -> Vec<String> {
    INSTANCES.iter().flat_map(|instance| named_on_host(instance)).collect()
}

impl Drop for Compose {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the cluster's services\n{}", self.compose(&["logs", "--no-color", "--tail=12"]).stdout);
            // Its bridge is dockerd's to remove.
            self.compose(&["kill"]);
            self.compose(&["down", "-v"]);
            for instance in INSTANCES {
                if !self.before.iter().any(|name| name.contains(instance)) {
                    remove_named_on_host(instance);
                }
            }
        }
    }
}
