//! The tutorial from its first command to its last, as a person types it.

use kit::{Engine, Kind, on_both};

const DOCKERFILE: &str =
    "FROM ubuntu\nMAINTAINER shilps\nRUN apt-get update\nCMD [\"echo\", \"Hello World, welcome to Docker\"]\n";

on_both! {
    /// Dockerfile, build, images, run, history, inspect, save, rmi, load, prune.
    fn tutorial(engine: &Engine) {
        let root = kit::debian_root();
        engine.docker(&["import", &root.to_string_lossy(), "ubuntu"]).says("sha256:");
        engine.write("myDockerdir/Dockerfile", DOCKERFILE);
        let folder = engine.work_dir().join("myDockerdir");

        let built = engine.docker_in(&folder, &["build", "."]);
        built.says("Step 1/4 : FROM ubuntu").says("Step 2/4 : MAINTAINER shilps").says("Successfully built ");
        assert!(built.stdout.contains("Reading package lists"), "apt-get update did not run\n{built}");
        engine.docker(&["images"]).says("<none>").says("ubuntu");

        let named = engine.docker_in(&folder, &["build", "-t", "first_docker_image", "."]);
        named.says(" ---> Using cache").says("Successfully tagged first_docker_image:latest");
        assert_eq!(built_id(&built.stdout), built_id(&named.stdout), "a cached build has the same image");
        engine.docker(&["images", "first_docker_image"]).says("latest").hides("<none>");

        let run = engine.docker(&["run", "--name", "test_container", "first_docker_image"]);
        assert_eq!(run.ok(), "Hello World, welcome to Docker");
        engine.docker(&["ps", "-a"]).says("test_container").says("Exited (0)");

        let history = engine.docker(&["history", "--no-trunc", "first_docker_image"]);
        history.says("/bin/sh -c apt-get update").says("MAINTAINER shilps");
        assert_eq!(engine.docker(&["inspect", "-f", "{{.Author}}", "first_docker_image"]).ok(), "shilps");

        let id = engine.docker(&["inspect", "-f", "{{.Id}}", "first_docker_image"]).ok().to_owned();
        engine.shell("docker save -o saved.tar first_docker_image").ok();
        engine.docker(&["rmi", "first_docker_image"]).fails(1, "container").fails(1, "(must force)");
        engine.docker(&["rm", "test_container"]).ok();
        engine.docker(&["rmi", "first_docker_image"]).says("Untagged: first_docker_image:latest").says("Deleted: sha256:");
        engine.shell("docker load -i saved.tar").says("Loaded image: first_docker_image:latest");
        assert_eq!(engine.docker(&["inspect", "-f", "{{.Id}}", "first_docker_image"]).ok(), id);

        engine.docker(&["run", "--name", "hands", "ubuntu", "sh", "-c", "echo by hand > /note"]).ok();
        engine.docker(&["commit", "-m", "a note", "-a", "shilps", "hands", "noted:1"]).says("sha256:");
        assert_eq!(engine.docker(&["run", "--rm", "noted:1", "cat", "/note"]).ok(), "by hand");
        engine.docker(&["history", "noted:1"]).says("a note");
        engine.docker(&["rm", "hands"]).ok();
        engine.docker(&["image", "prune", "-af"]).says("Total reclaimed space:");
        engine.docker(&["images", "-q"]).hides("first");
        assert_eq!(engine.docker(&["images", "-q"]).ok(), "", "prune -a leaves no image without a container");
    }
}

/// The short id that the classic builder's last lines name.
fn built_id(stdout: &str) -> &str {
    stdout.lines().find_map(|line| line.strip_prefix("Successfully built ")).expect("the build names its image")
}

/// The tutorial's main commands through our own command print what the docker command prints.
#[test]
fn boxyard_command_prints_what_docker_prints() {
    let engine = Engine::start(Kind::Boxyard);
    engine.load_busybox();
    engine.docker(&["run", "--name", "c1", "busybox", "echo", "one"]).ok();
    let commands: &[&[&str]] = &[
        &["images"],
        &["images", "-q", "--no-trunc"],
        &["images", "--format", "{{.Repository}}:{{.Tag}}"],
        &["ps", "-a"],
        &["history", "busybox"],
        &["inspect", "busybox"],
        &["inspect", "-f", "{{.State.ExitCode}}", "c1"],
        &["logs", "c1"],
        &["diff", "c1"],
        &["image", "ls"],
        &["run", "--rm", "busybox", "echo", "two"],
        &["run", "--rm", "busybox", "sh", "-c", "exit 7"],
        &["inspect", "nosuch"],
    ];
    for args in commands {
        let (docker, boxyard) = (engine.docker(args), engine.boxyard().boxyard(args));
        assert_eq!(boxyard.stdout, docker.stdout, "stdout of {args:?}\n{boxyard}");
        assert_eq!(boxyard.code, docker.code, "exit code of {args:?}\n{boxyard}");
    }
    engine.stop();
}

/// The rows of the tutorial that need registries: names without a registry come through the mirror, which is Boxyard's
/// own registry.
#[test]
fn registries_of_the_tutorial() {
    let port = kit::free_port();
    let host = format!("127.0.0.1:{port}");
    let engine = Engine::start_with(
        Kind::Boxyard,
        &[&format!("--registry={host}"), &format!("--registry-mirror=http://{host}")],
    );
    engine.load_busybox();
    let (hello, centos) = (format!("{host}/library/hello-world"), format!("{host}/library/centos"));
    let dockerfile = "FROM busybox\nCMD [\"echo\", \"Hello from Docker!\"]\n";
    engine.docker_fed(&["build", "-q", "-t", &hello, "-"], dockerfile.as_bytes()).ok();
    engine.docker(&["import", &kit::debian_root().to_string_lossy(), &centos]).ok();
    for name in [&hello, &centos] {
        engine.docker(&["push", name]).says("latest: digest: sha256:");
        engine.docker(&["rmi", name]).ok();
    }

    let run = engine.docker(&["run", "hello-world"]);
    assert_eq!(run.ok(), "Hello from Docker!");
    assert!(run.stderr.contains("Unable to find image 'hello-world:latest' locally"), "{run}");
    assert!(run.stderr.contains("Status: Downloaded newer image for hello-world:latest"), "{run}");
    let typed = [("# ", "cat /etc/debian_version; tty"), ("/dev/pts/", "exit")];
    engine.typed("docker run -it centos /bin/bash", &typed).says("/dev/pts/");

    engine.docker(&["images", "--digests", "hello-world"]).says("sha256:");
    engine.docker(&["pull", "hello-world"]).says("Status: Image is up to date for hello-world:latest");
    engine.docker(&["manifest", "inspect", "--insecure", &hello]).says("\"schemaVersion\": 2");
    let plain = engine.boxyard_command(&["manifest", "inspect", "hello-world"]);
    assert_eq!(plain.ok(), engine.docker(&["manifest", "inspect", "--insecure", &hello]).ok(), "the same document");
    let verbose = engine.boxyard_command(&["manifest", "inspect", "-v", "hello-world"]);
    verbose.says("\"Ref\": \"hello-world:latest\"").says("\"architecture\": \"amd64\"").says("SchemaV2Manifest");
    let missing = format!("{host}/library/nosuch");
    let said = format!("no such manifest: {missing}:latest");
    engine.boxyard_command(&["manifest", "inspect", &missing]).fails(1, &said);
    engine.boxyard_command(&["search", &format!("{host}/hello")]).says("hello-world");
    engine.shell("docker rm $(docker ps -aq)").ok();
    engine.stop();
}
