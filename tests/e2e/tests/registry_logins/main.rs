//! Logins at registries that ask who is there as the large providers document it: the docker command and the boxyard
//! command on a Boxyard and on a dockerd log in, push, pull, are told when their time is over, and log out.

mod provider;

use std::os::unix::fs::PermissionsExt;

use kit::{Engine, Output, on_both};
use provider::{Ask, Provider};

const COMMANDS: [&str; 2] = ["docker", "boxyard"];

/// Either command, with this configuration's folder and programs of the test's own first on PATH.
fn run(engine: &Engine, command: &str, line: &str) -> Output {
    let program = if command == "docker" { "docker".into() } else { kit::program().display().to_string() };
    let folder = engine.work_dir().display();
    engine.shell(&format!("export PATH={folder}/bin:$PATH; export BOXYARD_CONFIG=$DOCKER_CONFIG; {program} {line}"))
}

fn login(engine: &Engine, command: &str, provider: &Provider, secret: &str) -> Output {
    engine.write("secret", secret);
    let (user, host) = (provider.username(), provider.host());
    run(engine, command, &format!("login -u '{user}' --password-stdin {host} < secret"))
}

fn kept(engine: &Engine) -> String {
    std::fs::read_to_string(engine.client_dir().join("config.json")).unwrap_or_default()
}

/// A whole stay at one provider: nobody, a wrong password, the right one, the end of its time, a new one, and out again.
fn stay(engine: &Engine, command: &str, provider: &Provider) {
    let tag = format!("{}/{}/{command}:1", provider.host(), provider.repository());
    engine.docker(&["tag", "busybox", &tag]).ok();
    let as_nobody = provider.refuses_nobody();
    run(engine, command, &format!("pull {tag}")).fails(1, as_nobody);
    login(engine, command, provider, "wrong").fails(1, provider.refuses_a_login());
    assert!(!kept(engine).contains(&provider.host()), "nothing is kept of a login that failed");

    let secret = provider.rotate();
    login(engine, command, provider, &secret).says("Login Succeeded");
    assert!(kept(engine).contains(&provider.host()));
    let token = provider.is_identity_kept();
    assert_eq!(kept(engine).contains("identitytoken"), token, "a token is kept instead of the password");
    run(engine, command, &format!("push {tag}")).says("1: digest: sha256:");
    engine.docker(&["rmi", &tag]).ok();
    run(engine, command, &format!("pull {tag}")).says("Status: Downloaded newer image");
    assert_eq!(engine.docker(&["run", "--rm", &tag, "echo", "runs"]).ok(), "runs");

    let new = provider.rotate();
    run(engine, command, &format!("pull {tag}")).fails(1, provider.refuses_the_old());
    login(engine, command, provider, &new).says("Login Succeeded");
    run(engine, command, &format!("pull {tag}")).says("Status: Image is up to date");

    run(engine, command, &format!("logout {}", provider.host())).says("Removing login credentials for ");
    assert!(!kept(engine).contains(&provider.host()), "{}", kept(engine));
    run(engine, command, &format!("pull {tag}")).fails(1, as_nobody);
    run(engine, command, &format!("logout {}", provider.host())).ok();
}

/// A credential helper of these lines of Python, for one host.
fn install(engine: &Engine, name: &str, lines: &str) {
    let path = engine.write(&format!("bin/docker-credential-{name}"), format!("#!/usr/bin/python3\n{lines}"));
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("make it a program");
}

/// Makes `name` the helper of this host.
fn configure(engine: &Engine, host: &str, name: &str) {
    let config = format!("{{\"credHelpers\":{{\"{host}\":\"{name}\"}}}}");
    std::fs::write(engine.client_dir().join("config.json"), config).expect("write config.json");
}

on_both! {
    /// Requirements 35 to 38: ECR's Basic realm, a key at Google, ACR's identity token, JFrog's own path.
    fn the_large_providers(engine: &Engine) {
        for ask in Ask::ALL {
            let provider = Provider::start(ask);
            for command in COMMANDS {
                stay(engine, command, &provider);
            }
            provider.check();
        }
    }

    /// A helper that exchanges a cloud's own token for a registry's, as ACR's does; one that fails, one that says no
    /// JSON, one that is missing: then the registry is asked as by nobody.
    fn helpers(engine: &Engine) {
        let provider = Provider::start(Ask::Acr);
        let host = provider.host();
        let exchange = format!(
            "import json, sys, urllib.parse, urllib.request\n\
             server = sys.stdin.readline().strip()\n\
             form = {{'grant_type': 'access_token', 'service': server, 'access_token': 'of the cloud'}}\n\
             if sys.argv[1] != 'get': sys.exit(0)\n\
             data = urllib.parse.urlencode(form).encode()\n\
             answer = json.load(urllib.request.urlopen('http://{host}/oauth2/exchange', data))\n\
             print(json.dumps({{'ServerURL': server, 'Username': '<token>', 'Secret': answer['refresh_token']}}))\n"
        );
        install(engine, "exchanger", &exchange);
        install(engine, "broken", "print('the vault is sealed')\nraise SystemExit(1)\n");
        install(engine, "babbler", "print('good morning')\n");
        for command in COMMANDS {
            let tag = format!("{host}/team/helped-{command}:1");
            engine.docker(&["tag", "busybox", &tag]).ok();
            configure(engine, &host, "exchanger");
            run(engine, command, &format!("push {tag}")).says("1: digest: sha256:");
            provider.rotate();
            engine.docker(&["rmi", &tag]).ok();
            // Each command asks anew, so that a token of yesterday does no harm.
            run(engine, command, &format!("pull -q {tag}")).says(&tag);
            for name in ["broken", "babbler", "nosuch"] {
                configure(engine, &host, name);
                let pull = run(engine, command, &format!("pull {tag}"));
                pull.fails(1, provider.refuses_nobody());
                if command == "boxyard" {
                    let why = match name {
                        "broken" => "exit status 1, out: `the vault is sealed`",
                        "babbler" => "docker-credential-babbler said no JSON",
                        _ => "exec: \"docker-credential-nosuch\": executable file not found in $PATH",
                    };
                    assert!(pull.stderr.contains(why), "{pull}");
                }
                let secret = provider.rotate();
                if name != "babbler" {
                    login(engine, command, &provider, &secret).fails(1, "error storing credentials - err: ");
                }
            }
            configure(engine, &host, "broken");
            run(engine, command, &format!("logout {host}")).says(&format!("Removing login credentials for {host}"));
        }
    }
}
