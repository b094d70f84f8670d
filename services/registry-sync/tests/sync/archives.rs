//! Load, save, load again; and what is no archive.

use std::time::Duration;

use bus::{Target, calls};
use bytes::Bytes;
use model::{Digest, ErrorKind};

use crate::engine::{Engine, config_of, gzip, tar_of};

impl Engine {
    pub async fn load(&self, archive: Vec<u8>) -> Result<Vec<proto::LoadedImage>, bus::Error> {
        loop {
            let (ticket, pending) = self.tickets.issue();
            let archive = archive.clone();
            let sending = tokio::spawn(async move {
                if let Ok(mut stream) = pending.accept().await
                    && stream.writer.send(Bytes::from(archive)).await.is_ok()
                {
                    let _ = stream.writer.finish().await;
                }
            });
            let ticket = Some(proto::Ticket { secret: ticket.secret, address: ticket.address });
            let request = proto::Load { ticket, lease: self.lease.clone(), quiet: true };
            match self.bus.call::<calls::SyncLoad>(&Target::Sync, &request).await {
                // It is starting.
                Err(error) if error.message().starts_with("no registry-sync") => sending.abort(),
                other => return other.map(|reply| reply.images),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn save(&self, images: Vec<proto::SavedImage>) -> Vec<u8> {
        let (ticket, pending) = self.tickets.issue();
        let receiving = tokio::spawn(async move {
            let mut stream = pending.accept().await.expect("dialled back");
            let mut bytes = Vec::new();
            while let Some(chunk) = stream.reader.next().await.expect("a clean end") {
                bytes.extend_from_slice(&chunk);
            }
            bytes
        });
        let ticket = Some(proto::Ticket { secret: ticket.secret, address: ticket.address });
        let request = proto::Save { ticket, images, lease: self.lease.clone() };
        self.bus.call::<calls::SyncSave>(&Target::Sync, &request).await.expect("saves");
        receiving.await.expect("no panic")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_go_in_and_out() {
    let engine = Engine::start().await;
    let big: Vec<u8> = (0..9_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (small_layer, big_layer) = (tar_of(&[("etc/hello", b"hello")]), tar_of(&[("big", &big)]));
    let (small_id, big_id) = (Digest::of(&small_layer), Digest::of(&big_layer));
    let config = config_of(&[&small_id, &big_id]);
    let manifest =
        br#"[{"Config":"c.json","RepoTags":["docker.io/library/made:1"],"Layers":["a/layer.tar","b/layer.tar"]}]"#;
    // The manifest comes first in one and last in the other; one is packed, and so is a layer inside.
    let first = tar_of(&[
        ("manifest.json", manifest),
        ("c.json", &config),
        ("b/layer.tar", &big_layer),
        ("a/layer.tar", &small_layer),
    ]);
    let last = gzip(&tar_of(&[
        ("a/layer.tar", &gzip(&small_layer)),
        ("b/layer.tar", &gzip(&big_layer)),
        ("c.json", &config),
        ("./manifest.json", manifest),
    ]));
    for archive in [first, last] {
        let images = engine.load(archive).await.expect("loads");
        let [image] = images.as_slice() else { panic!("one image: {images:?}") };
        assert_eq!(
            (image.id.as_str(), image.tags.as_slice()),
            (Digest::of(&config).as_str(), &["made:1".to_owned()][..])
        );
        let sizes: Vec<_> = image.layers.iter().map(|layer| (layer.diff_id.as_str(), layer.content_bytes)).collect();
        assert_eq!(sizes, [(small_id.as_str(), 5), (big_id.as_str(), 9_000_000)]);
    }

    // OCI layout, named as skopeo names it.
    let (packed, manifest_bytes) = {
        let packed = gzip(&small_layer);
        let config = config_of(&[&small_id]);
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": oci::media_type::OCI_MANIFEST,
            "config": {"mediaType": oci::media_type::OCI_CONFIG, "digest": Digest::of(&config), "size": config.len()},
            "layers": [{"mediaType": oci::media_type::OCI_LAYER_GZIP, "digest": Digest::of(&packed), "size": packed.len()}],
        });
        ((packed, config), serde_json::to_vec(&manifest).expect("JSON"))
    };
    let index = serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "manifests": [{
        "mediaType": oci::media_type::OCI_MANIFEST, "digest": Digest::of(&manifest_bytes), "size": manifest_bytes.len(),
        "annotations": {"org.opencontainers.image.ref.name": "layout:2"}}]}))
    .expect("JSON");
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    let oci = tar_of(&[
        ("index.json", &index),
        (&blob(&packed.0), &packed.0),
        (&blob(&packed.1), &packed.1),
        (&blob(&manifest_bytes), &manifest_bytes),
    ]);
    let images = engine.load(oci).await.expect("loads");
    assert_eq!(
        (images[0].tags.as_slice(), images[0].layers[0].diff_id.as_str()),
        (&["layout:2".to_owned()][..], small_id.as_str())
    );

    let image = &images[0];
    let saved = |tags: &[&str]| proto::SavedImage {
        id: image.id.clone(),
        config: image.config.clone(),
        layers: image.layers.clone(),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
    };
    let archive = engine.save(vec![saved(&["layout:2", "layout:3"])]).await;
    assert!(archive == engine.save(vec![saved(&["layout:2", "layout:3"])]).await, "the same image, other bytes");
    let again = engine.load(archive.clone()).await.expect("loads what it saved");
    assert_eq!((again[0].id.as_str(), again[0].tags.len()), (image.id.as_str(), 2));
    // Without its manifest.json the same archive is an OCI layout, whose index names the image twice.
    let mut files = Vec::new();
    for entry in tar::Archive::new(archive.as_slice()).entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        assert_eq!(entry.header().mtime().expect("a time"), 0);
        let name = String::from_utf8(entry.path_bytes().into_owned()).expect("text");
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).expect("read");
        if name != "manifest.json" && !name.ends_with('/') {
            files.push((name, content));
        }
    }
    let files: Vec<_> = files.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    let layout = engine.load(tar_of(&files)).await.expect("loads as a layout");
    assert_eq!(
        (layout[0].id.as_str(), layout[0].tags.as_slice()),
        (image.id.as_str(), &["layout:2".to_owned(), "layout:3".to_owned()][..])
    );
    let by_id = engine.load(engine.save(vec![saved(&[])]).await).await.expect("loads");
    assert_eq!((by_id[0].id.as_str(), by_id[0].tags.len()), (image.id.as_str(), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_archives_are_refused_in_words() {
    let engine = Engine::start().await;
    let layer = tar_of(&[("a", b"a")]);
    let config = config_of(&[&Digest::of(&layer)]);
    let lie = config_of(&[&Digest::of(b"other")]);
    let manifest: &[u8] = br#"[{"Config":"c","RepoTags":null,"Layers":["l"]}]"#;
    let big = tar_of(&[("c", &config), ("l", &vec![7; 6_000_000]), ("manifest.json", manifest)]);
    for (what, archive, words) in [
        ("empty", tar_of(&[]), "invalid archive: does not contain a manifest.json"),
        ("nothing", Vec::new(), "does not contain a manifest.json"),
        ("noise", b"no tar at all, whatever one may think of it ".repeat(100), "reading the archive"),
        ("no JSON", tar_of(&[("manifest.json", b"{not")]), "manifest.json"),
        ("no layer", tar_of(&[("manifest.json", manifest), ("c", &config)]), "invalid archive: l is not in it"),
        ("a lie", tar_of(&[("manifest.json", manifest), ("c", &lie), ("l", &layer)]), "invalid diffID for layer 0"),
        (
            "count",
            tar_of(&[("manifest.json", manifest), ("c", &config_of(&[])), ("l", &layer)]),
            "layers length mismatch: expected 0, got 1",
        ),
        (
            "no tar",
            tar_of(&[
                ("manifest.json", manifest),
                ("c", &config_of(&[&Digest::of(&vec![7; 6_000_000])])),
                ("l", &vec![7; 6_000_000]),
            ]),
            "is not a tar archive",
        ),
        ("half", big[..3_000_000].to_vec(), "reading the archive"),
        ("half a gzip", gzip(&big)[..2000].to_vec(), "unexpected EOF"),
        ("outside", tar_of(&[("manifest.json", br#"[{"Config":"../../etc/passwd","Layers":[]}]"#)]), "is not in it"),
        (
            "bad tag",
            tar_of(&[
                ("manifest.json", br#"[{"Config":"c","RepoTags":["UP:1"],"Layers":["l"]}]"#),
                ("c", &config),
                ("l", &layer),
            ]),
            "invalid tag \"UP:1\"",
        ),
    ] {
        let error = engine.load(archive).await.expect_err(what);
        assert!(error.message().contains(words), "{what}: {error}");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{what}: {error}");
    }
}
