//! What becomes of a build: images with names, pushes and annotations, archives, root file systems. Debian's docker, the
//! boxyard command, and skopeo as the one who reads what they wrote.

use std::fs;
use std::path::Path;

use e2e::session::{build, skopeo, start};
use kit::{Boxyard, Client, Output, Registry, wait_until};
use serde_json::Value;

const DOCKERFILE: &str = "FROM busybox\nCOPY src /data/\nRUN echo made > /made\nCMD [\"cat\", \"/made\"]\n";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A document of an image, as it lies there.
fn raw(image: &str) -> Value {
    json(skopeo(&["inspect", "--raw", "--tls-verify=false", image]).ok())
}

fn file(path: &Path, content: &str) {
    fs::write(path, content).expect("a file");
}

/// Types of a manifest's layers.
fn layer_types(manifest: &Value) -> Vec<&str> {
    manifest["layers"].as_array().into_iter().flatten().filter_map(|layer| layer["mediaType"].as_str()).collect()
}

/// A build with an output.
type Building<'a> = &'a dyn Fn(&str) -> Output;

/// `docker build` of Debian's docker with BuildKit.
fn docker_build(boxyard: &Boxyard, folder: &Path, flags: &[&str]) -> Output {
    let folder = folder.to_string_lossy();
    kit::run_command(&mut kit::session_client(boxyard.socket()), &[&["build"], flags, &[&folder]].concat(), None)
}

