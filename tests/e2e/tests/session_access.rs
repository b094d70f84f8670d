//! What a build may use of its client by a session: logins at registries, ssh agents and keys, tokens for git servers; and
//! Dockerfiles and contexts that lie elsewhere. Debian's docker command on a Boxyard and on a dockerd, and the boxyard command.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use kit::{Engine, Kind, Output, REGISTRY_PASSWORD, REGISTRY_USER, Registry, Reply, Server, on_both};

/// The docker command that speaks BuildKit without buildx.
const DOCKER: &str = "DOCKER_BUILDKIT=1 BUILDKIT_PROGRESS=plain /usr/bin/docker";
/// What docker-registry's user and password look like in a header.
const BASIC: &str = "Basic dGVzdGVyOnNlY3JldA==";

fn docker(engine: &Engine, args: &str) -> Output {
    engine.shell(&format!("{DOCKER} build {args} 2>&1"))
}

fn boxyard(engine: &Engine, args: &str) -> Output {
    let program = kit::program();
    engine.shell(&format!(
        "BOXYARD_CONFIG=$DOCKER_CONFIG DOCKER_BUILDKIT=1 {} build --progress plain {args} 2>&1",
        program.display()
    ))
}

/// Each command that there is for the engine.
fn clients(engine: &Engine) -> Vec<fn(&Engine, &str) -> Output> {
    if engine.is_boxyard() { vec![docker, boxyard] } else { vec![docker] }
}

/// A registry in front of which tokens are asked for, as Docker's own does; the password buys one.
fn behind_tokens(registry: &Registry) -> Server {
    let port = registry.port();
    Server::start(move |request| {
        let shown = request.header("authorization").unwrap_or_default();
        if request.path.starts_with("/token") {
            return match shown {
                BASIC => Reply::json(serde_json::json!({"token": "bought", "expires_in": 300})),
                _ => Reply::unauthorized("Basic realm=\"tests\""),
            };
        }
        if shown == "Bearer bought" {
            return Reply::from_behind(port, request);
        }
        let host = request.header("host").unwrap_or_default();
        let scope = "repository:team/base:pull";
        let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"tests\",scope=\"{scope}\"");
        Reply::unauthorized(&challenge)
    })
}

/// OpenSSH's agent; it ends with this.
struct Agent {
    socket: PathBuf,
    child: Child,
}

impl Agent {
    fn start(engine: &Engine) -> Self {
        let socket = engine.work_dir().join("agent");
        let child = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn();
        let child = child.expect("ssh-agent is installed");
        kit::wait_until("ssh-agent to listen", 30, || socket.exists().then_some(()));
        Self { socket, child }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The parts of OpenSSH's client that a step runs, with all that they need, below `folder`.
fn ssh_tools(engine: &Engine, folder: &str) {
    let lines = [
        &format!("mkdir -p {folder}/tools/etc && cd {folder}/tools"),
        "echo root:x:0:0:root:/:/bin/sh > etc/passwd",
        "for tool in $(command -v ssh-add ssh-keygen); do cp -L --parents $tool $(ldd $tool | grep -o '/[^ ]*') .; done",
    ];
    engine.shell(&lines.join(" && ")).ok();
}

/// Signs with the first key that the agent has; no step may change what the agent has.
const SIGNS: &str = "FROM busybox AS made\nCOPY tools /\nCOPY data /w/data\nWORKDIR /w\n\
                     RUN --mount=type=ssh,required ! ssh-add -D && ssh-add -L > key.pub && \
                     ssh-keygen -q -Y sign -f key.pub -n tests data\nRUN ! test -e /run/buildkit/ssh_agent.0\n\
                     FROM scratch\nCOPY --from=made /w /\n";

/// A signature that a build has left in `out`, looked at by this machine.
fn verified(engine: &Engine, key: &str) {
    let line = format!(
        "cmp <(cut -d' ' -f1,2 out/key.pub) <(cut -d' ' -f1,2 {key}.pub) && echo \"me $(cat {key}.pub)\" > allowed && \
         ssh-keygen -Y verify -f allowed -I me -n tests -s out/data.sig < s/data"
    );
    engine.shell(&line).says("Good \"tests\" signature for me");
    engine.shell("rm -r out").ok();
}

/// git's own server, one process a connection.
fn serve_git(folder: PathBuf) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let out = OwnedFd::from(stream.try_clone().expect("a second handle"));
            let mut git = Command::new("git");
            git.args(["daemon", "--inetd", "--export-all"]).arg(format!("--base-path={}", folder.display()));
            let served = git.stdin(Stdio::from(OwnedFd::from(stream))).stdout(Stdio::from(out)).stderr(Stdio::null());
            served.status().expect("git is installed");
        }
    });
    port
}

