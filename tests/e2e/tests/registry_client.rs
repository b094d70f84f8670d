//! The boxyard command at registries beside the docker command, each on a Boxyard and on a dockerd: pull, push, run of
//! a missing image, login, logout, credential helpers, and what is refused.

use std::os::unix::fs::PermissionsExt;

use kit::{Engine, Kind, Output, REGISTRY_PASSWORD, REGISTRY_USER, Registry};

/// A flow on an engine whose mirror of docker.io is a docker-registry that holds `library/hello-world`.
fn with_mirror(kind: Kind, flow: fn(&Engine, &Registry)) {
    let registry = Registry::start();
    let engine = Engine::start_with(kind, &[&format!("--registry-mirror={}", registry.url())]);
    engine.load_busybox();
    let hello = format!("{}/library/hello-world", registry.host());
    let dockerfile = "FROM busybox\nRUN echo a layer > /note\nCMD [\"echo\", \"Hello from Docker!\"]\n";
    engine.docker_fed(&["build", "-q", "-t", &hello, "-"], dockerfile.as_bytes()).ok();
    engine.docker(&["push", "-q", &hello]).ok();
    flow(&engine, &registry);
    engine.stop();
}

macro_rules! mirrored {
    ($($name:ident)*) => {
        $(
            mod $name {
                #[test]
                fn boxyard() {
                    super::with_mirror(kit::Kind::Boxyard, super::flows::$name);
                }

                #[test]
                fn dockerd() {
                    super::with_mirror(kit::Kind::Dockerd, super::flows::$name);
                }
            }
        )*
    };
}

mirrored! { pulls pushes runs_what_is_missing logins helpers refusals terminals manifests }

/// Both commands from the same state print the same lines and end alike. Layers go side by side, so that the order of
/// their lines is free.
#[track_caller]
fn alike(engine: &Engine, prepare: impl Fn(&Engine), args: &[&str]) -> Output {
    prepare(engine);
    let docker = engine.docker(args);
    prepare(engine);
    let boxyard = engine.boxyard_command(args);
    let sorted = |output: &Output| {
        // The length of a step's way is not said: a small layer may be verified before anybody looks.
        let passing = |line: &&str| !line.ends_with(": Verifying Checksum") && !line.ends_with(": Waiting");
        let mut lines: Vec<String> = output.stdout.lines().filter(passing).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&boxyard), sorted(&docker), "{args:?}\n{boxyard}\n{docker}");
    assert_eq!(boxyard.code, docker.code, "{args:?}\n{boxyard}\n{docker}");
    boxyard
}

/// Nothing of hello-world is here, neither by a tag nor by a digest.
fn without(engine: &Engine) {
    let images = engine.docker(&["images", "-a", "--no-trunc", "--format", "{{.Repository}} {{.ID}}"]).stdout;
    for line in images.lines().filter(|line| line.contains("hello-world")) {
        engine.docker(&["rmi", "-f", line.split(' ').nth(1).expect("an id")]);
    }
}

mod flows {
    use super::*;

    pub fn pulls(engine: &Engine, registry: &Registry) {
        let host = registry.host();
        let hello = format!("{host}/library/hello-world");
        let pulled = alike(engine, without, &["pull", &hello]);
        pulled.says("Using default tag: latest\nlatest: Pulling from library/hello-world\n").says("Pull complete");
        pulled.says(&format!("Status: Downloaded newer image for {hello}:latest\n{hello}:latest\n"));
        alike(engine, |_| {}, &["pull", &hello]).says("Status: Image is up to date");
        alike(engine, without, &["pull", "hello-world"]).says("\ndocker.io/library/hello-world:latest\n");
        assert_eq!(alike(engine, without, &["pull", "-q", &hello]).stdout, format!("{hello}:latest\n"));
        alike(engine, without, &["pull", "-a", &hello]).says("latest: Pulling from");
        let digests = engine.docker(&["images", "--digests", "--format", "{{.Digest}}", &hello]).ok().to_owned();
        let by_digest = format!("{hello}@{digests}");
        alike(engine, without, &["pull", &by_digest]).says(&format!("\n{by_digest}\n"));
        alike(engine, without, &["image", "pull", "--platform", "linux/amd64", &hello]).ok();

        alike(engine, |_| {}, &["pull", "-a", &format!("{hello}:latest")]).fails(1, "tag can't be used with");
        let missing = format!("{host}/library/nope");
        let not_found = format!("manifest for {missing}:latest not found: manifest unknown");
        alike(engine, |_| {}, &["pull", &missing]).fails(1, &not_found);
        alike(engine, |_| {}, &["pull", "UPPER"]).fails(1, "must be lowercase");
        alike(engine, |_| {}, &["pull", "127.0.0.1:1/x"]).fails(1, "connection refused");
    }

