//! Builds that stand on images of a registry: FROM and COPY --from pull what is missing, --pull asks always, and the
//! user's credentials go with them. On a Boxyard and on a dockerd.

use std::time::Duration;

use kit::{Engine, Output, REGISTRY_PASSWORD, REGISTRY_USER, Registry, Throttle, on_both, wait_until};

fn build(engine: &Engine, dockerfile: &str, args: &[&str]) -> Output {
    engine.docker_fed(&[&["build"], args, &["-"]].concat(), dockerfile.as_bytes())
}

/// An image with the file /from, in the registry only.
fn pushed(engine: &Engine, name: &str, text: &str) {
    build(engine, &format!("FROM busybox\nRUN echo {text} > /from\n"), &["-q", "-t", name]).ok();
    engine.docker(&["push", "-q", name]).ok();
    engine.docker(&["rmi", name]).ok();
}

on_both! {
    fn from_pulls_what_is_missing(engine: &Engine) {
        let registry = Registry::start();
        let base = format!("{}/team/base", registry.host());
        pushed(engine, &base, "one");
        let first = build(engine, &format!("FROM {base}\nRUN cat /from\n"), &["-t", "stands"]);
        first.says(&format!("Step 1/2 : FROM {base}\nlatest: Pulling from team/base\n"));
        first.says(": Pull complete\n").says("\nDigest: sha256:");
        first.says(&format!("\nStatus: Downloaded newer image for {base}:latest\n ---> "));
        first.says("\none\n").says("Successfully tagged stands:latest");
        assert!(engine.docker(&["images", "-q", &base]).ok().len() == 12, "it has its name here");
        build(engine, &format!("FROM {base}\nRUN cat /from\n"), &[]).says("Using cache").hides("Pulling from");
        engine.docker(&["run", "--rm", "stands", "cat", "/from"]).says("one");
    }

    fn pull_asks_the_registry_always(engine: &Engine) {
        let registry = Registry::start();
        let base = format!("{}/base:v1", registry.host());
        pushed(engine, &base, "one");
        let dockerfile = format!("FROM {base}\nRUN cat /from\n");
        build(engine, &dockerfile, &[]).says("\none\n");
        let same = build(engine, &dockerfile, &["--pull"]);
        same.says("v1: Pulling from base\n").says(&format!("\nStatus: Image is up to date for {base}\n"));
        same.says("Using cache").hides("Pull complete");
        // Another one gets the name in the registry; here it still means the old one.
        build(engine, "FROM busybox\nRUN echo two > /from\n", &["-q", "-t", "two"]).ok();
        let old = engine.docker(&["images", "-q", "--no-trunc", &base]).ok().to_owned();
        engine.shell(&format!("docker tag two {base} && docker push -q {base} && docker tag {old} {base}")).ok();
        build(engine, &dockerfile, &[]).says("Using cache");
        build(engine, &dockerfile, &["--pull"]).says("Status: Downloaded newer image").says("\ntwo\n");
        let quiet = build(engine, &dockerfile, &["--pull", "-q"]);
        assert!(quiet.ok().starts_with("sha256:") && quiet.ok().len() == 71, "{quiet}");
    }

    fn copy_from_pulls_too(engine: &Engine) {
        let registry = Registry::start();
        let other = format!("{}/other", registry.host());
        pushed(engine, &other, "copied");
        let dockerfile = format!("FROM busybox\nCOPY --from={other} /from /here\nRUN cat /here\n");
        build(engine, &dockerfile, &[]).says("latest: Pulling from other\n").says("\ncopied\n");
    }

    fn what_no_registry_has(engine: &Engine) {
        let registry = Registry::start();
        let missing = format!("{}/nosuch", registry.host());
        let failed = build(engine, &format!("FROM {missing}\n"), &[]);
        failed.fails(1, &format!("manifest for {missing}:latest not found: manifest unknown: manifest unknown"));
        assert!(failed.stdout.contains("Step 1/1 : FROM"), "{failed}");
        build(engine, &format!("FROM busybox\nCOPY --from={missing} /a /\n"), &[]).fails(1, "not found: manifest unknown");
        build(engine, &format!("FROM {missing}\n"), &["-q"]).fails(1, "not found: manifest unknown");
        build(engine, "FROM 127.0.0.1:1/x\n", &[]).fails(1, "connection refused");
        build(engine, "FROM busybox\nRUN echo fine\n", &["--pull=false"]).says("fine");
    }

    fn whoever_leaves_a_build_leaves_its_pull(engine: &Engine) {
        let registry = Registry::start();
        build(engine, "FROM busybox\nRUN head -c 4000000 /dev/urandom > /big\n", &["-q", "-t", &format!("{}/big", registry.host())]).ok();
        engine.docker(&["push", "-q", &format!("{}/big", registry.host())]).ok();
        engine.docker(&["rmi", &format!("{}/big", registry.host())]).ok();
        let slow = Throttle::new(registry.port(), 40_000);
        engine.write("slow/Dockerfile", format!("FROM {}/big\n", slow.host()));
        engine.shell("docker build slow > said 2>&1 & echo $! > pid").ok();
        wait_until("the pull to be under way", 60, || (slow.down() > 60_000).then_some(()));
        engine.shell("kill $(cat pid)").ok();
        // The whole layer would take a hundred seconds.
        wait_until("the registry to be left alone", 60, || {
            let before = slow.down();
            std::thread::sleep(Duration::from_secs(2));
            (slow.down() == before).then_some(())
        });
        assert!(slow.down() < 4_000_000, "all of it came: {}", slow.down());
        assert_eq!(engine.docker(&["images", "-q", &format!("{}/big", slow.host())]).ok(), "");
    }

    fn credentials_go_with_the_build(engine: &Engine) {
        let registry = Registry::start_with_login();
        let base = format!("{}/private", registry.host());
        let login = ["login", "-u", REGISTRY_USER, "--password-stdin", &registry.host()];
        engine.docker_fed(&login, REGISTRY_PASSWORD.as_bytes()).ok();
        pushed(engine, &base, "secretly");
        let dockerfile = format!("FROM {base}\nRUN cat /from\n");
        build(engine, &dockerfile, &[]).says("\nsecretly\n");
        engine.docker(&["logout", &registry.host()]).ok();
        build(engine, &dockerfile, &["--pull"]).fails(1, "no basic auth credentials");
        if engine.is_boxyard() {
            // What spoke for the user is kept nowhere: neither the password nor its base64.
            let auth = "dGVzdGVyOnNlY3JldA";
            let data = engine.boxyard().data_dir().display().to_string();
            let found = engine.shell(&format!("grep -rlaE '{auth}|\"password\"' {data} --exclude-dir=store --exclude-dir=snapshots --exclude-dir=containers"));
            assert_eq!(found.stdout, "", "credentials are kept in these files");
        }
    }
}
