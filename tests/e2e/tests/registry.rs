//! The docker command at a registry: push, pull, tags, digests, removal, what is missing, what is refused.

use kit::{Engine, REGISTRY_PASSWORD, REGISTRY_USER, Registry, on_both};

/// Builds an image of two layers under this name.
fn build(engine: &Engine, name: &str) {
    let dockerfile = b"FROM busybox\nRUN echo pulled > /note\nCMD [\"cat\", \"/note\"]\n";
    engine.docker_fed(&["build", "-q", "-t", name, "-"], dockerfile).ok();
}

/// `name@sha256:...` of an image of one repository.
fn by_digest(engine: &Engine, name: &str) -> String {
    engine.docker(&["image", "inspect", "-f", "{{index .RepoDigests 0}}", name]).ok().to_owned()
}

on_both! {
    fn what_was_pushed_is_pulled_and_runs(engine: &Engine) {
        let registry = Registry::start();
        let name = format!("{}/team/app:v1", registry.host());
        build(engine, &name);
        let pushed = engine.docker(&["push", &name]);
        pushed.says(&format!("The push refers to repository [{}/team/app]", registry.host()));
        pushed.says(": Pushed").says("v1: digest: sha256:");
        engine.docker(&["push", &name]).says(": Layer already exists").hides(": Pushed");
        let digest = by_digest(engine, &name);
        engine.docker(&["images", "--digests"]).says(digest.split_once('@').expect("a digest").1);
        engine.docker(&["rmi", &name]).says(&format!("Untagged: {name}")).says(&format!("Untagged: {digest}"));
        engine.docker(&["pull", &name])
            .says("v1: Pulling from team/app")
            .says(": Already exists")
            .says(": Pull complete")
            .says(&format!("Status: Downloaded newer image for {name}"));
        engine.docker(&["pull", &name])
            .hides("Pull complete")
            .says(&format!("Status: Image is up to date for {name}"));
        assert_eq!(by_digest(engine, &name), digest);
        assert_eq!(engine.docker(&["run", "--rm", &name]).ok(), "pulled");
        assert_eq!(engine.docker(&["inspect", "-f", "{{index .RepoTags 0}}", &name]).ok(), name);
    }

    fn an_image_has_a_name_by_its_digest(engine: &Engine) {
        let registry = Registry::start();
        let name = format!("{}/app:v1", registry.host());
        build(engine, &name);
        engine.docker(&["push", "-q", &name]).ok();
        let digest = by_digest(engine, &name);
        engine.docker(&["rmi", &name]).ok();
        engine.docker(&["pull", &digest]).says(&format!("Status: Downloaded newer image for {digest}"));
        let listed = engine.docker(&["images", "--digests", "--format", "{{.Tag}} {{.Digest}}", &format!("{}/app", registry.host())]);
        assert_eq!(listed.ok(), format!("<none> {}", digest.split_once('@').expect("a digest").1));
        assert_eq!(engine.docker(&["run", "--rm", &digest]).ok(), "pulled");
        engine.docker(&["history", &digest]).says("CMD");
        engine.docker(&["images", "-q", "-f", "dangling=true"]).says(&engine.docker(&["images", "-q", "-f", "reference=*/app"]).ok()[..12]);
        engine.docker(&["rmi", &digest]).says(&format!("Untagged: {digest}")).says("Deleted: sha256:");
        engine.docker(&["image", "inspect", &digest]).fails(1, "No such image");
    }

    fn all_tags_go_and_come(engine: &Engine) {
        let registry = Registry::start();
        let (one, two) = (format!("{}/app:one", registry.host()), format!("{}/app:two", registry.host()));
        build(engine, &one);
        engine.docker_fed(&["build", "-q", "-t", &two, "-"], b"FROM busybox\nENV two=2\n").ok();
        let repository = format!("{}/app", registry.host());
        engine.docker(&["push", "-a", &repository]).says("one: digest: sha256:").says("two: digest: sha256:");
        engine.docker(&["rmi", &one, &two]).ok();
        engine.docker(&["pull", "-a", &repository])
            .says("one: Pulling from app")
            .says("two: Pulling from app")
            .says(&format!("Status: Downloaded newer image for {repository}"));
        engine.docker(&["images", "--format", "{{.Tag}}", &repository]).says("one").says("two");
    }

    fn a_layer_is_mounted_from_another_repository(engine: &Engine) {
        let registry = Registry::start();
        let (first, second) = (format!("{}/first", registry.host()), format!("{}/second", registry.host()));
        build(engine, &first);
        engine.docker(&["push", &first]).ok();
        engine.docker(&["tag", &first, &second]).ok();
        engine.docker(&["push", &second]).says(": Mounted from first").hides(": Pushed");
        engine.docker(&["rmi", &first]).says(&format!("Untagged: {first}@sha256:")).hides("Deleted");
    }

    fn what_is_missing_is_said(engine: &Engine) {
        let registry = Registry::start();
        let name = format!("{}/app", registry.host());
        let unknown = format!("manifest for {name}:nope not found: manifest unknown: manifest unknown");
        engine.docker(&["pull", &format!("{name}:nope")]).fails(1, &unknown);
        engine.docker(&["push", &name]).fails(1, &format!("An image does not exist locally with the tag: {name}"));
        engine.docker(&["tag", "busybox", &format!("{name}:v1")]).ok();
        engine.docker(&["push", &name]).fails(1, &format!("tag does not exist: {name}:latest"));
        engine.docker(&["pull", "scratch"]).fails(1, "'scratch' is a reserved name");
        let answer = engine.api("POST", &format!("/v1.41/images/create?fromImage={name}&tag=nope"), "");
        assert_eq!(answer.status, 404, "{answer:?}");
        let answer = engine.api("POST", "/v1.41/images/create?fromImage=UPPER", "");
        assert_eq!(answer.status, 400, "{answer:?}");
    }

    fn credentials_are_asked_for_and_used(engine: &Engine) {
        let registry = Registry::start_with_login();
        let (host, name) = (registry.host(), format!("{}/app:v1", registry.host()));
        build(engine, &name);
        engine.docker(&["push", &name]).fails(1, "no basic auth credentials");
        engine.docker(&["pull", &name]).fails(1, "no basic auth credentials");
        engine.docker(&["login", "-u", REGISTRY_USER, "-p", "wrong", &host]).fails(1, "401 Unauthorized");
        engine.docker(&["login", "-u", REGISTRY_USER, "-p", REGISTRY_PASSWORD, &host]).says("Login Succeeded");
        engine.docker(&["push", &name]).says("v1: digest: sha256:");
        engine.docker(&["rmi", &name]).ok();
        // The client's credentials reach the pull of a build.
        engine.docker_fed(&["build", "-t", "built", "-"], format!("FROM {name}\n").as_bytes())
            .says("Pulling from app")
            .says("Status: Downloaded newer image");
        let fresh = format!("FROM {name}\nENV fresh=1\n");
        engine.docker_fed(&["build", "--pull", "-t", "built", "-"], fresh.as_bytes()).says("Status: Image is up to date");
        engine.docker(&["logout", &host]).ok();
        engine.docker(&["pull", &name]).fails(1, "no basic auth credentials");
    }

    fn events_tell_of_pulls_and_pushes(engine: &Engine) {
        let registry = Registry::start();
        let name = format!("{}/app:v1", registry.host());
        build(engine, &name);
        engine.docker(&["push", "-q", &name]).ok();
        engine.docker(&["pull", "-q", &name]).ok();
        let format = "{{.Action}} {{.Actor.ID}} {{.Actor.Attributes.name}}";
        let until = format!("{}", std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now").as_secs() + 1);
        let events = engine.docker(&["events", "--since", "10m", "--until", &until, "-f", "type=image", "--format", format]);
        events.says(&format!("push {name} {}/app", registry.host())).says(&format!("pull {name} {}/app", registry.host()));
    }
}
