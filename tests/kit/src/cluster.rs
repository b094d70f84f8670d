//! A Boxyard on several machines: each is a network namespace of its own on one switch, with its own data folder.
//! Everything on the host carries the cluster's id, and is gone when the cluster is dropped.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::boxyard::{kept, program, search_path};
use crate::engine::{boxyard_client, client, run_command, spawn_client, spawn_command};
use crate::leftovers::{
    assert_nothing_left, named_on_host, pids_of, processes_naming, remove_named_on_host, sweep, wait_until,
};
use crate::network::Network;
use crate::{Output, Postgres, SERVICES, Throttle};

/// The head's address on the switch, and another one for those who cannot reach the first.
pub(crate) const HEAD: &str = "10.77.0.1";
/// Where NATS, the layer store and the gateway's byte streams listen.
const HEAD_PORTS: [u16; 3] = [7420, STORE_PORT, 7422];
pub(crate) const STORE_PORT: u16 = 7421;
const OTHER_HEAD: &str = "10.78.0.1";

/// A head, and machines that have joined it.
#[derive(Debug)]
pub struct Cluster {
    /// Dropped before the network.
    machines: Vec<Machine>,
    folder: TempDir,
    network: Network,
    /// URL of the head's database where that is a PostgreSQL, and the wire from the head's network to it.
    database: Option<(String, Throttle)>,
}

/// One machine: a namespace and a data folder, with `boxyard up` or `boxyard cluster join` in it.
#[derive(Debug)]
struct Machine {
    name: String,
    namespace: String,
    data: PathBuf,
    child: Option<Child>,
}

impl Cluster {
    /// Starts a head without node and worker.
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// The same with its records in this PostgreSQL, which the head reaches and nobody else.
    pub fn start_on(postgres: &Postgres) -> Self {
        Self::start_with(Some(postgres))
    }

    fn start_with(postgres: Option<&Postgres>) -> Self {
        let folder = tempfile::Builder::new().prefix("bc.").tempdir_in("/tmp").expect("a temporary folder");
        fs::create_dir(folder.path().join("client")).expect("make the client's folder");
        fs::create_dir(folder.path().join("work")).expect("make the work folder");
        let mut cluster = Self { machines: Vec::new(), network: Network::new(), folder, database: None };
        let namespace = cluster.network.machine_beside(HEAD);
        let data = cluster.data_dir("head");
        cluster.network.add_address(&namespace, OTHER_HEAD);
        let own = ["--address", HEAD, "--listen", "0.0.0.0", "--name", OTHER_HEAD, "--data-dir", &text(&data)];
        cluster.boxyard(&[&["cluster", "init"], &own[..]].concat()).ok();
        let host = format!("unix://{}", cluster.socket().display());
        let tcp = format!("tcp://{HEAD}:2376");
        let up = ["up", "--no-node", "--workers", "0", "--host", &host, "--host", &tcp, "--data-dir"];
        cluster.machines.push(Machine { name: "head".into(), namespace, data, child: None });
        let head = cluster.namespace("head");
        let wire = |postgres: &Postgres| Throttle::out_of_namespace(&head, postgres.port());
        cluster.database = postgres.map(|postgres| (postgres.url(), wire(postgres)));
        cluster.run_on("head", &up);
        cluster
    }

    /// Lets members in and starts them on one new machine: `node b`, `worker c`.
    pub fn join(&mut self, machine: &str, members: &[(&str, &str)]) {
        self.join_at(machine, members, HEAD);
    }

    /// The same of a machine whose firewall lets out only what goes to NATS, the layer store and the gateway's streams,
    /// and to this port of the head's, where the test listens.
    pub fn join_behind_firewall(&mut self, machine: &str, members: &[(&str, &str)], test_port: u16) {
        let namespace = self.network.machine_beside(HEAD);
        self.network.let_out_only(&namespace, HEAD, &[&HEAD_PORTS[..], &[test_port]].concat());
        self.join_in(namespace, machine, members, HEAD);
    }

    /// The same of a machine that is on another network, where the head has another address.
    pub fn join_elsewhere(&mut self, machine: &str, members: &[(&str, &str)]) {
        self.join_at(machine, members, OTHER_HEAD);
    }

    fn join_at(&mut self, machine: &str, members: &[(&str, &str)], address: &str) {
        let namespace = self.network.machine_beside(address);
        self.join_in(namespace, machine, members, address);
    }

    fn join_in(&mut self, namespace: String, machine: &str, members: &[(&str, &str)], address: &str) {
        let mut command = vec!["cluster".to_owned(), "join".to_owned()];
        for (kind, name) in members {
            let bundle = text(&self.folder.path().join(format!("{kind}-{name}.bundle")));
            let head = text(&self.data_dir("head"));
            let mut add = vec!["cluster", "add", kind, name, "--output", &bundle, "--data-dir", &head];
            if address != HEAD {
                add.extend(["--address", address]);
            }
            self.boxyard(&add).ok();
            command.push(bundle);
        }
        command.push("--data-dir".to_owned());
        let data = self.data_dir(machine);
        self.machines.push(Machine { name: machine.to_owned(), namespace, data, child: None });
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        self.run_on(machine, &command);
    }