/// A repository with a branch and a folder, below `served`.
fn repository(engine: &Engine) -> PathBuf {
    let lines = [
        "mkdir -p served && git init -q -b master work && cd work",
        "git config user.email a@b.c && git config user.name tester && mkdir sub",
        "printf 'FROM busybox\\nCOPY file /\\nRUN cat /file\\n' | tee Dockerfile > sub/Dockerfile",
        "echo on main > file && echo deep in main > sub/file && git add -A && git commit -q -m one",
        "git checkout -q -b other && echo on other > file && git commit -q -am two && git checkout -q master",
        "cd .. && git clone -q --bare work served/r.git && git -C served/r.git update-server-info",
    ];
    engine.shell(&lines.join(" && ")).ok();
    engine.work_dir().join("served")
}

/// A web server of a folder for those that show this.
fn guarded(folder: PathBuf, authorization: &'static str) -> Server {
    Server::start(move |request| {
        if request.header("authorization") != Some(authorization) {
            return Reply::unauthorized("Basic realm=\"tests\"");
        }
        let path = request.path.split('?').next().unwrap_or_default().trim_start_matches('/');
        std::fs::read(folder.join(path)).map_or(Reply::new(404, ""), |content| Reply::new(200, content))
    })
}

on_both! {
    fn images_of_registries_that_ask_who_is_there(engine: &Engine) {
        let (basic, open) = (Registry::start_with_login(), Registry::start());
        let tokens = behind_tokens(&open);
        let push = |host: &str, at: &str| {
            engine.docker(&["tag", "busybox", &format!("{at}/team/base")]).ok();
            engine.docker(&["push", "-q", &format!("{at}/team/base")]).ok();
            engine.docker(&["rmi", &format!("{at}/team/base")]).ok();
            engine.write("c/Dockerfile", format!("FROM {host}/team/base\nRUN echo pul''led\n"));
        };
        let login = |host: &str| {
            engine.docker_fed(&["login", "-u", REGISTRY_USER, "--password-stdin", host], REGISTRY_PASSWORD.as_bytes())
                .says("Login Succeeded");
        };
        let both = [(basic.host(), basic.host(), true), (tokens.host(), open.host(), false)];
        for (host, at, first) in both {
            if first {
                login(&host);
            }
            push(&host, &at);
            engine.docker(&["logout", &host]).ok();
            for client in clients(engine) {
                let refused = client(engine, "--no-cache c");
                assert!(refused.code == 1 && !refused.stdout.contains(" pulled\n"), "{refused}");
            }
            login(&host);
            for client in clients(engine) {
                client(engine, "--no-cache --pull c").says(" pulled\n").hides(REGISTRY_PASSWORD);
            }
        }
        if engine.is_boxyard() {
            assert!(!engine.boxyard().log().contains("bought"), "a token in a log");
        }
    }

    fn an_agent_signs_for_a_step(engine: &Engine) {
        ssh_tools(engine, "s");
        engine.write("s/data", "to be signed\n");
        engine.write("s/Dockerfile", SIGNS);
        engine.shell("ssh-keygen -q -t ed25519 -N '' -f key").ok();
        let agent = Agent::start(engine);
        engine.shell(&format!("SSH_AUTH_SOCK={} ssh-add -q key", agent.socket.display())).ok();
        for client in clients(engine) {
            client(engine, &format!("--no-cache --ssh default={} -o out s", agent.socket.display())).ok();
            verified(engine, "key");
            let without = client(engine, "--no-cache s");
            assert!(without.code == 1 && without.stdout.contains("no SSH key"), "{without}");
        }
    }

    fn contexts_of_repositories_and_archives(engine: &Engine) {
        let served = repository(engine);
        engine.shell("tar -C work -czf served/c.tgz .").ok();
        let git = format!("git://127.0.0.1:{}/r.git", serve_git(served.clone()));
        let web = Server::start(move |request| {
            let path = request.path.trim_start_matches('/');
            std::fs::read(served.join(path)).map_or(Reply::new(404, ""), |content| Reply::new(200, content))
        });
        for client in clients(engine) {
            client(engine, &format!("--no-cache {git}")).says(" on main\n");
            client(engine, &format!("--no-cache {git}#other")).says(" on other\n");
            // The BuildKit of Debian's dockerd knows no folders of repositories.
            if engine.is_boxyard() {
                client(engine, &format!("--no-cache {git}#master:sub")).says(" deep in main\n");
            }
            client(engine, &format!("--no-cache {}", web.url("/c.tgz"))).says(" on main\n");
            let missing = client(engine, &format!("--no-cache {git}#nowhere"));
            assert!(missing.code == 1 && missing.stdout.contains("nowhere"), "{missing}");
        }
    }

    fn arguments_of_the_environment(engine: &Engine) {
        engine.write("a/Dockerfile", "FROM busybox\nARG WHO=nobody\nRUN echo hello $WHO\n");
        engine.shell(&format!("WHO=you {DOCKER} build --no-cache --build-arg WHO a 2>&1")).says(" hello you\n");
        docker(engine, "--no-cache --build-arg WHO a").says(" hello nobody\n");
    }
}

