//! Where the Dockerfile and its files come from.

use kit::{Engine, Kind, on_docker26_too, serve_files, serve_git};

use super::{read, write_stages};

on_docker26_too! {
    fn standard_input_archives_and_named_contexts(engine: &Engine) {
        write_stages(engine);
        engine.write("named/f", "of the folder\n");
        engine.shell26("printf 'FROM busybox\\nRUN echo alone > /x\\n' | docker build -q -t alone -").ok();
        engine.docker26(&["run", "--rm", "alone", "cat", "/x"]).says("alone\n");
        for pack in ["cat", "gzip -c", "bzip2 -c", "xz -c"] {
            let id = engine.shell26(&format!("tar -C ctx -c . | {pack} | docker build -q -t packed -"));
            assert!(id.ok().starts_with("sha256:"), "{pack}: {id}");
            engine.docker26(&["run", "--rm", "packed"]).says("hello\n");
        }
        engine.shell26("printf 'FROM busybox\\nCOPY a /a\\n' | docker build -q -t piped -f- ctx").ok();
        engine.docker26(&["run", "--rm", "piped", "cat", "/a"]).says("hello\n");

        engine.write(
            "Named",
            "FROM base\nCOPY --from=folder f /f\nCOPY --from=image /bin/busybox /copy\nCMD [\"cat\", \"/f\", \"/x\"]\n",
        );
        let contexts = "--build-context base=docker-image://alone --build-context folder=named \
                        --build-context image=docker-image://busybox";
        engine.shell26(&format!("docker build -q -f Named {contexts} -t named ctx")).ok();
        engine.docker26(&["run", "--rm", "named"]).says("of the folder\nalone\n");
        engine.shell26("docker build -f Named --build-context folder=absent ctx").fails(1, "absent");
    }

    fn files_of_bake_and_dockerfiles_by_url(engine: &Engine) {
        write_stages(engine);
        engine.write(
            "work/docker-bake.hcl",
            "target \"default\" {\n  tags = [\"baked:root\"]\n}\n\
             target \"below\" {\n  context = \"sub\"\n  contexts = { base = \"target:default\" }\n  tags = [\"baked:below\"]\n}\n",
        );
        engine.write("work/Dockerfile", "FROM busybox\nCOPY file /file\n");
        engine.write("work/file", "of the repository\n");
        engine.write("work/sub/Dockerfile", "FROM base\nCOPY deep /deep\nCMD [\"cat\", \"/file\", \"/deep\"]\n");
        engine.write("work/sub/deep", "deep in it\n");
        engine
            .shell26(
                "cd work && git init -q -b main && git add -A && git -c user.email=a@b.c -c user.name=tester commit -q -m one \
                 && git clone -q --bare . ../served/r.git",
            )
            .ok();
        let repository = format!("git://127.0.0.1:{}/r.git", serve_git(engine.work_dir().join("served")));
        engine.docker26(&["buildx", "bake", &repository]).ok();
        engine.docker26(&["run", "--rm", "baked:root", "cat", "/file"]).says("of the repository\n");
        engine.docker26(&["buildx", "bake", &format!("{repository}#main"), "default", "below"]).ok();
        engine.docker26(&["run", "--rm", "baked:below"]).says("of the repository\ndeep in it\n");
        engine
            .docker26(&["buildx", "bake", &repository, "-f", "none.hcl"])
            .fails(1, "lstat none.hcl: no such file or directory");
        let web = format!("http://127.0.0.1:{}", serve_files(engine.work_dir().to_owned()));
        engine.docker26(&["build", "-q", "-t", "web", "-f", &format!("{web}/ctx/Dockerfile"), "ctx"]).ok();
        engine.docker26(&["run", "--rm", "web"]).says("hello\n");
        engine.docker26(&["build", "-f", &format!("{web}/none"), "ctx"]).fails(1, "invalid response status 404");
    }
}

#[test]
fn an_oci_layout_stands_for_an_image() {
    kit::run(Kind::Boxyard, |engine: &Engine| {
        write_stages(engine);
        engine.shell26("docker buildx build -o type=oci,dest=layout.tar,name=made:1 ctx && mkdir layout && tar -xf layout.tar -C layout").ok();
        engine.write("On", "FROM there\nCOPY --from=there /b /c\nCMD [\"cat\", \"/b\", \"/c\"]\n");
        engine.shell26("docker build -q -f On --build-context there=oci-layout://./layout:1 -t on ctx").ok();
        engine.docker26(&["run", "--rm", "on"]).says("hello\nhello\n");
        let index: serde_json::Value = serde_json::from_str(&read(engine, "layout/index.json")).expect("JSON");
        let manifest = index["manifests"][0]["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:"));
        let manifest = read(engine, &format!("layout/blobs/sha256/{}", manifest.expect("a digest")));
        let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
        let layer = manifest["layers"][1]["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:"));
        // Of another engine, which has none of its layers.
        let other = Engine::start(Kind::Boxyard);
        other.load_busybox();
        let (here, on) =
            (engine.work_dir().display(), "docker build --progress plain -f On --build-context there=oci-layout");
        other.shell26(&format!("cd {here}; {on}://./layout:1 -t on ctx")).ok();
        other.docker26(&["run", "--rm", "on"]).says("hello\nhello\n");
        other.docker26(&["rmi", "on"]).ok();
        other.docker26(&["buildx", "prune", "-af"]).ok();
        let broken = format!("cd {here}; rm layout/blobs/sha256/{}; {on}://./layout:1 ctx", layer.expect("a digest"));
        other.shell26(&broken).fails(1, "there: failed to load from client: ");
        other.stop();
    });
}