    pub fn pushes(engine: &Engine, registry: &Registry) {
        let host = registry.host();
        // A new layer for each command: what one of them pushed is there for the other.
        for command in ["docker", "boxyard"] {
            let name = format!("{host}/{command}/pushed");
            let dockerfile = format!("FROM busybox\nRUN echo {command} > /by\n");
            engine.docker_fed(&["build", "-q", "-t", &format!("{name}:1"), "-"], dockerfile.as_bytes()).ok();
            engine.docker(&["tag", &format!("{name}:1"), &format!("{name}:2")]).ok();
            let run = |args: &[&str]| match command {
                "docker" => engine.docker(args),
                _ => engine.boxyard_command(args),
            };
            let first = run(&["push", &format!("{name}:1")]);
            first.says(&format!("The push refers to repository [{name}]\n")).says(": Preparing\n").says(": Pushed\n");
            first.says("\n1: digest: sha256:").says(" size: ");
            run(&["push", &format!("{name}:1")]).says(": Layer already exists\n").hides(": Pushed\n");
            let all = run(&["image", "push", "-a", &name]);
            all.says("\n1: digest: ").says("\n2: digest: ");
            assert_eq!(run(&["push", "-q", &format!("{name}:2")]).stdout, format!("{name}:2\n"));
        }
        let untagged = format!("{host}/boxyard/pushed");
        alike(engine, |_| {}, &["push", &untagged]).fails(1, &format!("tag does not exist: {untagged}:latest"));
        let unknown = format!("{host}/nosuch");
        let not_here = format!("An image does not exist locally with the tag: {unknown}");
        alike(engine, |_| {}, &["push", &unknown]).fails(1, &not_here);
        alike(engine, |_| {}, &["push", "-a", &format!("{untagged}:1")]).fails(1, "tag can't be used with");
        let digest = format!("{untagged}@sha256:{}", "a".repeat(64));
        alike(engine, |_| {}, &["push", &digest]).fails(1, "cannot push a digest reference");
    }

    pub fn runs_what_is_missing(engine: &Engine, _: &Registry) {
        let run = alike(engine, without, &["run", "--rm", "hello-world"]);
        assert_eq!(run.ok(), "Hello from Docker!");
        for line in [
            "Unable to find image 'hello-world:latest' locally\n",
            "latest: Pulling from library/hello-world\n",
            "Status: Downloaded newer image for hello-world:latest\n",
        ] {
            assert!(run.stderr.contains(line), "{run}");
        }
        let always = alike(engine, |_| {}, &["run", "--rm", "--pull", "always", "hello-world"]);
        assert!(always.stderr.contains("Status: Image is up to date for hello-world:latest"), "{always}");
        without(engine);
        let quiet = engine.boxyard_command(&["run", "--rm", "-q", "hello-world"]);
        assert_eq!((quiet.ok(), quiet.stderr.as_str()), ("Hello from Docker!", ""), "{quiet}");
        let never = alike(engine, without, &["run", "--rm", "--pull", "never", "hello-world"]);
        never.fails(125, "No such image: hello-world:latest");
        let id = engine.boxyard_command(&["create", "hello-world"]).ok().to_owned();
        assert_eq!(engine.docker(&["start", "-a", &id]).ok(), "Hello from Docker!");
        engine.docker(&["rm", &id]).ok();
    }