#[test]
fn private_keys_sign_for_a_step() {
    kit::run(Kind::Boxyard, |engine: &Engine| {
        ssh_tools(engine, "s");
        engine.write("s/data", "to be signed\n");
        engine.write("s/Dockerfile", SIGNS);
        for (kind, more) in [("ed25519", ""), ("rsa", "-b 2048"), ("rsa", "-b 3072 -m PEM"), ("ecdsa", "-b 256")] {
            engine.shell(&format!("rm -f key key.pub; ssh-keygen -q -t {kind} {more} -N '' -f key")).ok();
            boxyard(engine, "--no-cache --ssh default=key -o out s").ok();
            verified(engine, "key");
        }
        engine.shell("ssh-keygen -q -t ed25519 -N '' -f other; ssh-keygen -q -t ed25519 -N secret -f locked").ok();
        engine.write("l/Dockerfile", "FROM busybox\nCOPY tools /\nRUN --mount=type=ssh,id=two ssh-add -L | wc -l\n");
        engine.shell("mv s/tools l/tools").ok();
        boxyard(engine, "--no-cache --ssh two=key,other l").says(" 2\n");
        for (flag, why) in [
            ("default=locked", "failed to parse locked: ssh: this private key is passphrase protected"),
            ("default=l/Dockerfile", "failed to parse l/Dockerfile: ssh: no key found"),
            ("default=nowhere", "stat nowhere: no such file or directory"),
        ] {
            let why = format!("could not parse ssh: [{flag}]: {why}");
            let refused = boxyard(engine, &format!("--ssh {flag} l"));
            assert!(refused.code == 1 && refused.stdout.contains(&why), "{refused}");
        }
    });
}

#[test]
fn tokens_for_git_servers_are_secrets() {
    kit::run(Kind::Boxyard, |engine: &Engine| {
        let served = repository(engine);
        // x-access-token:s3cret
        let tokens = guarded(served.clone(), "basic eC1hY2Nlc3MtdG9rZW46czNjcmV0");
        let headers = guarded(served, "Bearer s3cret");
        engine.write("token", "s3cret\n");
        engine.write("header", "Bearer s3cret");
        let git = |server: &Server| format!("{}#master", server.url("/r.git"));
        engine.write("a/Dockerfile", format!("FROM busybox\nADD {} /all\nRUN cat /all/file\n", git(&headers)));
        let by_host = format!("--secret id=GIT_AUTH_HEADER.{},src=header", headers.host());
        for client in clients(engine) {
            let by_token = "--secret id=GIT_AUTH_TOKEN,src=token";
            client(engine, &format!("--no-cache {by_token} {}", git(&tokens))).says(" on main\n").hides("s3cret");
            client(engine, &format!("--no-cache {by_host} {by_token} a")).says(" on main\n").hides("s3cret");
            // One for another server is not shown.
            let refused = client(engine, &format!("--no-cache {by_host} {}", git(&tokens)));
            assert!(refused.code == 1 && !refused.stdout.contains(" on main\n"), "{refused}");
        }
        assert!(tokens.seen().iter().all(|request| request.header("authorization") != Some("Bearer s3cret")));
        assert!(!engine.boxyard().log().contains("s3cret"), "a token in a log");
        engine.shell("! grep -rqa s3cret data 2>/dev/null").ok();

        // A Dockerfile of this machine beside a context that is elsewhere.
        engine.write("own", "FROM busybox\nCOPY file /\nRUN echo own; cat /file\n");
        let git = git(&tokens);
        let by_token = "--no-cache --secret id=GIT_AUTH_TOKEN,src=token";
        boxyard(engine, &format!("{by_token} -f - {git} < own")).says(" own\n").says(" on main\n");
        boxyard(engine, &format!("{by_token} -f $PWD/own {git}")).says(" own\n").says(" on main\n");
    });
}
