//! Debian 13's docker command as its users have it: with buildx, by which it builds, and compose v2. Each flow runs on
//! Debian 13's dockerd, too, where that has what is tested.

mod bake;

use kit::{Engine, on_docker26_too};

/// A context with two stages that the last one needs.
fn write_stages(engine: &Engine, folder: &str) {
    engine.write(&format!("{folder}/a"), "hello\n");
    engine.write(
        &format!("{folder}/Dockerfile"),
        "FROM busybox AS one\nARG V=1\nRUN echo v=$V > /v\n\
         FROM busybox AS two\nCOPY a /a\n\
         FROM one\nCOPY --from=two /a /b\nCMD [\"cat\", \"/b\", \"/v\"]\n",
    );
}

on_docker26_too! {
    fn build_names_loads_and_tells_what_it_made(engine: &Engine) {
        write_stages(engine, "ctx");
        let built = engine.docker26(&[
            "build", "-t", "one", "-t", "two:x", "--build-arg", "V=2", "--label", "l=m", "--iidfile", "iid",
            "--metadata-file", "meta", "--progress", "plain", "ctx",
        ]);
        built.ok();
        assert!(built.stderr.contains("exporting to image"), "{built}");
        engine.docker26(&["run", "--rm", "two:x"]).says("hello\nv=2\n");
        engine.docker26(&["inspect", "-f", "{{.Config.Labels.l}}", "one"]).says("m\n");
        let id = engine.docker26(&["images", "-q", "--no-trunc", "one"]).ok().trim().to_owned();
        let read = |name: &str| std::fs::read_to_string(engine.work_dir().join(name)).expect("written");
        assert_eq!(read("iid").trim(), id);
        let meta: serde_json::Value = serde_json::from_str(&read("meta")).expect("JSON");
        assert_eq!(meta["containerimage.config.digest"], id.as_str());
        assert_eq!(engine.docker26(&["build", "-q", "--build-arg", "V=2", "--label", "l=m", "ctx"]).ok().trim(), id);
    }
}
