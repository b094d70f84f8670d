//! Where a build's result goes.

use kit::{Engine, Kind, Registry, on_docker26_too};

use super::{read, write_stages};

on_docker26_too! {
    fn files_and_archives_for_the_client(engine: &Engine) {
        write_stages(engine);
        engine.shell26("docker buildx build -o type=local,dest=tree ctx").ok();
        assert_eq!(read(engine, "tree/b"), "hello\n");
        engine.shell26("docker buildx build -o other ctx").ok();
        assert_eq!(read(engine, "other/v"), "v=1\n");
        engine.shell26("docker buildx build -o type=tar,dest=root.tar ctx && tar -xOf root.tar b").says("hello\n");
        engine.shell26("docker buildx build -q -o - ctx | tar -xO b").says("hello\n");
        engine.docker26(&["buildx", "build", "-o", "type=nothing", "ctx"]).fails(1, "nothing");
        engine.docker26(&["buildx", "build", "--provenance=true", "ctx"]).fails(1, "not supported");
        engine.docker26(&["buildx", "build", "--sbom=true", "ctx"]).fails(1, "not supported");
    }
}

fn docker(engine: &Engine, line: &str) -> kit::Output {
    let output = engine.shell26(&format!("docker {line} 2>&1"));
    output.ok();
    output
}

/// What dockerd has with containerd's image store only.
#[test]
fn images_of_several_platforms_archives_and_pushes() {
    kit::run(Kind::Boxyard, |engine: &Engine| {
        write_stages(engine);
        let registry = Registry::start();
        let name = format!("{}/team/app", registry.host());
        docker(engine, "buildx build -o type=docker,dest=image.tar -t loaded:2 ctx");
        docker(engine, "load -i image.tar").says("Loaded image: loaded:2");
        let oci = |annotation: &str| {
            engine.shell26(&format!("docker buildx build -o type=oci,dest=oci.tar,{annotation}=v ctx 2>&1"))
        };
        oci("annotation.k").ok();
        engine.shell26("tar -xOf oci.tar $(tar -tf oci.tar | grep blobs/sha256/.)").says("\"k\": \"v\"");
        oci("annotation-index.k").fails(1, "index annotations not supported for single platform export");

        docker(engine, &format!("buildx build --push -t {name}:1 -t {name}:more ctx")).says("pushing manifest for");
        docker(engine, &format!("buildx imagetools inspect {name}:more")).says("Digest:");
        engine.write("Empty", "FROM scratch\nARG TARGETARCH\nCOPY a /$TARGETARCH\n");
        let both = "--platform linux/amd64,linux/arm64";
        docker(engine, &format!("buildx build --push {both} -f Empty -t {name}:both ctx"));
        docker(engine, &format!("buildx imagetools inspect {name}:both")).says("linux/amd64").says("linux/arm64");
        docker(engine, &format!("buildx imagetools create -t {name}:index {name}:1"));
        docker(engine, &format!("buildx imagetools inspect {name}:index")).says("linux/amd64");
        docker(engine, &format!("buildx build {both} -f Empty -o type=local,dest=split ctx"));
        assert_eq!(read(engine, "split/linux_arm64/arm64"), "hello\n");
    });
}

#[test]
fn caches_by_registry_layout_and_image() {
    kit::run(Kind::Boxyard, |engine: &Engine| {
        write_stages(engine);
        let registry = Registry::start();
        let name = format!("{}/team/app", registry.host());
        docker(engine, &format!("buildx build --cache-to type=registry,ref={name}:cache,mode=max ctx"));
        docker(engine, "buildx build --cache-to type=local,dest=cache ctx");
        docker(engine, &format!("buildx build --cache-to type=inline --push -t {name}:1 ctx"));
        for from in [format!("type=registry,ref={name}:cache"), "type=local,src=cache".to_owned(), format!("{name}:1")]
        {
            docker(engine, "buildx prune -af");
            let built = docker(engine, &format!("buildx build --progress plain --cache-from {from} ctx"));
            assert!(built.stdout.lines().filter(|line| line.ends_with(" CACHED")).count() >= 4, "{from}: {built}");
        }
        engine.docker26(&["buildx", "build", "--cache-to", "type=nothing", "ctx"]).fails(1, "nothing");
    });
}
