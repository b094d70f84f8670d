//! The boxyard command, and beside it docker's, on a TCP port that wants TLS and a client's certificate: streams of both
//! directions, and what is said where it does not work.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use kit::{Boxyard, Options, Output, client, free_port, run_command};
use tempfile::TempDir;

/// A Boxyard behind TLS on two addresses, of which its certificate names the first.
struct Secured {
    boxyard: Boxyard,
    folder: TempDir,
    port: u16,
}

impl Secured {
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("tls.").tempdir_in("/tmp").expect("a temporary folder");
        for name in ["own", "other"] {
            let data = folder.path().join(name);
            let init = ["cluster", "init", "--address", "127.0.0.1", "--data-dir", &text(&data)];
            run_command(&mut Command::new(kit::program()), &init, None).ok();
        }
        let port = free_port();
        let files = folder.path().join("own/cluster");
        let mut flags = ["127.0.0.1", "127.0.0.2"].map(|address| format!("--host=tcp://{address}:{port}")).to_vec();
        let file = |flag: &str, name: &str| format!("--{flag}={}", text(&files.join(name)));
        flags.extend([file("tlscacert", "ca.pem"), file("tlscert", "api.pem"), file("tlskey", "api.key")]);
        let boxyard = Boxyard::start(Options { flags, ..Options::default() });
        boxyard.feed(&["load", "-q"], &kit::busybox()).ok();
        Self { boxyard, folder, port }
    }

    fn url(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }

    /// The files of a client as DOCKER_CERT_PATH wants them.
    fn client(&self, authority: &str) -> PathBuf {
        self.folder.path().join(authority).join("cluster/client")
    }

    /// A program with nothing in its environment that says where a daemon is; its folder of configuration is empty.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        for name in ["BOXYARD_HOST", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY"] {
            command.env_remove(name);
        }
        command.env_remove("DOCKER_CERT_PATH").env("DOCKER_BUILDKIT", "0");
        command.env("DOCKER_CONFIG", self.folder.path().join("none")).current_dir(self.boxyard.work_dir());
        command
    }

    /// The boxyard command as a person runs it who has put all into the environment.
    fn boxyard(&self, args: &[&str], stdin: Option<&[u8]>) -> Output {
        run_command(self.named(&mut self.command(kit::program())), args, stdin)
    }

    fn named<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("DOCKER_HOST", self.url()).env("DOCKER_TLS_VERIFY", "1").env("DOCKER_CERT_PATH", self.client("own"))
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn streams_go_both_ways() {
    let secured = Secured::start();
    let boxyard = |args: &[&str]| secured.boxyard(args, None);
    boxyard(&["version"]).says("Server");
    let counted = secured.boxyard(&["run", "-i", "--rm", "busybox", "wc", "-c"], Some(&vec![b'x'; 3_000_000]));
    assert_eq!(counted.ok().trim(), "3000000", "the end of standard input is passed on");
    let big = boxyard(&["run", "--rm", "busybox", "sh", "-c", "yes 0123456789 | head -c 5000000"]);
    assert_eq!(big.stdout.len(), 5_000_000);
    let apart = boxyard(&["run", "--rm", "busybox", "sh", "-c", "echo to out; echo to err >&2; exit 5"]);
    assert_eq!((apart.stdout.as_str(), apart.stderr.as_str(), apart.code), ("to out\n", "to err\n", 5), "{apart}");

    // Typed again and again, since what comes before the terminal is ready may be lost.
    let typing = "for try in {1..60}; do sleep 0.5; echo 'tty; echo $((40+2)); exit 9'; done";
    let line = format!("({typing}) | script -qec '{} run -it --rm busybox sh' /dev/null", text(&kit::program()));
    let mut terminal = secured.command("/bin/bash");
    let typed = run_command(secured.named(&mut terminal), &["-c", &line], None);
    assert!(typed.stdout.contains("/dev/pts/0") && typed.stdout.contains("42"), "{typed}");
    assert_eq!(typed.code, 9, "{typed}");

    let waits = ["run", "-d", "-i", "--name", "waits", "busybox", "sh", "-c", "read line; echo got $line; exit 4"];
    boxyard(&waits).ok();
    let mut attach = secured.command("/bin/bash");
    let line = format!("(echo words; sleep 2) | {} attach waits", text(&kit::program()));
    let attached = run_command(secured.named(&mut attach), &["-o", "pipefail", "-c", &line], None);
    assert_eq!((attached.stdout.as_str(), attached.code), ("got words\n", 4), "{attached}");
    assert_eq!(boxyard(&["logs", "waits"]).ok(), "got words");
    boxyard(&["run", "-d", "--name", "one", "busybox", "sleep", "100"]).ok();
    assert_eq!(secured.boxyard(&["exec", "-i", "one", "cat"], Some(b"fed")).ok(), "fed");
    boxyard(&["exec", "one", "sh", "-c", "echo oops >&2; exit 6"]).fails(6, "oops");
    std::fs::write(secured.boxyard.work_dir().join("file"), "copied\n").expect("write a file");
    boxyard(&["cp", "file", "one:/there"]).ok();
    assert_eq!(boxyard(&["exec", "one", "cat", "/there"]).ok(), "copied");
    boxyard(&["kill", "one"]).ok();
    assert_eq!(boxyard(&["wait", "one"]).ok(), "137");

    let built = secured.boxyard(&["build", "-t", "built", "-"], Some(b"FROM busybox\nRUN echo through TLS\n"));
    built.says("through TLS").says("Successfully tagged built:latest");
    boxyard(&["save", "-o", "built.tar", "built"]).ok();
    boxyard(&["load", "-i", "built.tar"]).says("Loaded image: built:latest");
    boxyard(&["rm", "-f", "one", "waits"]).ok();
    secured.boxyard.stop();
}

