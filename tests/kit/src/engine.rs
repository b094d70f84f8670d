//! One running engine, whichever it is, and the docker command pointed at it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::boxyard::search_path;
use crate::{Answer, Boxyard, Client, Dockerd, Options, Output, Postgres, Release};

/// A command that takes longer has hung; the test fails with its name instead of with its runner's patience.
const LONGEST_COMMAND: Duration = Duration::from_secs(150);

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Boxyard,
    /// Debian 12's, 20.10.
    Dockerd,
    /// Debian 13's, 26.1.
    Docker26,
}

#[derive(Debug)]
enum Server {
    Boxyard(Boxyard),
    Dockerd(Kind, Dockerd),
}

/// A running engine with its own folder.
#[derive(Debug)]
pub struct Engine {
    server: Server,
}

impl Engine {
    /// Starts one and returns when it answers.
    pub fn start(kind: Kind) -> Self {
        Self::start_with(kind, &[])
    }

    /// The same with flags that both engines know, such as `--registry-mirror=URL`.
    pub fn start_with(kind: Kind, flags: &[&str]) -> Self {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let server = match kind {
            Kind::Boxyard => Server::Boxyard(Boxyard::start(Options { flags, ..Options::default() })),
            Kind::Dockerd => Server::Dockerd(kind, Dockerd::start_with(None, &flags)),
            Kind::Docker26 => Server::Dockerd(kind, Dockerd::start_release(Release::Trixie, None, &flags)),
        };
        Self { server }
    }

    /// A Boxyard that keeps its records in this PostgreSQL.
    pub fn start_on(postgres: &Postgres) -> Self {
        let options = Options { database: Some(postgres.url()), ..Options::default() };
        Self { server: Server::Boxyard(Boxyard::start(options)) }
    }

    pub fn kind(&self) -> Kind {
        match self.server {
            Server::Boxyard(_) => Kind::Boxyard,
            Server::Dockerd(kind, _) => kind,
        }
    }

    pub fn is_boxyard(&self) -> bool {
        self.kind() == Kind::Boxyard
    }

    /// The unix socket of the Docker Engine API.
    pub fn socket(&self) -> &Path {
        match &self.server {
            Server::Boxyard(boxyard) => boxyard.socket(),
            Server::Dockerd(_, dockerd) => dockerd.socket(),
        }
    }

    /// A folder of the test's own, gone with the engine.
    pub fn work_dir(&self) -> &Path {
        match &self.server {
            Server::Boxyard(boxyard) => boxyard.work_dir(),
            Server::Dockerd(_, dockerd) => dockerd.work_dir(),
        }
    }

    /// Runs the docker command on this engine.
    pub fn docker(&self, args: &[&str]) -> Output {
        run_command(&mut client(self.socket()), args, None)
    }

    /// Runs the boxyard command on this engine, whichever it is, with the docker command's configuration.
    pub fn boxyard_command(&self, args: &[&str]) -> Output {
        self.boxyard_command_fed(args, None)
    }

    /// The same with these bytes as its standard input.
    pub fn boxyard_command_fed(&self, args: &[&str], stdin: Option<&[u8]>) -> Output {
        let mut command = Command::new(crate::program());
        take_environment(&mut command, &client(self.socket()));
        run_command(command.env_remove("BOXYARD_HOST").current_dir(self.work_dir()), args, stdin)
    }

    /// The folder of the commands' config.json.
    pub fn client_dir(&self) -> PathBuf {
        self.socket().with_file_name("client")
    }

    /// Runs the docker command with these bytes as its standard input.
    pub fn docker_fed(&self, args: &[&str], stdin: &[u8]) -> Output {
        run_command(&mut client(self.socket()), args, Some(stdin))
    }

    /// Runs the docker command in a folder.
    pub fn docker_in(&self, folder: &Path, args: &[&str]) -> Output {
        run_command(client(self.socket()).current_dir(folder), args, None)
    }

