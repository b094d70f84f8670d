//! `docker compose` v2: what it builds, and runs without networks of its own.

use kit::{Registry, on_docker26_too};

const FILE: &str = r#"
services:
  alone:
    build:
      context: ctx
      dockerfile_inline: |
        FROM busybox AS first
        ARG WHO=nobody
        COPY --from=shared /s /s
        RUN --mount=type=secret,id=token echo "$$WHO has $$(cat /run/secrets/token)" > /said; grep there /etc/hosts >> /said
        FROM busybox
        RUN exit 7
      target: first
      args: { WHO: you }
      additional_contexts: { shared: ./shared }
      secrets: [token]
      labels: { made.by: compose }
      extra_hosts: ["there:10.1.2.3"]
      platforms: ["linux/amd64"]
      cache_from: ["busybox"]
      tags: ["REGISTRY/composed/alone:extra"]
    image: REGISTRY/composed/alone
    network_mode: none
    command: ["sh", "-c", "cat /said /s; ls /sys/class/net"]
  bridged:
    build: ./ctx
    image: composed-bridged
    network_mode: bridge
    command: ["sh", "-c", "cat /hi; ls /sys/class/net"]
  hosted:
    image: composed-bridged
    network_mode: host
    command: ["sh", "-c", "ls /sys/class/net | wc -l"]
secrets:
  token: { file: ./token }
"#;

on_docker26_too! {
    fn services_are_built_pushed_and_run(engine: &Engine) {
        let registry = Registry::start();
        let alone = format!("{}/composed/alone", registry.host());
        engine.write("compose.yaml", FILE.replace("REGISTRY", &registry.host()));
        engine.write("token", "the token");
        engine.write("shared/s", "shared\n");
        engine.write("ctx/Dockerfile", "FROM busybox\nRUN echo hi > /hi\n");
        let built = engine.shell26("docker compose --progress plain build 2>&1");
        built.says("[bridged 2/2] RUN echo hi > /hi").says("exporting to image");
        engine.docker26(&["inspect", "-f", "{{index .Config.Labels \"made.by\"}}", &alone]).says("compose");
        let up = engine.shell26("docker compose up --build 2>&1");
        for line in ["you has the token", "10.1.2.3", "shared", "lo", "hi", "eth0"] {
            up.says(&format!("| {line}"));
        }
        engine
            .shell26("docker compose ps -a --format '{{.Service}} {{.ExitCode}}' | sort")
            .says("alone 0\nbridged 0\nhosted 0\n");
        engine.shell26("docker compose build --push alone 2>&1").ok();
        engine.shell26(&format!("docker compose down && docker rmi {alone} {alone}:extra")).ok();
        engine.docker26(&["pull", "-q", &format!("{alone}:extra")]).ok();
        assert_eq!(engine.docker26(&["ps", "-aq"]).ok(), "");
        engine.write("ctx/Dockerfile", "FROM busybox\nRUN exit 5\n");
        let failed = engine.shell26("docker compose build bridged 2>&1");
        assert!(failed.code != 0 && failed.stdout.contains("exit code: 5"), "{failed}");
    }
}