#[test]
fn archives_and_files_go_to_the_client() {
    let (boxyard, folder) = start();
    file(&folder.join("src/a"), "of the context\n");
    file(&folder.join("Dockerfile"), DOCKERFILE);
    let at = |name: &str| folder.with_file_name(name).display().to_string();
    let by_docker = |output: &str| docker_build(&boxyard, &folder, &["-o", output]);
    let by_boxyard = |output: &str| build(&boxyard, &folder, &["-t", "made:1", "-o", output]);
    let both: [(_, Building<'_>); 2] = [("docker", &by_docker), ("boxyard", &by_boxyard)];
    for (client, built) in both {
        let (tar, out) = (at(&format!("{client}.tar")), at(&format!("{client}.out")));
        built(&format!("type=tar,dest={tar}")).ok();
        let mut entries = tar::Archive::new(fs::File::open(&tar).expect("a tar"));
        let mut names = entries.entries().expect("a tar").map(|entry| {
            let entry = entry.expect("an entry");
            entry.path().expect("a path").display().to_string()
        });
        assert!(names.any(|name| name == "data/a"), "{client}");
        built(&format!("type=local,dest={out}")).ok();
        let read = |name: &str| fs::read_to_string(Path::new(&out).join(name)).ok();
        assert_eq!(read("data/a").as_deref(), Some("of the context\n"), "{client}");
        assert_eq!(read("made").as_deref(), Some("made\n"), "{client}");
    }
    let (oci, archive) = (at("made.oci"), at("made.docker"));
    // This docker takes no other archives from its daemon.
    by_docker(&format!("type=oci,dest={oci}")).fails(1, "FileSend/DiffCopy not supported by the client");
    by_boxyard(&format!("type=oci,dest={oci},name=made:1")).ok();
    let manifest = raw(&format!("oci-archive:{oci}"));
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(layer_types(&manifest), ["application/vnd.oci.image.layer.v1.tar+gzip"; 3]);
    skopeo(&["copy", "-q", &format!("oci-archive:{oci}"), &format!("dir:{}", at("dir"))]).ok();
    by_boxyard(&format!("type=docker,dest={archive},name=made:2")).ok();
    boxyard.docker(&["load", "-q", "-i", &archive]).says("Loaded image: made:2");
    assert_eq!(boxyard.docker(&["run", "--rm", "made:2"]).ok(), "made");
    // The layout file by file, and several outputs of one build.
    let (layout, files) = (at("layout"), at("files"));
    let flags = ["-t", "kept", "-o", &format!("type=oci,dest={layout},tar=false"), "-o", &files, "-o", "type=image"];
    build(&boxyard, &folder, &flags).ok();
    assert!(raw(&format!("oci:{layout}"))["layers"].is_array());
    assert_eq!(fs::read_to_string(Path::new(&files).join("made")).expect("an output"), "made\n");
    assert_eq!(boxyard.docker(&["run", "--rm", "kept"]).ok(), "made");
    for (output, why) in [
        ("type=iso,dest=x", "exporter \"iso\" could not be found"),
        ("type=image,colour=red", "unknown attribute \"colour\" of exporter \"image\""),
        ("type=image,push=true", "tag is needed when pushing to registry"),
        ("type=oci,dest=x,compression=lzma", "unsupported layer compression type lzma"),
    ] {
        build(&boxyard, &folder, &["-o", output]).fails(1, why);
    }
    boxyard.stop();
}

#[test]
fn images_are_pushed_as_they_were_asked_for() {
    let (boxyard, folder) = start();
    let registry = Registry::start();
    file(&folder.join("src/a"), "of the context\n");
    file(&folder.join("Dockerfile"), DOCKERFILE);
    let name = |tag: &str| format!("{}/team/app:{tag}", registry.host());
    let pushed = |tag: &str| raw(&format!("docker://{}", name(tag)));
    let metadata = folder.with_file_name("metadata.json");
    let (one, two) = (name("1"), name("2"));
    build(&boxyard, &folder, &["-t", &one, "-t", &two, "--push", "--metadata-file", &metadata.to_string_lossy()]).ok();
    assert_eq!(pushed("1"), pushed("2"));
    let told = json(&fs::read_to_string(&metadata).expect("metadata"));
    let digest = told["containerimage.digest"].as_str().expect("a digest").to_owned();
    let by_digest = format!("docker://{}/team/app@{digest}", registry.host());
    assert_eq!(raw(&by_digest), pushed("1"));
    let digests = boxyard.docker(&["image", "inspect", "-f", "{{json .RepoDigests}}", &one]);
    digests.says(&digest);
    // A registry's own daemon takes it.
    boxyard.docker(&["rmi", &one, &two]).ok();
    assert_eq!(boxyard.docker(&["run", "--rm", &one]).stdout, "made\n");
    let zstd = format!("type=registry,name={},compression=zstd,force-compression=true", name("zstd"));
    build(&boxyard, &folder, &["-o", &zstd]).ok();
    assert_eq!(layer_types(&pushed("zstd")), ["application/vnd.oci.image.layer.v1.tar+zstd"; 3]);
    let plain = format!("type=image,push=true,name={},compression=uncompressed,oci-mediatypes=true", name("plain"));
    build(&boxyard, &folder, &["-o", &format!("{plain},force-compression=true")]).ok();
    assert_eq!(layer_types(&pushed("plain")), ["application/vnd.oci.image.layer.v1.tar"; 3]);
    let noted = format!("type=image,push=true,store=false,name={},annotation.who=me", name("noted"));
    build(&boxyard, &folder, &["-o", &noted]).ok();
    assert_eq!(pushed("noted")["annotations"]["who"], "me");
    assert_eq!(boxyard.docker(&["images", "-q", &name("noted")]).ok(), "", "it is not kept here");
    let by_digest = format!("type=image,push=true,push-by-digest=true,name={}/other/app", registry.host());
    let built = build(&boxyard, &folder, &["-o", &by_digest, "--metadata-file", &metadata.to_string_lossy()]);
    built.ok();
    let told = json(&fs::read_to_string(&metadata).expect("metadata"));
    let digest = told["containerimage.digest"].as_str().expect("a digest");
    assert!(raw(&format!("docker://{}/other/app@{digest}", registry.host()))["layers"].is_array());
    build(&boxyard, &folder, &["--push", "-t", "127.0.0.1:1/x"]).fails(1, "connection refused");
    boxyard.stop();
}

#[test]
fn several_platforms_are_an_index() {
    let (boxyard, folder) = start();
    let registry = Registry::start();
    let dockerfile = "FROM scratch\nARG TARGETARCH\nCOPY src /$TARGETARCH\n";
    file(&folder.join("src/a"), "of the context\n");
    file(&folder.join("Dockerfile"), dockerfile);
    let name = format!("{}/app", registry.host());
    let platforms = "linux/amd64,linux/arm64,linux/arm/v7";
    build(&boxyard, &folder, &["--platform", platforms, "--push", "-t", &name]).ok();
    let index = raw(&format!("docker://{name}"));
    let entries = index["manifests"].as_array().expect("an index");
    let shown = entries.iter().map(|entry| {
        let platform = &entry["platform"];
        let text = |key: &str| platform[key].as_str().unwrap_or_default().to_owned();
        format!("{} {}", text("architecture"), text("variant")).trim_end().to_owned()
    });
    assert_eq!(shown.collect::<Vec<_>>(), ["amd64", "arm64", "arm v7"]);
    for arch in ["amd64", "arm64"] {
        let dir = folder.with_file_name(arch).display().to_string();
        let from = format!("docker://{name}");
        skopeo(&["copy", "-q", "--override-arch", arch, "--src-tls-verify=false", &from, &format!("dir:{dir}")]).ok();
        let manifest = json(&fs::read_to_string(format!("{dir}/manifest.json")).expect("a manifest"));
        let config = manifest["config"]["digest"].as_str().expect("a digest").trim_start_matches("sha256:").to_owned();
        let config = json(&fs::read_to_string(format!("{dir}/{config}")).expect("a config"));
        assert_eq!(config["architecture"], arch);
    }
    // The tag here is this machine's own.
    assert_eq!(boxyard.docker(&["image", "inspect", "-f", "{{.Architecture}}", &name]).ok(), "amd64");
    let oci = folder.with_file_name("all.oci").display().to_string();
    build(&boxyard, &folder, &["--platform", platforms, "-o", &format!("type=oci,dest={oci}")]).ok();
    assert_eq!(raw(&format!("oci-archive:{oci}"))["manifests"].as_array().map(Vec::len), Some(3));
    let refused = build(&boxyard, &folder, &["--platform", platforms, "-o", &format!("type=docker,dest={oci}")]);
    refused.fails(1, "docker exporter does not currently support exporting manifest lists");
    boxyard.stop();
}

#[test]
fn squashed_images_have_one_layer_on_their_base() {
    let (boxyard, folder) = start();
    let dockerfile = "FROM busybox\nRUN mkdir /base && echo base > /base/kept && echo base > /base/removed\n";
    file(&folder.join("Dockerfile"), dockerfile);
    build(&boxyard, &folder, &["-t", "base"]).ok();
    let inspect = |format: &str, name: &str| boxyard.docker(&["image", "inspect", "-f", format, name]).ok().to_owned();
    let secret = "word-that-is-removed-again";
    let dockerfile = format!(
        "FROM base\nRUN echo {secret} > /passing && echo a > /a\nRUN rm /passing /base/removed && ln /a /twin\n\
         RUN rm -r /tmp; mkdir -p /tmp && echo new > /base/new\nENV WORD=kept\nCMD [\"cat\", \"/a\", \"/base/new\"]\n"
    );
    file(&folder.join("Dockerfile"), &dockerfile);
    file(&folder.join("Scratch"), "FROM scratch\nCOPY src/a /one\nCOPY src/a /two\n");
    file(&folder.join("src/a"), "of the context\n");
    let scratch = folder.join("Scratch").display().to_string();
    for builder in [&[][..], &["--classic"]] {
        build(&boxyard, &folder, &[builder, &["-t", "whole"]].concat()).ok();
        build(&boxyard, &folder, &[builder, &["--squash", "-t", "squashed"]].concat()).ok();
        assert_eq!(inspect("{{len .RootFS.Layers}}", "squashed"), "3", "{builder:?}");
        assert_eq!(inspect("{{json .Config.Env}}", "squashed"), inspect("{{json .Config.Env}}", "whole"));
        let shown =
            boxyard.docker(&["run", "--rm", "squashed", "sh", "-c", "cat $(find /a /twin /base -type f | sort)"]);
        assert_eq!(shown.ok(), "a\nbase\nnew\na", "{builder:?}");
        boxyard.docker(&["run", "--rm", "squashed", "ls", "/passing"]).fails(1, "No such file");
        let history = boxyard.docker(&["history", "--no-trunc", "--format", "{{.Comment}}|{{.CreatedBy}}", "squashed"]);
        let merged = format!("merge {} to {}|", inspect("{{.Id}}", "whole"), inspect("{{.Id}}", "base"));
        assert_eq!(history.lines()[0], merged, "{history}");
        assert_eq!(history.lines().len(), inspect_history(&boxyard, "whole") + 1, "{history}");
        // Nobody who gets the image gets what was removed.
        let saved = folder.with_file_name("squashed.tar").display().to_string();
        boxyard.docker(&["save", "-o", &saved, "squashed"]).ok();
        let bytes = fs::read(&saved).expect("saved");
        let holds = |word: &str| bytes.windows(word.len()).any(|window| window == word.as_bytes());
        assert!(holds("base/.wh.removed") && !holds(&format!("{secret}\n")), "{builder:?}");
        build(&boxyard, &folder, &[builder, &["--squash", "-f", &scratch, "-t", "alone"]].concat()).ok();
        assert_eq!(inspect("{{len .RootFS.Layers}}", "alone"), "1", "{builder:?}");
        let history = boxyard.docker(&["history", "--no-trunc", "--format", "{{.Comment}}", "alone"]);
        assert!(history.lines()[0].starts_with("create new from sha256:"), "{history}");
        boxyard.docker(&["rmi", "whole", "squashed", "alone"]).ok();
    }
    boxyard.stop();
}

/// How many lines an image's history has.
fn inspect_history(boxyard: &Boxyard, name: &str) -> usize {
    boxyard.docker(&["history", "-q", name]).lines().len()
}

/// How many layers were packed so, as far as the signs of life have told.
fn packed(boxyard: &Boxyard, packing: &str) -> u64 {
    let page = Client::new(boxyard.socket()).send("GET", "/boxyard/v1/metrics", "", "").expect("an answer").text();
    let line = |line: &&str| {
        line.starts_with("boxyard_layers_packed_total{") && line.contains(&format!("packing=\"{packing}\""))
    };
    let numbers = page.lines().filter(line).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    numbers.sum::<f64>() as u64
}

#[test]
fn a_layer_is_packed_once_for_all() {
    let (boxyard, folder) = start();
    let (one, other) = (Registry::start(), Registry::start());
    file(&folder.join("src/a"), "of the context\n");
    file(&folder.join("Dockerfile"), DOCKERFILE);
    let at = |name: &str| folder.with_file_name(name).display().to_string();
    let made = |flags: &[&str]| drop(build(&boxyard, &folder, flags).ok().to_owned());
    let names = [format!("{}/app", one.host()), format!("{}/again", one.host()), format!("{}/app", other.host())];
    for compression in ["gzip", "zstd"] {
        let form = format!("compression={compression},force-compression=true,oci-mediatypes=true");
        for name in &names {
            made(&["-o", &format!("type=image,push=true,name={name}:{compression},{form}")]);
        }
        made(&["-o", &format!("type=oci,dest={},{form}", at(compression))]);
        made(&["--cache-to", &format!("type=local,dest={},mode=max,{form}", at("cache"))]);
        made(&["--cache-to", &format!("type=registry,ref={}:cache,mode=max,{form}", names[0])]);
        wait_until("the layers to be counted", 30, || (packed(&boxyard, compression) >= 3).then_some(()));
    }
    boxyard.docker(&["tag", "busybox", &names[0]]).ok();
    boxyard.docker(&["push", "-q", &names[0]]).ok();
    // Signs of life tell all that was counted before: what comes after the last one counts, too.
    made(&["-o", &format!("type=oci,dest={},compression=uncompressed,force-compression=true", at("plain"))]);
    std::thread::sleep(std::time::Duration::from_secs(6));
    let counts = ["gzip", "zstd", "uncompressed"].map(|packing| packed(&boxyard, packing));
    assert_eq!(counts, [3, 3, 0], "a plain layer is the one that lies there");
    boxyard.stop();
}

#[test]
fn two_workers_make_the_same_bytes() {
    let (boxyard, folder) = start();
    for name in ["one", "two"] {
        let label = format!("at={name}");
        boxyard.boxyard(&["worker", "start", "--name", name, "--label", &label]).ok();
        let is_ready = || {
            let listed = boxyard.boxyard(&["worker", "ls"]).stdout;
            listed.lines().any(|line| line.split_whitespace().take(2).eq([name, "ready"]))
        };
        wait_until("the worker to be ready", 30, || is_ready().then_some(()));
    }
    file(&folder.join("src/a"), "of the context\n");
    let dockerfile = "FROM busybox AS made\nARG SOURCE_DATE_EPOCH\nWORKDIR /work\nCOPY src /work/src\n\
                      RUN mkdir -p z/y b && for n in 9 1 5; do echo $n > z/y/$n; done && ln z/y/1 b/twin && ln -s ../z b/link\n\
                      FROM busybox\nRUN echo first > /first && rm -r /tmp; mkdir /tmp\n\
                      COPY --from=made /work /copied\nCOPY --chmod=600 src/a /late\nENV WORD=kept\nCMD [\"true\"]\n";
    file(&folder.join("Dockerfile"), dockerfile);
    let built = |worker: &str| {
        let (archive, iid) = (folder.with_file_name(worker), folder.with_file_name(format!("{worker}.iid")));
        let label = format!("at={worker}");
        let flags = ["--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1577934245", "--worker-label", &label];
        let oci = format!("type=oci,dest={},rewrite-timestamp=true", archive.display());
        let image = format!("type=image,name={worker},rewrite-timestamp=true");
        build(
            &boxyard,
            &folder,
            &[&flags[..], &["-o", &oci, "-o", &image, "--iidfile", &iid.to_string_lossy()]].concat(),
        )
        .ok();
        let builds = Client::new(boxyard.socket()).get_json("/boxyard/v1/builds?limit=1");
        assert_eq!(builds["items"][0]["worker_id"], worker);
        (fs::read(&archive).expect("an archive"), fs::read_to_string(&iid).expect("an id"))
    };
    let one = built("one");
    // All that is made anew is made in another second.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let two = built("two");
    assert_eq!(one.1, two.1, "the image's id");
    assert!(one.0 == two.0, "the archives differ: {} and {} bytes", one.0.len(), two.0.len());
    let manifest = |name: &str| skopeo(&["inspect", &format!("oci-archive:{}", folder.with_file_name(name).display())]);
    assert_eq!(json(manifest("one").ok())["Created"], "2020-01-02T03:04:05Z");
    assert_eq!(boxyard.docker(&["run", "--rm", "two", "cat", "/copied/b/twin", "/late"]).ok(), "1\nof the context");
    boxyard.stop();
}

#[test]
fn a_layout_for_buildx_is_written_blob_by_blob() {
    let (boxyard, folder) = start();
    file(&folder.join("src/a"), "of the layout\n");
    file(&folder.join("Dockerfile"), DOCKERFILE);
    let buildx = |flags: &[&str]| {
        let folder = folder.to_string_lossy();
        let mut docker = kit::client26(boxyard.socket());
        kit::run_command(&mut docker, &[&["buildx", "build"], flags, &[&folder]].concat(), None)
    };
    let layout = folder.with_file_name("layout");
    buildx(&["-o", &format!("type=oci,dest={},tar=false,name=base:v1", layout.display())]).ok();
    let index = json(&fs::read_to_string(layout.join("index.json")).expect("buildx has written it"));
    let annotations = index["manifests"][0]["annotations"].as_object().into_iter().flatten();
    let mut names = annotations.filter_map(|(_, value)| value.as_str());
    assert!(names.any(|named| named.ends_with("base:v1")), "{index}");
    let place = format!("oci:{}", layout.display());
    let manifest = raw(&place);
    assert_eq!(manifest["layers"].as_array().map(Vec::len), Some(3), "{manifest}");
    // All that it names is there, and is what it is called.
    skopeo(&["copy", "-q", &place, &format!("oci:{}", folder.with_file_name("copied").display())]).ok();
    boxyard.stop();
}
