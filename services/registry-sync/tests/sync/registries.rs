//! Pull and push against Debian's docker-registry.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bus::{Target, calls};
use distribution::registry::{Access, Registries, Repository};
use model::{Digest, ErrorKind};
use oci::{Descriptor, Manifest, media_type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::engine::{Engine, config_of, free_port, gzip, tar_of};

/// A docker-registry on a folder of its own.
pub struct Registry {
    pub host: String,
    child: Child,
    folder: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let host = format!("127.0.0.1:{}", free_port());
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n",
            folder.path().join("data").display()
        );
        std::fs::write(folder.path().join("config.yml"), config).expect("written");
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(folder.path().join("config.yml"))
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(&host).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Self { host, child, folder }
    }

    /// How often the registry was asked for this.
    fn asked(&self, request: &str) -> usize {
        let log = std::fs::read_to_string(self.folder.path().join("log")).expect("a log");
        log.lines().filter(|line| line.contains(request)).count()
    }

    fn blob_file(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.folder.path().join(format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }

    /// A client that stores whatever a test wants to be there.
    async fn client(&self, path: &str) -> Repository {
        let registries = Registries::new(Default::default());
        let endpoint = registries.attempts(&self.host, false).await.expect("endpoints").last().expect("plain http");
        registries.connect(endpoint, path, Default::default(), Access::Push).await.expect("answers")
    }

    /// An image of these packed layers, whatever its config says of them.
    async fn put(&self, path: &str, layers: &[(&str, Vec<u8>)], diff_ids: &[&Digest]) {
        let client = self.client(path).await;
        let config = config_of(diff_ids);
        client.put_blob(&Digest::of(&config), &config).await.expect("stored");
        let mut named = Vec::new();
        for (media_type, bytes) in layers {
            client.put_blob(&Digest::of(bytes), bytes).await.expect("stored");
            named.push(Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64));
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            config: Descriptor::new(media_type::OCI_CONFIG, Digest::of(&config), config.len() as u64),
            layers: named,
            annotations: None,
        };
        client.put_manifest("1", media_type::OCI_MANIFEST, &manifest.to_bytes()).await.expect("stored");
    }
}

/// A way to a registry over which answers come at about two megabytes a second, until it is opened.
struct Narrow {
    host: String,
    passed: Arc<AtomicU64>,
    is_open: Arc<AtomicBool>,
}

impl Narrow {
    async fn before(registry: &Registry) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let host = listener.local_addr().expect("bound").to_string();
        let narrow = Self { host, passed: Arc::default(), is_open: Arc::default() };
        let (target, passed, is_open) = (registry.host.clone(), narrow.passed.clone(), narrow.is_open.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (target, passed, is_open) = (target.clone(), passed.clone(), is_open.clone());
                tokio::spawn(async move {
                    let server = TcpStream::connect(target).await.expect("the registry runs");
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    let up = async move { tokio::io::copy(&mut from_client, &mut to_server).await.map(drop) };
                    let down = async move {
                        let mut buffer = vec![0; 64 << 10];
                        loop {
                            let count = from_server.read(&mut buffer).await?;
                            if count == 0 {
                                return Ok::<(), std::io::Error>(());
                            }
                            to_client.write_all(&buffer[..count]).await?;
                            passed.fetch_add(count as u64, Ordering::SeqCst);
                            if !is_open.load(Ordering::SeqCst) {
                                tokio::time::sleep(Duration::from_millis(30)).await;
                            }
                        }
                    };
                    tokio::select! { _ = up => {}, _ = down => {} }
                });
            }
        });
        narrow
    }

    /// Bytes that have come when for a second none came any more.
    async fn passed_in_the_end(&self) -> u64 {
        let (mut last, mut still) = (self.passed.load(Ordering::SeqCst), 0);
        while still < 10 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = self.passed.load(Ordering::SeqCst);
            still = if now == last { still + 1 } else { 0 };
            last = now;
        }
        last
    }
}

/// The statuses of one layer or more, in their order, each once.
fn statuses(lines: &[proto::Progress]) -> BTreeSet<&str> {
    lines.iter().map(|line| line.status.as_str()).filter(|status| !status.is_empty()).collect()
}

impl Engine {
    async fn pull(&self, name: &str, tag: &str) -> (Result<proto::PullReply, bus::Error>, Vec<proto::Progress>) {
        let request =
            proto::Pull { name: name.to_owned(), tag: tag.to_owned(), lease: self.lease.clone(), ..Default::default() };
        let (sender, receiver) = mpsc::channel(1024);
        let (reply, lines) = tokio::join!(
            self.bus.call_with_progress::<calls::SyncPull>(&Target::Sync, &request, sender),
            gather(receiver),
        );
        (reply, lines)
    }

