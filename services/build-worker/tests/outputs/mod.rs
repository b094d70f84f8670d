//! Outputs of the graph builder, and what it fetches by URL.

use std::collections::BTreeMap;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::farm::{Farm, Outcome};

fn output(kind: &str, attributes: &[(&str, &str)]) -> proto::BuildOutput {
    let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    proto::BuildOutput { r#type: kind.to_owned(), attributes, store: String::new() }
}

fn options(outputs: Vec<proto::BuildOutput>) -> proto::BuildOptions {
    proto::BuildOptions { graph: true, outputs, session_gateway: "s".to_owned(), ..Default::default() }
}

async fn build(farm: &Farm, dockerfile: &str, options: proto::BuildOptions) -> Outcome {
    farm.build_with(dockerfile, &[("file", "content")], options).await
}

/// Names, and times in seconds, of a tar in the layer store.
async fn entries(farm: &Farm, digest: &str) -> BTreeMap<String, u64> {
    let bytes = farm.store.get_bytes(&digest.parse().expect("a digest"), 64 << 20).await.expect("stored");
    let mut archive = tar::Archive::new(bytes.as_slice());
    let entries = archive.entries().expect("a tar").map(|entry| {
        let entry = entry.expect("an entry");
        (entry.path().expect("a path").display().to_string(), entry.header().mtime().expect("a time"))
    });
    entries.collect()
}

#[tokio::test]
async fn a_file_system_goes_to_the_client() {
    let farm = Farm::start().await;
    let dockerfile = "FROM scratch\nCOPY file /a/file\n";
    build(&farm, dockerfile, options(vec![output("local", &[]), output("tar", &[("platform-split", "true")])])).await;
    let sent = std::mem::take(&mut farm.state.lock().expect("state").sent);
    assert_eq!(sent.iter().map(|sent| sent.index).collect::<Vec<_>>(), [0, 1]);
    let names = |sent: proto::OutputSend| {
        let farm = &farm;
        async move { entries(farm, &sent.blob.expect("a blob").digest).await.into_keys().collect::<Vec<_>>() }
    };
    let mut sent = sent.into_iter();
    assert_eq!(names(sent.next().expect("sent")).await, ["a/", "a/file"]);
    let split = ["linux_amd64/", "linux_amd64/a/", "linux_amd64/a/file"];
    assert_eq!(names(sent.next().expect("sent")).await, split);
    let both = proto::BuildOptions {
        platforms: vec!["linux/amd64".to_owned(), "linux/arm64".to_owned()],
        build_args: [("SOURCE_DATE_EPOCH".to_owned(), "1000".to_owned())].into(),
        ..options(vec![output("local", &[])])
    };
    build(&farm, dockerfile, both).await;
    let sent = farm.state.lock().expect("state").sent.remove(0);
    let found = entries(&farm, &sent.blob.expect("a blob").digest).await;
    assert!(found.contains_key("linux_amd64/a/file") && found.contains_key("linux_arm64/a/file"), "{found:?}");
    assert!(found.values().all(|time| *time == 1000), "{found:?}");
    let nobody = proto::BuildOptions { session_gateway: String::new(), ..options(vec![output("tar", &[])]) };
    build(&farm, dockerfile, nobody).await.fails("the build has no session: its client takes no files");
    let unknown = options(vec![output("image", &[("colour", "red")])]);
    build(&farm, "FROM nowhere\n", unknown).await.fails("unknown attribute \"colour\" of exporter \"image\"");
}

#[tokio::test]
async fn two_builds_at_two_times_give_one_image() {
    let farm = Farm::start().await;
    let dockerfile = "FROM busybox\nARG SOURCE_DATE_EPOCH\nRUN echo x > /x && mkdir /d\nCOPY file /d/\n";
    let asked = proto::BuildOptions {
        no_cache: true,
        build_args: [("SOURCE_DATE_EPOCH".to_owned(), "1577934245".to_owned())].into(),
        ..options(vec![output("image", &[("name", "a"), ("rewrite-timestamp", "true")])])
    };
    let first = build(&farm, dockerfile, asked.clone()).await.built();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let second = build(&farm, dockerfile, asked.clone()).await.built();
    assert!(!second.vertex("RUN").cached);
    assert_eq!(first.image, second.image);
    let config = first.config();
    assert_eq!(config.created.as_deref(), Some("2020-01-02T03:04:05Z"));
    let layers = first.image.as_ref().expect("an image").layers.clone();
    for (layer, id) in layers[1..].iter().zip(&config.rootfs.diff_ids[1..]) {
        assert_eq!(layer.diff_id, id.to_string());
        let found = entries(&farm, &layer.diff_id).await;
        assert!(!found.is_empty() && found.values().all(|time| *time <= 1_577_934_245), "{found:?}");
    }
    assert!(first.vertices.iter().any(|vertex| vertex.name == "exporting to image"));
    let without = proto::BuildOptions { build_args: Default::default(), ..asked };
    let why = "rewrite-timestamp requires SOURCE_DATE_EPOCH to be set";
    build(&farm, "FROM busybox\nRUN echo x > /x\n", without).await.fails(why);
}

#[tokio::test]
async fn an_image_for_each_platform() {
    let farm = Farm::start().await;
    let both = proto::BuildOptions {
        platforms: vec!["linux/amd64".to_owned(), "linux/arm/v7".to_owned()],
        ..options(vec![output("image", &[("name", "a,b:2"), ("annotation[linux/arm/v7].k", "v")])])
    };
    let dockerfile = "FROM scratch\nARG TARGETARCH TARGETVARIANT\nCOPY file /$TARGETARCH$TARGETVARIANT\n";
    build(&farm, dockerfile, both).await.built();
    let export = farm.state.lock().expect("state").exports.remove(0);
    let platforms: Vec<&str> = export.images.iter().map(|image| image.platform.as_str()).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm/v7"]);
    assert_eq!(export.images.iter().map(|image| image.annotations.len()).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(export.image.as_ref().expect("an image").names, ["a:latest", "b:2"]);
    for (built, name) in export.images.iter().zip(["amd64", "armv7"]) {
        let image = built.image.as_ref().expect("an image");
        assert_eq!(entries(&farm, &image.layers[0].diff_id).await.into_keys().collect::<Vec<_>>(), [name]);
        let config = oci::ImageConfig::parse(&image.config).expect("a config");
        assert_eq!(format!("{}{}", config.architecture, config.variant), name);
    }
}

/// Serves one file; says how often it was sent whole.
async fn serve(content: &'static str) -> (String, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/some/file.txt", listener.local_addr().expect("its address"));
    let sent = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
    let count = sent.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut lines = BufReader::new(&mut stream).lines();
            let mut known = false;
            while let Ok(Some(line)) = lines.next_line().await
                && !line.is_empty()
            {
                known |= line.to_lowercase() == "if-none-match: \"one\"";
            }
            let answer = if known {
                "HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n".to_owned()
            } else {
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let length = content.len();
                format!(
                    "HTTP/1.1 200 OK\r\nETag: \"one\"\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{content}"
                )
            };
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, sent)
}

#[tokio::test]
async fn files_by_url_are_fetched_once() {
    let farm = Farm::start().await;
    let (url, sent) = serve("from afar").await;
    let count = || sent.load(std::sync::atomic::Ordering::Relaxed);
    let dockerfile = format!("FROM busybox\nADD {url} /d/\nRUN cat /d/file.txt && stat -c %a /d/file.txt\n");
    let first = build(&farm, &dockerfile, options(vec![])).await.built();
    assert_eq!(first.printed(), "from afar600\n");
    let again = build(&farm, &dockerfile, options(vec![])).await.built();
    assert!(again.vertex(&url).cached && again.vertex("ADD").cached && again.vertex("RUN").cached, "{again:#?}");
    assert_eq!((count(), &again.image), (1, &first.image));
    let digest = model::Digest::of(b"from afar");
    let right = format!("FROM scratch\nADD --checksum={digest} {url} /x\n");
    build(&farm, &right, options(vec![])).await.built();
    let other = model::Digest::of(b"other");
    let wrong = build(&farm, &format!("FROM scratch\nADD --checksum={other} {url} /x\n"), options(vec![])).await;
    wrong.fails(&format!("digest mismatch {digest}: {other}"));
    let named = proto::BuildOptions {
        contexts: vec![
            proto::NamedContext { name: "afar".to_owned(), source: url, results: Vec::new() },
            proto::NamedContext {
                name: "base".to_owned(),
                source: "docker-image://busybox".to_owned(),
                results: Vec::new(),
            },
        ],
        ..options(vec![])
    };
    let dockerfile =
        "FROM scratch AS base\nCOPY nothing /\nFROM base\nRUN --mount=from=afar,target=/m cat /m/file.txt\n";
    assert_eq!(build(&farm, dockerfile, named).await.built().printed(), "from afar");
}

#[tokio::test]
async fn a_cache_of_another_boxyard_spares_its_steps() {
    let farm = Farm::start().await;
    let cache = |mode: &str| proto::CacheOption {
        r#type: "registry".to_owned(),
        attributes: [("ref".to_owned(), "r/cache".to_owned()), ("mode".to_owned(), mode.to_owned())].into(),
    };
    let dockerfile = "FROM busybox AS build\nRUN echo made > /made && echo x > /x\nFROM busybox\nCOPY --from=build /made /\nRUN cat /made\n";
    let missing = proto::BuildOptions { cache_imports: vec![cache("")], ..options(vec![]) };
    let first = build(&farm, dockerfile, missing).await.built();
    assert_eq!(
        first.vertex("importing cache manifest from r/cache").error,
        "failed to configure registry cache importer: r/cache: no such cache"
    );
    for (mode, build_step_is_cached) in [("max", true), ("min", false)] {
        let leave = proto::BuildOptions { cache_exports: vec![cache(mode)], ..options(vec![]) };
        build(&farm, dockerfile, leave).await.built();
        // Another Boxyard knows nothing of these steps.
        farm.state.lock().expect("state").results.clear();
        let take = proto::BuildOptions { cache_imports: vec![cache("")], ..options(vec![]) };
        let again = build(&farm, dockerfile, take).await.built();
        assert_eq!(again.vertex("RUN echo").cached, build_step_is_cached, "{mode} {again:#?}");
        if build_step_is_cached {
            assert!(again.vertex("COPY").cached && again.vertex("RUN cat").cached, "{again:#?}");
            assert_eq!(again.image, first.image);
            assert!(farm.state.lock().expect("state").results.is_empty(), "it is not recorded for others");
        }
    }
    let unknown = proto::CacheOption { r#type: "s3".to_owned(), ..Default::default() };
    let unknown = proto::BuildOptions { cache_exports: vec![unknown], ..options(vec![]) };
    build(&farm, dockerfile, unknown).await.fails("unknown cache exporter: \"s3\"");
}
