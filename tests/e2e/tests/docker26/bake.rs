//! `docker buildx bake`.

use kit::on_docker26_too;

const BAKE: &str = r#"
group "default" { targets = ["app", "matrix"] }
variable "TAG" { default = "v1" }
target "base" {
  dockerfile-inline = "FROM busybox\nENV FROM_BASE=yes\nRUN echo base > /base"
}
target "common" {
  args = { WHO = "common" }
  labels = { "l" = "1" }
}
target "app" {
  inherits = ["common"]
  dockerfile-inline = "FROM base\nARG WHO\nRUN echo $(cat /base) $FROM_BASE $WHO > /who\nCMD [\"cat\", \"/who\"]"
  contexts = { base = "target:base" }
  tags = ["bk/app:${TAG}"]
}
target "copied" {
  dockerfile-inline = "FROM busybox\nCOPY --from=base /base /copied\nRUN --mount=from=base,target=/m cat /m/base\nCMD [\"cat\", \"/copied\"]"
  contexts = { base = "target:base" }
  tags = ["bk/copied"]
}
target "matrix" {
  name = "m-${item}"
  matrix = { item = ["a", "b"] }
  dockerfile-inline = "FROM busybox\nRUN echo ${item} > /i\nCMD [\"cat\", \"/i\"]"
  tags = ["bk/m:${item}"]
}
target "broken" {
  dockerfile-inline = "FROM base\nRUN exit 5"
  contexts = { base = "target:base" }
}
"#;

on_docker26_too! {
    fn targets_stand_on_targets(engine: &Engine) {
        engine.write("docker-bake.hcl", BAKE);
        engine.docker26(&["buildx", "bake", "--progress", "plain"]).ok();
        engine.docker26(&["run", "--rm", "bk/app:v1"]).says("base yes common\n");
        engine.docker26(&["inspect", "-f", "{{.Config.Labels.l}}", "bk/app:v1"]).says("1\n");
        engine.docker26(&["run", "--rm", "bk/m:a"]).says("a\n");
        engine.docker26(&["run", "--rm", "bk/m:b"]).says("b\n");
        engine.docker26(&["buildx", "bake", "--set", "*.args.WHO=else", "app", "copied"]).ok();
        engine.docker26(&["run", "--rm", "bk/app:v1"]).says("base yes else\n");
        engine.docker26(&["run", "--rm", "bk/copied"]).says("base\n");
        let broken = engine.docker26(&["buildx", "bake", "--progress", "plain", "broken"]);
        broken.fails(1, "process \"/bin/sh -c exit 5\" did not complete successfully: exit code: 5");
    }
}