    async fn push(
        &self,
        name: &str,
        image: &proto::PullReply,
        packed: &[proto::PackedLayer],
    ) -> (Result<proto::PushReply, bus::Error>, Vec<proto::Progress>) {
        let image = proto::SavedImage {
            id: image.id.clone(),
            config: image.config.clone(),
            layers: image.layers.clone(),
            tags: Vec::new(),
        };
        let request = proto::Push {
            name: name.to_owned(),
            tag: "1".to_owned(),
            image: Some(image),
            lease: self.lease.clone(),
            packed: packed.to_vec(),
            ..Default::default()
        };
        let (sender, receiver) = mpsc::channel(1024);
        tokio::join!(self.bus.call_with_progress::<calls::SyncPush>(&Target::Sync, &request, sender), gather(receiver),)
    }

    /// Ends the lease and waits until the layer store has nothing left.
    async fn is_empty_after_the_lease(&self) {
        let lease = proto::Lease { id: self.lease.clone() };
        self.bus.call::<calls::LeaseEnd>(&Target::Store, &lease).await.expect("ends");
        for _ in 0..200 {
            let usage = self.bus.call::<calls::Usage>(&Target::Store, &proto::Empty {}).await.expect("answers");
            if usage.blob_count == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the layer store keeps what nobody wants");
    }
}

async fn gather(mut receiver: mpsc::Receiver<proto::Progress>) -> Vec<proto::Progress> {
    let mut lines = Vec::new();
    while let Some(line) = receiver.recv().await {
        lines.push(line);
    }
    lines
}

/// Bytes that no packer makes smaller, always the same ones.
fn noise(bytes: u32) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..bytes).map(&mut next).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn images_come_from_a_registry_and_go_back() {
    let (engine, registry) = tokio::join!(Engine::start(), Registry::start());
    let (small, big) = (tar_of(&[("etc/hello", b"hello")]), tar_of(&[("big", &noise(3_000_000))]));
    let plain = tar_of(&[("plain", b"not packed at all")]);
    let ids = [Digest::of(&small), Digest::of(&big), Digest::of(&plain)];
    let layers = [
        (media_type::OCI_LAYER_GZIP, gzip(&small)),
        (media_type::OCI_LAYER_ZSTD, zstd::encode_all(big.as_slice(), 1).expect("in memory")),
        (media_type::OCI_LAYER, plain.clone()),
    ];
    registry.put("library/first", &layers, &ids.each_ref()).await;

    let first = format!("{}/library/first", registry.host);
    let (reply, lines) = engine.pull(&first, "1").await;
    let image = reply.expect("pulled");
    let found: Vec<_> = image.layers.iter().map(|layer| (layer.diff_id.as_str(), layer.content_bytes)).collect();
    assert_eq!(found, [(ids[0].as_str(), 5), (ids[1].as_str(), 3_000_000), (ids[2].as_str(), 17)]);
    assert_eq!(image.id, Digest::of(&config_of(&ids.each_ref())).to_string());
    assert_eq!(image.packed.len(), 3);
    let wanted =
        ["Pulling fs layer", "Downloading", "Verifying Checksum", "Download complete", "Extracting", "Pull complete"];
    assert!(statuses(&lines).is_superset(&BTreeSet::from(wanted)), "{:?}", statuses(&lines));
    assert_eq!(lines.iter().filter(|line| line.stored.is_some()).count(), 3);

    // What the layer store has is not fetched again.
    let gets = |path: &str| registry.asked(&format!("\"GET /v2/{path}/blobs/{}", Digest::of(&layers[1].1)));
    assert_eq!(gets("library/first"), 1);
    let (again, _) = engine.pull(&first, "1").await;
    assert_eq!(again.expect("pulled").layers, image.layers);
    assert_eq!(gets("library/first"), 1);

    // A push to where it came from sends no layer that Docker's manifest can name, and packs the other one.
    let (reply, lines) = engine.push(&first, &image, &image.packed).await;
    let pushed = reply.expect("pushed");
    assert_eq!(statuses(&lines).iter().filter(|status| **status == "Layer already exists").count(), 1);
    assert_eq!(pushed.packed.iter().filter(|row| row.repository.is_empty()).count(), 1, "{:?}", pushed.packed);
    let known: Vec<_> = image.packed.iter().chain(&pushed.packed).cloned().collect();
    let (reply, lines) = engine.push(&first, &image, &known).await;
    let again = reply.expect("pushed again");
    assert_eq!((&again.digest, again.size), (&pushed.digest, pushed.size));
    assert_eq!(statuses(&lines), BTreeSet::from(["Preparing", "Layer already exists"]));

    // Another repository of the same registry mounts, another registry's gets the bytes.
    let (reply, lines) = engine.push(&format!("{}/second", registry.host), &image, &known).await;
    assert_eq!(reply.expect("pushed").digest, pushed.digest);
    assert_eq!(statuses(&lines), BTreeSet::from(["Preparing", "Mounted from library/first"]));
    let other = Registry::start().await;
    let (reply, lines) = engine.push(&format!("{}/third", other.host), &image, &known).await;
    let elsewhere = reply.expect("pushed");
    assert!(statuses(&lines).contains("Pushed"), "{:?}", statuses(&lines));

    // It comes back as it was.
    let fresh = Engine::start().await;
    let (reply, _) = fresh.pull(&format!("{}/third", other.host), "1").await;
    let back = reply.expect("pulled");
    assert_eq!((&back.id, &back.digest), (&image.id, &elsewhere.digest));
    assert_eq!(back.layers, image.layers);

    let name = format!("{}/library/first", registry.host);
    let asked = proto::RegistryTags { name: name.clone(), auth: None };
    let tags = engine.bus.call::<calls::RegistryTags>(&Target::Sync, &asked).await.expect("tags");
    assert_eq!(tags.tags, ["1"]);
    let asked = proto::RegistryInspect { name, tag: "1".to_owned(), ..Default::default() };
    let looked = engine.bus.call::<calls::RegistryInspect>(&Target::Sync, &asked).await.expect("a descriptor");
    let descriptor = looked.descriptor.expect("a descriptor");
    assert_eq!((descriptor.digest, descriptor.size), (pushed.digest, pushed.size));
    assert_eq!(looked.platforms, ["linux/amd64"]);
    let asked = proto::RegistrySearch { term: format!("{}/sec", registry.host), limit: 25, auth: None };
    let found = engine.bus.call::<calls::RegistrySearch>(&Target::Sync, &asked).await.expect("a search");
    assert_eq!(found.results.iter().map(|hit| &hit.name).collect::<Vec<_>>(), [&format!("{}/second", registry.host)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pulls_of_one_layer_fetch_it_once() {
    let (engine, registry) = tokio::join!(Engine::start(), Registry::start());
    let layer = tar_of(&[("big", &noise(12_000_000))]);
    let packed = gzip(&layer);
    for path in ["one", "two"] {
        registry.put(path, &[(media_type::OCI_LAYER_GZIP, packed.clone())], &[&Digest::of(&layer)]).await;
    }
    let (one, two) = (format!("{}/one", registry.host), format!("{}/two", registry.host));
    let (one, two) = tokio::join!(engine.pull(&one, "1"), engine.pull(&two, "1"));
    assert_eq!(one.0.expect("pulled").layers, two.0.expect("pulled").layers);
    assert_eq!(
        registry.asked(&format!("blobs/{} HTTP", Digest::of(&packed))) - 2,
        1,
        "beside the two looks of the puts"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_ends_with_whoever_wanted_it() {
    let (engine, registry) = tokio::join!(Engine::start(), Registry::start());
    let narrow = Narrow::before(&registry).await;
    let layer = tar_of(&[("big", &noise(30_000_000))]);
    registry.put("app", &[(media_type::OCI_LAYER_GZIP, gzip(&layer))], &[&Digest::of(&layer)]).await;
    let request = proto::Pull {
        name: format!("{}/app", narrow.host),
        tag: "1".to_owned(),
        lease: engine.lease.clone(),
        ..Default::default()
    };
    let (sender, mut lines) = mpsc::channel(1024);
    let pull = engine.bus.call_while_wanted::<calls::SyncPull>(&Target::Sync, &request, Some(sender));
    let begun = async {
        while let Some(line) = lines.recv().await {
            if line.status == "Downloading" && line.current > 1_000_000 {
                return;
            }
        }
    };
    tokio::select! {
        reply = pull => panic!("it was over before it could be called off: {reply:?}"),
        () = begun => {}
    }
    let passed = narrow.passed_in_the_end().await;
    assert!(passed < 25_000_000, "{passed} bytes came: nobody wanted them");
    engine.is_empty_after_the_lease().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_is_killed_is_taken_up_by_the_next() {
    let (mut engine, registry) = tokio::join!(Engine::start(), Registry::start());
    let narrow = Narrow::before(&registry).await;
    let (small, big) = (tar_of(&[("small", &noise(100_000))]), tar_of(&[("big", &noise(30_000_000))]));
    let layers = [(media_type::OCI_LAYER_GZIP, gzip(&small)), (media_type::OCI_LAYER_GZIP, gzip(&big))];
    registry.put("app", &layers, &[&Digest::of(&small), &Digest::of(&big)]).await;
    let request = proto::Pull {
        name: format!("{}/app", narrow.host),
        tag: "1".to_owned(),
        lease: engine.lease.clone(),
        ..Default::default()
    };
    let (sender, mut lines) = mpsc::channel(1024);
    let bus = engine.bus.clone();
    let pull =
        tokio::spawn(async move { bus.call_with_progress::<calls::SyncPull>(&Target::Sync, &request, sender).await });
    while let Some(line) = lines.recv().await {
        if line.stored.is_some() {
            break;
        }
    }
    engine.replace_sync();
    drop(lines);
    let error = pull.await.expect("no panic").expect_err("its server is dead");
    assert_eq!((error.kind(), error.message()), (ErrorKind::Unavailable, "the registry-sync does not answer"));
    narrow.is_open.store(true, Ordering::SeqCst);
    let (reply, _) = engine.pull(&format!("{}/app", narrow.host), "1").await;
    assert_eq!(reply.expect("pulled by the next").layers.len(), 2);
    let gets = |layer: &[u8]| registry.asked(&format!("\"GET /v2/app/blobs/{}", Digest::of(layer)));
    assert_eq!((gets(&layers[0].1), gets(&layers[1].1)), (1, 2), "what was stored is not fetched again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_and_not_kept() {
    let (engine, registry) = tokio::join!(Engine::start(), Registry::start());
    let layer = tar_of(&[("a", b"a")]);
    let (id, other) = (Digest::of(&layer), Digest::of(b"other"));
    let gzipped = media_type::OCI_LAYER_GZIP;
    registry.put("diff", &[(gzipped, gzip(&layer))], &[&other]).await;
    registry.put("half", &[(gzipped, gzip(&tar_of(&[("b", &noise(100_000))]))[..50_000].to_vec())], &[&other]).await;
    registry.put("count", &[(gzipped, gzip(&layer))], &[&id, &id]).await;
    registry.put("noise", &[(gzipped, noise(4000))], &[&Digest::of(&noise(4000))]).await;
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    registry.put("foreign", &[(foreign, gzip(&layer))], &[&id]).await;
    let changed = gzip(&tar_of(&[("c", &noise(200_000))]));
    registry.put("changed", &[(gzipped, changed.clone())], &[&other]).await;
    let mut bytes = std::fs::read(registry.blob_file(&Digest::of(&changed))).expect("is on disk");
    *bytes.last_mut().expect("not empty") ^= 1;
    std::fs::write(registry.blob_file(&Digest::of(&changed)), bytes).expect("written");
    for (path, tag, kind, words) in [
        ("diff", "1", ErrorKind::Corrupt, "layers from manifest don't match image configuration"),
        ("half", "1", ErrorKind::Corrupt, "failed to register layer: "),
        ("count", "1", ErrorKind::Corrupt, "invalid rootfs in image configuration"),
        ("noise", "1", ErrorKind::InvalidArgument, "is not a tar archive"),
        ("foreign", "1", ErrorKind::Corrupt, "unsupported media type application/vnd.docker.image.rootfs.foreign"),
        ("changed", "1", ErrorKind::Corrupt, ""),
        ("diff", "2", ErrorKind::NotFound, "manifest unknown: manifest unknown"),
        ("nobody", "1", ErrorKind::NotFound, "not found: "),
    ] {
        let name = format!("{}/{path}", registry.host);
        let (reply, _) = engine.pull(&name, tag).await;
        let error = reply.expect_err(path);
        assert!(error.message().contains(words), "{path}: {error}");
        assert_eq!(error.kind(), kind, "{path}: {error}");
        if tag == "2" {
            assert_eq!(error.message(), format!("manifest for {name}:2 not found: manifest unknown: manifest unknown"));
        }
    }
    engine.is_empty_after_the_lease().await;
}