    /// Starts a machine again after [`Self::kill`].
    pub fn up(&mut self, machine: &str) {
        self.run_on(machine, &["up", "--data-dir"]);
    }

    /// From its next start on a machine reaches the layer store at another port of the head's.
    pub(crate) fn set_store_port(&self, machine: &str, port: u16) {
        let path = self.data_dir(machine).join("cluster/joined.json");
        let joined = fs::read_to_string(&path).expect("what the machine knows of its cluster");
        let moved = joined.replace(&format!("{HEAD}:{STORE_PORT}"), &format!("{HEAD}:{port}"));
        fs::write(&path, moved).expect("written");
    }

    /// kill -9 of the supervisor and the services of a machine; shims and containers are spared.
    pub fn kill(&mut self, machine: &str) {
        let at = self.at(machine);
        let data = text(&self.machines[at].data);
        if let Some(mut child) = self.machines[at].child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for (pid, line) in processes_naming(&data) {
            if SERVICES.iter().any(|service| line.contains(service)) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }

    /// Takes a machine off the network: nothing comes through, and nobody is told.
    pub fn cut_off(&self, machine: &str) {
        self.network.set_port(&self.machines[self.at(machine)].namespace, false);
    }

    /// The network is there again.
    pub fn reconnect(&self, machine: &str) {
        self.network.set_port(&self.machines[self.at(machine)].namespace, true);
    }

    /// Processes of one program on a machine.
    pub fn pids_of(&self, machine: &str, program: &str) -> Vec<i32> {
        pids_of(program, &text(&self.data_dir(machine)))
    }

    /// A machine's network namespace.
    pub(crate) fn namespace(&self, machine: &str) -> PathBuf {
        Path::new("/run/netns").join(&self.machines[self.at(machine)].namespace)
    }

    /// Whether something on a machine can connect to a port of the head.
    pub fn reaches(&self, machine: &str, port: u16) -> bool {
        let line = format!("timeout 2 bash -c 'exec 3<>/dev/tcp/{HEAD}/{port}' 2>/dev/null");
        run_command(self.enter(machine).arg("sh"), &["-c", &line], None).code == 0
    }

    /// Puts a member out.
    pub fn revoke(&self, kind: &str, name: &str) {
        self.boxyard(&["cluster", "revoke", kind, name, "--data-dir", &text(&self.data_dir("head"))]).ok();
    }

    /// New certificates for the head, which hold this name too.
    pub fn renew(&self, name: &str) {
        self.boxyard(&["cluster", "renew", "--name", name, "--data-dir", &text(&self.data_dir("head"))]).ok();
    }

    /// What openssl says of the certificate that the head shows at this port to a client of that machine.
    pub fn certificate(&self, machine: &str, port: u16) -> String {
        let line = format!(
            "openssl s_client -connect {HEAD}:{port} -CAfile {} </dev/null 2>/dev/null | openssl x509 -noout -text",
            self.data_dir("head").join("cluster/ca.pem").display()
        );
        run_command(self.enter(machine).arg("sh"), &["-c", &line], None).ok().to_owned()
    }

    pub fn work_dir(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    pub fn data_dir(&self, machine: &str) -> PathBuf {
        self.folder.path().join(machine)
    }

    /// The head's.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    /// The boxyard command on the head's socket.
    pub fn boxyard_client(&self, args: &[&str]) -> Output {
        run_command(&mut self.client(), args, None)
    }

    /// The boxyard command that goes on by itself, its output in a file.
    pub fn spawn_boxyard(&self, args: &[&str], output: &Path) -> Child {
        spawn_command(&mut self.client(), args, output)
    }

    fn client(&self) -> Command {
        let mut command = boxyard_client(program(), &self.socket());
        command.env("XDG_CACHE_HOME", self.folder.path().join("client"));
        command
    }

    /// The docker command on the head's socket.
    pub fn docker(&self, args: &[&str]) -> Output {
        run_command(&mut client(&self.socket()), args, None)
    }

    /// The same with these bytes as its standard input.
    pub fn feed(&self, args: &[&str], stdin: &[u8]) -> Output {
        run_command(&mut client(&self.socket()), args, Some(stdin))
    }

    /// The docker command that goes on by itself, its output in a file.
    pub fn spawn_docker(&self, args: &[&str], output: &Path) -> Child {
        spawn_client(&self.socket(), args, output)
    }

    /// The docker command on another machine, over TCP with the client certificate that `cluster init` made, or
    /// with another folder of certificates.
    pub fn docker_tls(&self, machine: &str, certificates: Option<&Path>, args: &[&str], stdin: &[u8]) -> Output {
        let own = self.data_dir("head").join("cluster/client");
        let mut command = self.enter(machine);
        let unused = client(&self.socket());
        command
            .env("DOCKER_CONFIG", self.folder.path().join("client"))
            .env("DOCKER_HOST", format!("tcp://{HEAD}:2376"))
            .env("DOCKER_TLS_VERIFY", "1")
            .env("DOCKER_CERT_PATH", certificates.unwrap_or(&own))
            .arg(unused.get_program());
        run_command(&mut command, args, Some(stdin))
    }

    /// Bytes that the machine's interface has received.
    pub fn received_bytes(&self, machine: &str) -> u64 {
        let table = run_command(self.enter(machine).arg("cat"), &["/proc/net/dev"], None).ok().to_owned();
        let line = table.lines().find_map(|line| line.trim().strip_prefix("eth0:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_else(|| panic!("no eth0: {table}"))
    }

    /// Bytes that came from the layer store to a machine behind a firewall.
    pub fn received_from_store(&self, machine: &str) -> u64 {
        self.network.received_bytes(&self.machines[self.at(machine)].namespace, STORE_PORT)
    }

    /// What a machine's services have logged.
    pub fn log(&self, machine: &str, service: &str) -> String {
        fs::read_to_string(self.data_dir(machine).join(format!("logs/{service}.log"))).unwrap_or_default()
    }

    /// Stops all machines, the head last, and checks that no process and no mount is left.
    pub fn stop(mut self) {
        let mut machines = std::mem::take(&mut self.machines);
        while let Some(mut machine) = machines.pop() {
            machine.down();
        }
        assert_nothing_left(self.folder.path());
        for machine in ["head"].into_iter().map(str::to_owned).chain(self.joined()) {
            if let Some(instance) = instance(&self.data_dir(&machine)) {
                assert_eq!(named_on_host(&instance), [] as [String; 0], "things of machine {machine} are left");
            }
        }
    }

    fn joined(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).into_iter().flatten().flatten();
        let has_state = |path: &Path| path.join("boxyard.json").exists();
        let names = entries.filter(|e| has_state(&e.path())).filter_map(|e| e.file_name().into_string().ok());
        names.collect()
    }

    fn at(&self, machine: &str) -> usize {
        self.machines.iter().position(|m| m.name == machine).unwrap_or_else(|| panic!("there is no machine {machine}"))
    }

    /// A command in a machine's network. `ip netns exec` would hide the control groups, so it is nsenter.
    fn enter(&self, machine: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.machines[self.at(machine)].namespace));
        command.env("PATH", search_path());
        command
    }

    /// Runs a boxyard command that stays, and waits until it says that it is ready. The data folder is its last word.
    fn run_on(&mut self, machine: &str, args: &[&str]) {
        let at = self.at(machine);
        let log_path = self.folder.path().join(format!("{machine}.log"));
        let from = fs::read(&log_path).unwrap_or_default().len();
        let log = File::options().create(true).append(true).open(&log_path).expect("make the log");
        let mut command = self.enter(machine);
        command.arg(program()).args(args).arg(&self.machines[at].data);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("share the log")).stderr(log).process_group(0);
        if let Some((url, _)) = self.database.as_ref().filter(|_| machine == "head") {
            command.env("BOXYARD_DATABASE", url);
        }
        let mut child = command.spawn().expect("nsenter starts");
        wait_until(&format!("machine {machine} to be ready"), 60, || {
            let said = fs::read(&log_path).unwrap_or_default();
            let said = String::from_utf8_lossy(&said[from..]).into_owned();
            if let Ok(Some(status)) = child.try_wait() {
                panic!("machine {machine} ended with {status}:\n{said}");
            }
            said.contains("is ready").then_some(())
        });
        self.machines[at].child = Some(child);
    }

