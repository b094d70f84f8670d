//! Images for several platforms: pushed under an index, and put into archives.

use bus::{Target, calls};
use model::{Digest, ErrorKind};
use oci::media_type;

use crate::engine::{Engine, tar_of};
use crate::registries::Registry;

/// A loaded image of one layer for an architecture.
async fn image(engine: &Engine, architecture: &str) -> proto::PlatformImage {
    let layer = tar_of(&[("etc/architecture", architecture.as_bytes())]);
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer)]},
    });
    let config = serde_json::to_vec(&config).expect("JSON");
    let manifest = br#"[{"Config":"c.json","Layers":["layer.tar"]}]"#;
    let archive = tar_of(&[("manifest.json", manifest), ("c.json", &config), ("layer.tar", &layer)]);
    let loaded = engine.load(archive).await.expect("loads").remove(0);
    let image = proto::SavedImage { id: loaded.id, config: loaded.config, layers: loaded.layers, tags: Vec::new() };
    proto::PlatformImage {
        platform: format!("linux/{architecture}"),
        image: Some(image),
        annotations: [("org.example.for".to_owned(), architecture.to_owned())].into(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_gives_each_platform_its_image() {
    let (engine, registry) = tokio::join!(Engine::start(), Registry::start());
    let platforms = vec![image(&engine, "amd64").await, image(&engine, "arm64").await];
    let name = format!("{}/library/both", registry.host);
    let form = proto::ImageForm { oci: true, compression: "zstd".to_owned(), ..Default::default() };
    let push = proto::Push {
        name: name.clone(),
        tag: "1".to_owned(),
        lease: engine.lease.clone(),
        platforms: platforms.clone(),
        form: Some(form.clone()),
        ..Default::default()
    };
    let pushed = engine.bus.call::<calls::SyncPush>(&Target::Sync, &push).await.expect("pushed");
    let zstd = |row: &proto::PackedLayer| row.blob.as_ref().is_some_and(|blob| blob.media_type.ends_with(".zstd"));
    assert!(pushed.packed.iter().all(zstd), "{:?}", pushed.packed);
    for platform in &platforms {
        let request = proto::Pull {
            name: name.clone(),
            tag: "1".to_owned(),
            platform: platform.platform.clone(),
            lease: engine.lease.clone(),
            ..Default::default()
        };
        let pulled = engine.bus.call::<calls::SyncPull>(&Target::Sync, &request).await.expect("pulled");
        assert_eq!(pulled.digest, pushed.digest, "the name means the index");
        assert_eq!(Some(&pulled.id), platform.image.as_ref().map(|image| &image.id));
    }
    let by_digest = proto::Push { tag: String::new(), form: None, platforms: platforms[..1].to_vec(), ..push };
    let pushed = engine.bus.call::<calls::SyncPush>(&Target::Sync, &by_digest).await.expect("pushed");
    let request =
        proto::Pull { name, digest: pushed.digest.clone(), lease: engine.lease.clone(), ..Default::default() };
    let pulled = engine.bus.call::<calls::SyncPull>(&Target::Sync, &request).await.expect("pulled by digest");
    assert_eq!(pulled.digest, pushed.digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_builds_cache_goes_to_a_registry_and_comes_back() {
    let (engine, registry) = tokio::join!(Engine::start(), Registry::start());
    let (one, other) = (image(&engine, "amd64").await, image(&engine, "arm64").await);
    let layers: Vec<proto::Layer> =
        [one, other].into_iter().flat_map(|image| image.image.expect("an image").layers).collect();
    let ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
    let page = serde_json::json!({"layers": ids, "records": []});
    let page = serde_json::to_vec(&page).expect("JSON");
    let id = engine.store.put_bytes(&page, Some(&engine.lease)).await.expect("stored").to_string();
    let config = proto::Descriptor {
        media_type: "application/vnd.buildkit.cacheconfig.v0".to_owned(),
        digest: id.clone(),
        size: page.len() as u64,
    };
    let saved = proto::SavedImage { id: id.clone(), config: Some(config.clone()), layers, tags: Vec::new() };
    let name = format!("{}/library/cache", registry.host);
    let push = proto::Push {
        name: name.clone(),
        tag: "1".to_owned(),
        lease: engine.lease.clone(),
        platforms: vec![proto::PlatformImage { image: Some(saved), ..Default::default() }],
        form: Some(proto::ImageForm { oci: true, ..Default::default() }),
        ..Default::default()
    };
    engine.bus.call::<calls::SyncPush>(&Target::Sync, &push).await.expect("pushed");
    let fetch = async |tag: &str, diff_ids: Vec<String>| {
        let (name, tag, lease) = (name.clone(), tag.to_owned(), engine.lease.clone());
        let request = proto::CacheFetch { name, tag, lease, diff_ids, ..Default::default() };
        engine.bus.call::<calls::SyncCache>(&Target::Sync, &request).await
    };
    assert_eq!(fetch("1", Vec::new()).await.expect("the config").config, Some(config));
    let back: Vec<String> = ids.iter().rev().cloned().collect();
    let layers = fetch("1", back.clone()).await.expect("the layers").layers;
    assert_eq!(layers.iter().map(|layer| layer.diff_id.clone()).collect::<Vec<_>>(), back);
    let missing = fetch("1", vec![id.clone()]).await.expect_err("not one of its layers");
    assert_eq!(missing.message(), format!("layer {id} is not in the cache"));
    assert_eq!(fetch("2", Vec::new()).await.expect_err("no such cache").kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_of_built_images_are_read_again() {
    let engine = Engine::start().await;
    let both = [image(&engine, "amd64").await, image(&engine, "arm64").await];
    let write = async |platforms: &[proto::PlatformImage], with_docker: bool, compression: &str| {
        let form = proto::ImageForm { oci: !with_docker, compression: compression.to_owned(), ..Default::default() };
        let request = proto::Archive {
            platforms: platforms.to_vec(),
            form: Some(form),
            names: vec!["app:1".to_owned()],
            with_docker,
            lease: engine.lease.clone(),
            packed: Vec::new(),
            content: None,
        };
        engine.bus.call::<calls::SyncArchive>(&Target::Sync, &request).await
    };
    for (with_docker, compression) in [(true, "gzip"), (true, "uncompressed"), (false, "zstd"), (false, "gzip")] {
        let reply = write(&both[..1], with_docker, compression).await.expect("written");
        let again = write(&both[..1], with_docker, compression).await.expect("written");
        assert_eq!(reply.blob, again.blob, "the same bytes each time");
        let blob = reply.blob.expect("an archive");
        let digest = blob.digest.parse().expect("a digest");
        let bytes = engine.store.get_bytes(&digest, 1 << 20).await.expect("the archive");
        let loaded = engine.load(bytes).await.expect("loads").remove(0);
        assert_eq!(Some(&loaded.id), both[0].image.as_ref().map(|image| &image.id), "{compression}");
        assert_eq!(loaded.tags, ["app:1"]);
    }
    let index = write(&both, false, "").await.expect("written").image.expect("an index");
    assert_eq!(index.media_type, media_type::OCI_INDEX);
    let refused = write(&both, true, "").await.expect_err("two images");
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    assert_eq!(refused.message(), "docker exporter does not currently support exporting manifest lists");
    let unknown = write(&both[..1], false, "estargz").await.expect_err("unknown");
    assert_eq!(unknown.message(), "unsupported layer compression type estargz");
}