    /// Runs a line of shell in the test's folder, with `docker` pointed at this engine.
    pub fn shell(&self, line: &str) -> Output {
        self.shell_of(&client(self.socket()), line)
    }

    /// Runs Debian 13's docker command, which has buildx and compose v2, on this engine, in the test's folder.
    pub fn docker26(&self, args: &[&str]) -> Output {
        run_command(client26(self.socket()).current_dir(self.work_dir()), args, None)
    }

    /// Runs a line of shell in the test's folder, with `docker` of Debian 13 pointed at this engine.
    pub fn shell26(&self, line: &str) -> Output {
        self.shell_of(&client26(self.socket()), line)
    }

    fn shell_of(&self, docker: &Command, line: &str) -> Output {
        let mut shell = Command::new("/bin/bash");
        shell.current_dir(self.work_dir());
        take_environment(&mut shell, docker);
        let folder = Path::new(docker.get_program()).parent().expect("docker lies in a folder");
        let path = std::env::var("PATH").unwrap_or_default();
        shell.env("PATH", format!("{}:{path}", folder.display()));
        run_command(&mut shell, &["-o", "pipefail", "-c", line], None)
    }

    /// Runs a line of shell on a terminal and types each text with its newline once what is before it is shown. The
    /// texts are words for a shell: without quotes.
    pub fn typed(&self, line: &str, dialogue: &[(&str, &str)]) -> Output {
        let types = dialogue.iter().map(|(shown, text)| {
            format!("for turn in $(seq 600); do grep -qF '{shown}' shown && break; sleep 0.1; done; echo '{text}'; ")
        });
        // The input stays open until the program has ended: an end of input would be typed, too.
        let typist = types.collect::<String>() + "for turn in $(seq 600); do [ -e ended ] && break; sleep 0.1; done";
        let program = format!("script -qec '{line}; code=$?; touch ended; exit $code' /dev/null > shown");
        self.shell(&format!(
            ": > shown; rm -f ended; ({typist}) | {program}; code=$?; touch ended; cat shown; exit $code"
        ))
    }

    /// One request to the API.
    #[track_caller]
    pub fn api(&self, method: &str, path: &str, body: &str) -> Answer {
        Client::new(self.socket())
            .send(method, path, "application/json", body.to_owned())
            .unwrap_or_else(|error| panic!("{method} {path}: {error:#}"))
    }

    /// Makes `busybox:latest` there.
    pub fn load_busybox(&self) {
        self.docker_fed(&["load", "-q"], &crate::busybox()).says("Loaded image: busybox:latest");
    }

    /// Writes a file (and its folders) into the test's folder.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.work_dir().join(path);
        std::fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("make the folder");
        std::fs::write(&path, content).expect("write the file");
        path
    }

    /// The Boxyard behind it; panics for a dockerd.
    pub fn boxyard(&self) -> &Boxyard {
        match &self.server {
            Server::Boxyard(boxyard) => boxyard,
            Server::Dockerd(..) => panic!("this engine is a dockerd"),
        }
    }

    /// Stops it and, for a Boxyard, checks that nothing of it is left and that no service logged an error.
    pub fn stop(self) {
        match self.server {
            Server::Boxyard(boxyard) => boxyard.stop(),
            Server::Dockerd(_, dockerd) => dockerd.stop(),
        }
    }
}

fn docker_path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .map(|folder| folder.join("docker"))
            .find(|file| file.is_file())
            .expect("the docker command is on PATH: run make setup")
    })
}

/// The docker command, pointed at a socket, with no configuration of the person who runs the test.
pub fn client(socket: &Path) -> Command {
    let mut command = Command::new(docker_path());
    command
        .env_remove("DOCKER_CONTEXT")
        .env_remove("DOCKER_API_VERSION")
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .env("DOCKER_CONFIG", socket.with_file_name("client"))
        .env("DOCKER_BUILDKIT", "0")
        .env("DOCKER_CLI_HINTS", "false");
    command
}