    pub fn logins(engine: &Engine, _: &Registry) {
        let registry = Registry::start_with_login();
        let host = registry.host();
        let file = engine.client_dir().join("config.json");
        let login = |args: &[&str], stdin: &str| {
            engine.boxyard_command_fed(&[&["login", "-u", REGISTRY_USER], args].concat(), Some(stdin.as_bytes()))
        };
        let tag = format!("{host}/mine");
        engine.docker(&["tag", "busybox", &tag]).ok();
        engine.boxyard_command(&["push", &tag]).fails(1, "no basic auth credentials");
        login(&[&host], "").fails(1, "Cannot perform an interactive login from a non TTY device");
        login(&["--password-stdin", &host], "wrong\n").fails(1, "401 Unauthorized");
        assert!(!file.exists(), "nothing is kept of a login that failed");

        let done = login(&["--password-stdin", &host], &format!("{REGISTRY_PASSWORD}\n"));
        assert_eq!(done.ok(), "Login Succeeded");
        assert!(done.stderr.contains("stored unencrypted in"), "{done}");
        assert_eq!(std::fs::metadata(&file).expect("it is kept").permissions().mode() & 0o777, 0o600);
        engine.boxyard_command(&["push", &tag]).says("latest: digest: sha256:");
        engine.docker(&["rmi", &tag]).ok();
        // What one command kept serves the other.
        engine.docker(&["pull", "-q", &tag]).ok();
        let again = engine.boxyard_command(&["login", &host]);
        assert!(again.stderr.contains(&format!("existing credentials... [Username: {REGISTRY_USER}]")), "{again}");
        assert_eq!(again.ok(), "Login Succeeded");
        let same = login(&["--password", REGISTRY_PASSWORD, &format!("http://{host}/v2/")], "");
        assert_eq!(same.stderr, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n");

        engine.boxyard_command(&["logout", &host]).says(&format!("Removing login credentials for {host}\n"));
        assert_eq!(std::fs::read_to_string(&file).expect("the file stays"), "{\n\t\"auths\": {}\n}");
        engine.docker(&["rmi", &tag]).ok();
        engine.boxyard_command(&["pull", &tag]).fails(1, "no basic auth credentials");
    }

    pub fn helpers(engine: &Engine, _: &Registry) {
        let registry = Registry::start_with_login();
        let host = registry.host();
        // A helper that keeps one secret a server in a file, as docker-credential-pass does in its store.
        let bin = engine.work_dir().join("bin");
        let store = engine.work_dir().join("store");
        std::fs::create_dir_all(&bin).expect("a folder");
        std::fs::create_dir_all(&store).expect("a folder");
        let script = format!(
            "#!/bin/sh\nread -r line\nkey() {{ printf %s \"$1\" | tr -c 'a-z0-9\\n' _; }}\ncd {}\ncase $1 in\nget) f=$(key \"$line\"); [ -f \"$f\" ] || {{ echo credentials not found in native keychain; exit 1; }}; cat \"$f\";;\nstore) s=${{line#*ServerURL\\\":\\\"}}; s=${{s%%\\\"*}}; printf '%s\\n' \"$line\" >\"$(key \"$s\")\";;\nerase) rm -f \"$(key \"$line\")\";;\nlist) echo '{{}}';;\nesac\n",
            store.display()
        );
        let program = bin.join("docker-credential-shelf");
        std::fs::write(&program, script).expect("write the helper");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("make it a program");
        engine.write("config/config.json", format!("{{\"credHelpers\":{{\"{host}\":\"shelf\"}}}}"));
        let boxyard = kit::program().display().to_string();
        let shell = |line: &str| {
            engine.shell(&format!(
                "export PATH={}:$PATH BOXYARD_CONFIG={}; {line}",
                bin.display(),
                engine.work_dir().join("config").display()
            ))
        };
        let tag = format!("{host}/mine");
        engine.docker(&["tag", "busybox", &tag]).ok();
        shell(&format!("{boxyard} push {tag}")).fails(1, "no basic auth credentials");
        let done = shell(&format!("{boxyard} login -u {REGISTRY_USER} --password-stdin {host} <<<{REGISTRY_PASSWORD}"));
        assert_eq!((done.ok(), done.stderr.as_str()), ("Login Succeeded", ""), "no warning: a helper keeps it");
        let file = std::fs::read_to_string(engine.work_dir().join("config/config.json")).expect("it is there");
        assert!(file.contains(&host) && !file.contains("auth\""), "{file}");
        shell(&format!("{boxyard} push -q {tag}")).ok();
        // Docker's own client understands what ours stored, and the other way round.
        shell(&format!("DOCKER_CONFIG=$BOXYARD_CONFIG docker pull -q {tag}")).ok();
        shell(&format!("{boxyard} logout {host}")).ok();
        assert_eq!(std::fs::read_dir(&store).expect("the store").count(), 0, "erased");
        shell(&format!("{boxyard} pull {tag}")).fails(1, "no basic auth credentials");
        shell(&format!("sed -i s/shelf/nosuch/ {}/config/config.json", engine.work_dir().display())).ok();
        let gone = shell(&format!("{boxyard} pull {tag}"));
        gone.fails(1, "exec: \"docker-credential-nosuch\": executable file not found in $PATH");
    }

    pub fn refusals(engine: &Engine, _: &Registry) {
        for args in [
            &["pull", "--disable-content-trust=false", "hello-world"][..],
            &["push", "--disable-content-trust=false", "hello-world"],
            &["run", "--disable-content-trust=false", "hello-world"],
            &["create", "--disable-content-trust=false", "hello-world"],
            &["build", "--disable-content-trust=false", "-"],
        ] {
            let code = if args[0] == "run" { 125 } else { 1 };
            engine.boxyard_command(args).fails(code, "content trust is not supported");
        }
        let by_environment = format!("DOCKER_CONTENT_TRUST=1 {} pull hello-world", kit::program().display());
        engine.shell(&by_environment).fails(1, "leave out DOCKER_CONTENT_TRUST");
        let switched_off = ["pull", "-q", "--disable-content-trust", "hello-world"];
        engine.boxyard_command(&switched_off).ok();
        engine.boxyard_command(&["search", "--limit", "500", "x"]).fails(1, "500 is outside the range of [1, 100]");
    }

    /// Our command asks the registry as Docker's does, and finds short names through the engine's mirror as well.
    pub fn manifests(engine: &Engine, registry: &Registry) {
        let hello = format!("{}/library/hello-world", registry.host());
        let docker = engine.docker(&["manifest", "inspect", "--insecure", &hello]);
        assert_eq!(engine.boxyard_command(&["manifest", "inspect", "--insecure", &hello]).ok(), docker.ok());
        assert_eq!(engine.boxyard_command(&["manifest", "inspect", "hello-world"]).ok(), docker.ok());
        let verbose = engine.boxyard_command(&["manifest", "inspect", "-v", "--insecure", &hello]);
        let document: serde_json::Value = serde_json::from_str(verbose.ok()).expect("it prints JSON");
        assert_eq!(document["Ref"], format!("{hello}:latest"));
        assert_eq!(document["Descriptor"]["platform"]["os"], "linux");
        let manifest: serde_json::Value = serde_json::from_str(docker.ok()).expect("it prints JSON");
        assert_eq!(document["SchemaV2Manifest"], manifest);
        let digest = document["Descriptor"]["digest"].as_str().expect("a digest");
        engine.boxyard_command(&["manifest", "inspect", &format!("hello-world@{digest}")]).says("\"schemaVersion\": 2");
        let missing = format!("{}/nosuch", registry.host());
        engine.docker(&["manifest", "inspect", "--insecure", &missing]).fails(1, "no such manifest: ");
        let said = format!("no such manifest: {missing}:latest");
        engine.boxyard_command(&["manifest", "inspect", "--insecure", &missing]).fails(1, &said);
    }

    /// The same bytes on a terminal, as far as the moves of the cursor go.
    pub fn terminals(engine: &Engine, registry: &Registry) {
        let hello = format!("{}/library/hello-world", registry.host());
        let shown = |program: &str| {
            without(engine);
            let text = engine.shell(&format!("script -qec 'stty cols 100; {program} pull {hello}' /dev/null")).stdout;
            let begin = text.find("Using default tag").unwrap_or_else(|| panic!("{text}"));
            text[begin..].to_owned()
        };
        let (docker, boxyard) = (shown("docker"), shown(&kit::program().display().to_string()));
        for text in [&docker, &boxyard] {
            assert!(text.contains("\r\n\u{1b}[1A\u{1b}[2K\r"), "{text:?}");
            assert!(text.contains(": Pull complete \r\u{1b}["), "{text:?}");
        }
        let lines = |text: &str| -> Vec<String> {
            let plain = text.lines().filter(|line| !line.contains('\u{1b}')).map(|line| line.trim_end().to_owned());
            plain.collect()
        };
        assert_eq!(lines(&boxyard).first(), lines(&docker).first());
        assert_eq!(lines(&boxyard).last(), lines(&docker).last());
    }
}