/// A port that speaks plain HTTP.
fn plain() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it has an address").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    port
}

#[test]
fn flags_and_refusals_are_dockers() {
    let secured = Secured::start();
    let (url, own, other) = (secured.url(), secured.client("own"), secured.client("other"));
    let file = |folder: &Path, name: &str| text(&folder.join(name));
    let [ca, cert, key] = ["ca.pem", "cert.pem", "key.pem"].map(|name| file(&own, name));
    let [other_ca, other_cert, other_key] = ["ca.pem", "cert.pem", "key.pem"].map(|name| file(&other, name));
    let pair = format!("--tlscert={cert} --tlskey={key}");
    let (unnamed, http) = (format!("tcp://127.0.0.2:{}", secured.port), format!("tcp://127.0.0.1:{}", plain()));
    let socket = format!("unix://{}", secured.boxyard.socket().display());
    let none = text(&secured.folder.path().join("none"));
    let unknown = "x509: certificate signed by unknown authority";
    for (host, flags, expected) in [
        (&url, format!("--tlsverify --tlscacert={ca} {pair}"), Ok(())),
        (&url, format!("--tlsverify=true --tlscacert {ca} {pair}"), Ok(())),
        (&url, format!("--tls --tlscacert={ca} {pair}"), Ok(())),
        // Whoever answers is taken for the daemon: by --tls alone, and by --tlsverify=false.
        (&url, format!("--tls --tlscacert={other_ca} {pair}"), Ok(())),
        (&unnamed, format!("--tlsverify=false --tlscacert={ca} {pair}"), Ok(())),
        // A socket has no TLS.
        (&socket, format!("--tlsverify --tlscacert={ca} {pair}"), Ok(())),
        (&url, String::new(), Err("Error response from daemon: Client sent an HTTP request to an HTTPS server.")),
        (&url, format!("--tlsverify --tlscacert={other_ca} {pair}"), Err(unknown)),
        (&unnamed, format!("--tlsverify --tlscacert={ca} {pair}"), Err("x509: ")),
        (&url, format!("--tlsverify --tlscacert={ca}"), Err("remote error: tls: ")),
        (&url, format!("--tlsverify --tlscacert={ca} --tlscert={cert}"), Err("remote error: tls: ")),
        (
            &url,
            format!("--tlsverify --tlscacert={ca} --tlscert={other_cert} --tlskey={other_key}"),
            Err("remote error: tls: "),
        ),
        (
            &url,
            format!("--tlsverify --tlscacert={ca} --tlscert={cert} --tlskey={other_key}"),
            Err("tls: private key does not match public key"),
        ),
        (&url, "--tlsverify".to_owned(), Err(&*format!("open {none}/ca.pem: no such file or directory"))),
        (
            &url,
            format!("--tlsverify --tlscacert={ca} --tlscert=/no/file --tlskey={key}"),
            Err("open /no/file: no such file or directory"),
        ),
        (&http, format!("--tlsverify --tlscacert={ca} {pair}"), Err("http: server gave HTTP response to HTTPS client")),
    ] {
        let args: Vec<&str> = ["-H", host].into_iter().chain(flags.split_whitespace()).chain(["ps", "-q"]).collect();
        for program in [client(secured.boxyard.socket()).get_program().into(), kit::program()] {
            let output = run_command(&mut secured.command(&program), &args, None);
            match expected {
                Ok(()) => drop(output.ok()),
                Err(words) => drop(output.fails(1, words)),
            }
        }
    }
    // Without --tlsverify the environment counts, and with a certificate's folder alone there is no TLS.
    let run = |variables: &[(&str, &str)]| {
        let mut command = secured.command(kit::program());
        command.env("DOCKER_CERT_PATH", &own).env("DOCKER_HOST", &url).envs(variables.iter().copied());
        run_command(&mut command, &["ps", "-q"], None)
    };
    run(&[("DOCKER_TLS_VERIFY", "1")]).ok();
    run(&[("DOCKER_TLS", "1")]).ok();
    run(&[("DOCKER_TLS_VERIFY", "1"), ("DOCKER_HOST", &unnamed)])
        .fails(1, "error during connect: Get \"https://127.0.0.2:");
    run(&[("DOCKER_TLS_VERIFY", "")]).fails(1, "Client sent an HTTP request to an HTTPS server.");
    secured.boxyard.stop();
}