/// The boxyard command, or a program that calls it (a shell), pointed at a socket.
pub fn boxyard_client(program: impl AsRef<OsStr>, socket: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("BOXYARD_HOST", format!("unix://{}", socket.display())).env("PATH", search_path());
    command
}

/// The docker command that speaks to BuildKit by itself: Debian's 20.10. Later ones want a plug-in for that.
pub fn session_client(socket: &Path) -> Command {
    let program = Path::new("/usr/bin/docker");
    assert!(program.is_file(), "Debian's docker.io is installed: run make setup");
    let mut command = Command::new(program);
    take_environment(&mut command, &client(socket));
    command.env("DOCKER_BUILDKIT", "1");
    command
}

/// Debian 13's docker command, 26.1, pointed at a socket. Its configuration is a folder of its own, with the plug-ins
/// of the same release: buildx, by which it builds, and compose v2.
pub fn client26(socket: &Path) -> Command {
    let config = socket.with_file_name("client26");
    if !config.exists() {
        std::fs::create_dir(&config).expect("make the client's folder");
        symlink(Release::Trixie.file("libexec/docker/cli-plugins"), config.join("cli-plugins")).expect("link plug-ins");
    }
    let mut command = Command::new(Release::Trixie.file("bin/docker"));
    take_environment(&mut command, &client(socket));
    command.env("DOCKER_CONFIG", config).env_remove("DOCKER_BUILDKIT");
    command
}

/// Sets and removes variables as another command does.
fn take_environment(command: &mut Command, other: &Command) {
    for (key, value) in other.get_envs() {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
}

/// The docker command that goes on by itself, its output in a file.
pub fn spawn_client(socket: &Path, args: &[&str], output: &Path) -> Child {
    spawn_command(&mut client(socket), args, output)
}

/// A command that goes on by itself, its output in a file.
pub fn spawn_command(command: &mut Command, args: &[&str], output: &Path) -> Child {
    let file = File::create(output).expect("make the output's file");
    command.args(args).stdin(Stdio::null()).stdout(file.try_clone().expect("share the file")).stderr(file);
    command.spawn().unwrap_or_else(|error| panic!("{}: {error}", shown(command)))
}

/// The command line as a person would type it.
fn shown(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(name).chain(command.get_args()).map(|word| word.to_string_lossy().into_owned());
    words
        .map(|word| if word.is_empty() || word.contains([' ', '\n', '$']) { format!("{word:?}") } else { word })
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs a command to its end with captured output, with these bytes as its input (else none).
pub fn run_command(command: &mut Command, args: &[impl AsRef<OsStr>], stdin: Option<&[u8]>) -> Output {
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    let shown = shown(command);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
    let feeder = stdin.map(|bytes| {
        let bytes = bytes.to_vec();
        let mut pipe = child.stdin.take().expect("piped");
        // A command that does not read all of its input closes the pipe; that is its right.
        std::thread::spawn(move || drop(pipe.write_all(&bytes)))
    });
    let group = Pid::from_raw(i32::try_from(child.id()).expect("a process id fits"));
    let (ended, watched) = mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        let late = watched.recv_timeout(LONGEST_COMMAND) == Err(RecvTimeoutError::Timeout);
        if late {
            let _ = killpg(group, Signal::SIGKILL);
        }
        late
    });
    let done = child.wait_with_output().unwrap_or_else(|error| panic!("{shown}: {error}"));
    drop(ended);
    assert!(!watch.join().expect("the watching thread"), "{shown}: hung for {LONGEST_COMMAND:?}");
    if let Some(feeder) = feeder {
        feeder.join().expect("the feeding thread");
    }
    let signal = std::os::unix::process::ExitStatusExt::signal(&done.status).unwrap_or(0);
    Output {
        command: shown,
        stdout: String::from_utf8_lossy(&done.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
        code: done.status.code().unwrap_or(128 + signal),
    }
}