    fn boxyard(&self, args: &[&str]) -> Output {
        let mut command = Command::new(program());
        run_command(command.env("PATH", search_path()).current_dir(self.folder.path()), args, None)
    }
}

impl Machine {
    fn down(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = kill(Pid::from_raw(i32::try_from(child.id()).expect("a process id fits")), Signal::SIGTERM);
        let name = &self.name;
        let status = wait_until(&format!("machine {name} to end"), 60, || child.try_wait().ok().flatten());
        assert!(status.success(), "machine {name} ended with {status}");
    }
}

impl Drop for Cluster {
    /// After `stop` only the namespaces are left; after a failed test everything is ended by force.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for machine in &self.machines {
                for entry in fs::read_dir(machine.data.join("logs")).into_iter().flatten().flatten() {
                    let text = fs::read_to_string(entry.path()).unwrap_or_default();
                    let lines: Vec<&str> = text.lines().collect();
                    let tail = lines[lines.len().saturating_sub(12)..].join("\n");
                    eprintln!("--- {}\n{tail}", entry.path().display());
                }
            }
        }
        let instances: Vec<String> = self.joined().iter().filter_map(|name| instance(&self.data_dir(name))).collect();
        for machine in &mut self.machines {
            if let Some(mut child) = machine.child.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        sweep(self.folder.path());
        for instance in instances {
            remove_named_on_host(&instance);
        }
    }
}

fn instance(data: &Path) -> Option<String> {
    kept(data)["instance"].as_str().filter(|id| !id.is_empty()).map(str::to_owned)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
