//! `docker-compose build` (Debian's, in Python): by the classic API through docker-py, and by the docker command with
//! BuildKit. On a Boxyard and on a dockerd.

use kit::{Engine, Output, on_both};

const FILE: &str = r#"version: "2.4"
services:
  one:
    image: composed-one
    build:
      context: c
      dockerfile: Other
      target: one
      args: {WHO: you}
      cache_from: [busybox]
      labels: {made.by: compose}
      shm_size: 32m
      extra_hosts: ["there:10.1.2.3"]
      network: none
  two:
    image: composed-two
    build: {context: c, dockerfile: Other, args: [WHO]}
"#;

const DOCKERFILE: &str = "FROM busybox AS one\nARG WHO\nCOPY file /file\n\
                          RUN echo hello $WHO > /who; grep there /etc/hosts > /there; df -k /dev/shm > /shm; ls /sys/class/net > /net\n\
                          FROM busybox\nARG WHO\nCOPY --from=one /file /from\nRUN echo two for $WHO > /who\n";

fn compose(engine: &Engine, how: &str, args: &str) -> Output {
    engine.write("compose.yaml", FILE);
    engine.write("c/Other", DOCKERFILE);
    engine.write("c/file", "of the context\n");
    engine.shell(&format!("export PATH=/usr/bin:$PATH WHO=me {how}; docker-compose -f compose.yaml {args} 2>&1"))
}

fn said(engine: &Engine, image: &str, path: &str) -> String {
    engine.docker(&["run", "--rm", image, "cat", path]).ok().to_owned()
}

fn both_are_built(engine: &Engine) {
    assert_eq!(said(engine, "composed-one", "/who"), "hello you");
    assert_eq!(said(engine, "composed-two", "/who"), "two for me");
    assert_eq!(said(engine, "composed-two", "/from"), "of the context");
    assert!(said(engine, "composed-one", "/there").starts_with("10.1.2.3"));
    assert_eq!(said(engine, "composed-one", "/net"), "lo", "without a network");
    engine.docker(&["inspect", "-f", "{{index .Config.Labels \"made.by\"}}", "composed-one"]).says("compose");
}

on_both! {
    fn by_the_classic_api(engine: &Engine) {
        let classic = "COMPOSE_DOCKER_CLI_BUILD=0";
        compose(engine, classic, "build").says("Successfully tagged composed-one:latest").says("Successfully tagged composed-two:latest");
        both_are_built(engine);
        assert!(said(engine, "composed-one", "/shm").contains(" 32768 "), "32 MB of shared memory");
        compose(engine, classic, "build --parallel").says("Using cache");
        engine.write("c/Bad", "FROM busybox\nRUN exit 5\n");
        let failed = engine.shell("sed 's/Other/Bad/; s/target: one/target: \"\"/' compose.yaml > bad.yaml; COMPOSE_DOCKER_CLI_BUILD=0 docker-compose -f bad.yaml build one 2>&1");
        assert!(failed.code == 1 && failed.stdout.contains("returned a non-zero code: 5"), "{failed}");
    }

    fn by_the_docker_command_with_buildkit(engine: &Engine) {
        let buildkit = "COMPOSE_DOCKER_CLI_BUILD=1 DOCKER_BUILDKIT=1 BUILDKIT_PROGRESS=plain";
        compose(engine, buildkit, "build --parallel").says("RUN echo two for");
        both_are_built(engine);
        compose(engine, buildkit, "build").says("CACHED");
        engine.write("c/Bad", "FROM busybox AS one\nRUN exit 5\n");
        let failed = engine.shell(&format!(
            "export PATH=/usr/bin:$PATH {buildkit}; sed s/Other/Bad/ compose.yaml > bad.yaml; docker-compose -f bad.yaml build one 2>&1"
        ));
        assert!(failed.code == 1 && failed.stdout.contains("exit code: 5"), "{failed}");
    }
}
