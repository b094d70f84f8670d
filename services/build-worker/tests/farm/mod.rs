//! A real build worker, layer store and NATS; the gateway's side of a build is played by the test.
//!
//! Needs root, overlayfs, an OCI runtime and `nats-server` on PATH, a static busybox in /bin, and built
//! `boxyard-layer-store` and `boxyard-shim` beside the test's worker; `make test` sees to them.

use std::collections::{HashMap, VecDeque};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus::{Bus, Router, Target, calls};
use distribution::Store;
use futures::StreamExt as _;
use model::Digest;
use proto::build_log::What;
use tokio_util::sync::CancellationToken;

#[derive(Default)]
pub struct State {
    queue: VecDeque<proto::BuildLease>,
    images: HashMap<String, proto::Image>,
    steps: HashMap<String, proto::Image>,
    pub results: HashMap<String, proto::StepRecord>,
    /// By key; each has the version that its first store gave it, and one more for each later one.
    caches: HashMap<String, proto::CacheMount>,
    cancelled: Vec<String>,
    pub finished: HashMap<String, proto::BuildFinish>,
    /// Outputs of the graph builder, in the order in which they were made.
    pub exports: Vec<proto::BuildExport>,
    /// What went to the client of the session `s`.
    pub sent: Vec<proto::OutputSend>,
}

pub struct Farm {
    pub bus: Bus,
    pub store: Store,
    pub state: Arc<Mutex<State>>,
    pub folder: tempfile::TempDir,
    pub instance: String,
    children: Vec<Child>,
    worker_args: Vec<String>,
    builds: Mutex<u32>,
}

/// What a build printed and made.
#[derive(Debug, Default)]
pub struct Outcome {
    pub messages: Vec<String>,
    pub aux: Vec<String>,
    pub error: Option<(String, i32)>,
    /// Of the graph builder: each vertex as it was told last, in the order in which they were told first.
    pub vertices: Vec<proto::BuildVertex>,
    /// What the steps of the graph builder printed.
    pub lines: Vec<proto::BuildOutputLine>,
    pub image: Option<proto::Image>,
}

impl Outcome {
    pub fn text(&self) -> String {
        self.messages.concat()
    }

    pub fn config(&self) -> oci::ImageConfig {
        oci::ImageConfig::parse(&self.image.as_ref().expect("an image").config).expect("a config")
    }

    pub fn history(&self) -> Vec<String> {
        self.config().history.into_iter().map(|entry| entry.created_by).collect()
    }

    /// The vertex whose name holds this text.
    #[track_caller]
    pub fn vertex(&self, text: &str) -> &proto::BuildVertex {
        let found = self.vertices.iter().find(|vertex| vertex.name.contains(text));
        found.unwrap_or_else(|| panic!("no vertex {text:?} in {self:#?}"))
    }

    /// What the steps printed.
    pub fn printed(&self) -> String {
        self.lines.iter().map(|line| String::from_utf8_lossy(&line.text)).collect()
    }

    fn trace(&mut self, trace: proto::BuildTrace) {
        for vertex in trace.vertices {
            match self.vertices.iter_mut().find(|known| known.digest == vertex.digest) {
                Some(known) => *known = vertex,
                None => self.vertices.push(vertex),
            }
        }
        self.lines.extend(trace.lines);
    }

    #[track_caller]
    pub fn says(&self, text: &str) -> &Self {
        assert!(self.text().contains(text), "no {text:?} in {self:#?}");
        self
    }

    #[track_caller]
    pub fn built(self) -> Self {
        assert!(self.error.is_none() && self.image.is_some(), "{self:#?}");
        self
    }

    #[track_caller]
    pub fn fails(&self, message: &str) {
        let (error, _) = self.error.as_ref().unwrap_or_else(|| panic!("it was built: {self:#?}"));
        assert_eq!(error, message);
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::SIGTERM);
            let _ = child.wait();
        }
        let network = self.folder.path().join("machine/network");
        if network.exists() {
            let instance = self.instance.clone();
            let clean = async move {
                if let Ok(network) = network::Network::open(&instance, &network).await {
                    let _ = network.cleanup().await;
                }
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let _ = std::thread::spawn(move || runtime.block_on(clean)).join();
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

fn start(binary: &Path, args: &[String]) -> Child {
    Command::new(binary)
        .args(args)
        .stdout(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", binary.display()))
}

fn worker() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_boxyard-build-worker"))
}

impl Farm {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir_in("/var/tmp").expect("a folder on a disk");
        let at = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(at("token"), "secret").expect("written");
        let (nats_port, store_port) = (free_port(), free_port());
        let url = format!("nats://127.0.0.1:{nats_port}");
        let instance = hex::encode(rand::random::<[u8; 3]>());
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let common = format!("--nats-url {url} --token-file {}", at("token"));
        let store_url = format!("http://127.0.0.1:{store_port}");
        let worker_args = words(&format!(
            "{common} --nats-user worker-w --id w --slots 1 --store-url {store_url} --instance {instance} --data-dir {} --machine-dir {}",
            at("worker"),
            at("machine"),
        ));
        let layer_store = worker().with_file_name("boxyard-layer-store");
        let children = vec![
            start(
                Path::new("nats-server"),
                &words(&format!("-js -a 127.0.0.1 -p {nats_port} -sd {} -l {}", at("js"), at("nats.log"))),
            ),
            start(
                &layer_store,
                &words(&format!(
                    "{common} --nats-user store --listen 127.0.0.1:{store_port} --data-dir {}",
                    at("store")
                )),
            ),
            start(&worker(), &worker_args),
        ];
        let config = bus::Config { url, user: "gateway".to_owned(), password_file: None, name: "test".to_owned() };
        let bus = Bus::connect(&config).await.expect("connects");
        for _ in 0..200 {
            if bus.ensure_streams().await.is_ok()
                && bus.call::<calls::Usage>(&Target::Store, &proto::Empty {}).await.is_ok()
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let state = Arc::new(Mutex::new(State::default()));
        let (serving, router) = (bus.clone(), gateway(&state));
        tokio::spawn(async move { serving.serve(Target::Gateway, router, CancellationToken::new()).await });
        let (serving, router) = (bus.clone(), session(&state));
        let session = Target::GatewayAt("s".to_owned());
        tokio::spawn(async move { serving.serve(session, router, CancellationToken::new()).await });
        let store = Store::new(store_url, "secret");
        let farm = Self { bus, store, state, folder, instance, children, worker_args, builds: Mutex::new(0) };
        farm.add_busybox().await;
        farm
    }

    /// Kills the worker and starts it anew.
    pub fn restart_worker(&mut self) {
        let mut old = self.children.pop().expect("a worker");
        old.kill().expect("killed");
        old.wait().expect("gone");
        self.children.push(start(&worker(), &self.worker_args));
    }

    async fn add_busybox(&self) {
        let mut tar = tar::Builder::new(Vec::new());
        let entry = |kind: tar::EntryType, mode: u32, size: u64| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(size);
            header
        };
        for name in ["bin/", "etc/", "tmp/"] {
            tar.append_data(&mut entry(tar::EntryType::Directory, 0o755, 0), name, &b""[..]).expect("entry");
        }
        let busybox = std::fs::read("/bin/busybox").expect("a static busybox");
        let mut header = entry(tar::EntryType::Regular, 0o755, busybox.len() as u64);
        tar.append_data(&mut header, "bin/busybox", busybox.as_slice()).expect("entry");
        for name in [
            "sh", "[", "ls", "cat", "echo", "true", "false", "id", "mkdir", "touch", "sleep", "env", "stat", "rm", "ln",
        ] {
            let mut header = entry(tar::EntryType::Symlink, 0o777, 0);
            tar.append_link(&mut header, format!("bin/{name}"), "busybox").expect("entry");
        }
        for (name, text) in [
            ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n"),
            ("etc/group", "root:x:0:\napp:x:1001:\n"),
        ] {
            let mut header = entry(tar::EntryType::Regular, 0o644, text.len() as u64);
            tar.append_data(&mut header, name, text.as_bytes()).expect("entry");
        }
        let layer = tar.into_inner().expect("a tar");
        let digest = self.store.put_bytes(&layer, None).await.expect("stored");
        let config = oci::ImageConfig {
            architecture: "amd64".into(),
            os: "linux".into(),
            config: oci::ContainerConfig {
                env: vec!["PATH=/bin".into()],
                cmd: Some(vec!["sh".into()]),
                ..oci::ContainerConfig::default()
            },
            rootfs: oci::RootFs { diff_ids: vec![model::DiffId::new(digest.clone())], ..oci::RootFs::default() },
            history: vec![oci::History::default()],
            ..oci::ImageConfig::default()
        }
        .to_bytes();
        let blob =
            proto::Descriptor { media_type: String::new(), digest: digest.to_string(), size: layer.len() as u64 };
        let layer = proto::Layer { diff_id: digest.to_string(), blob: Some(blob), content_bytes: busybox.len() as u64 };
        self.add_image(
            "busybox",
            proto::Image { id: Digest::of(&config).to_string(), config, layers: vec![layer], ..Default::default() },
        );
    }

    pub fn add_image(&self, name: &str, image: proto::Image) {
        self.state.lock().expect("state").images.insert(name.to_owned(), image);
    }

    /// Builds with a context of these files, the first of which is the Dockerfile.
    pub async fn build(&self, dockerfile: &str, files: &[(&str, &str)]) -> Outcome {
        self.build_with(dockerfile, files, proto::BuildOptions::default()).await
    }

    pub async fn build_with(&self, dockerfile: &str, files: &[(&str, &str)], options: proto::BuildOptions) -> Outcome {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, text) in [("Dockerfile", dockerfile)].iter().chain(files) {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, text.as_bytes()).expect("entry");
        }
        self.build_tar(&tar.into_inner().expect("a tar"), options).await
    }

    pub async fn build_tar(&self, context: &[u8], options: proto::BuildOptions) -> Outcome {
        let id = self.enqueue(context, options).await;
        self.follow(&id).await
    }

    /// Puts a build into the queue; gives its id.
    pub async fn enqueue(&self, context: &[u8], mut options: proto::BuildOptions) -> String {
        let digest = self.store.put_bytes(context, None).await.expect("stored");
        options.context = Some(proto::Descriptor {
            media_type: String::new(),
            digest: digest.to_string(),
            size: context.len() as u64,
        });
        options.remove = true;
        let id = {
            let mut builds = self.builds.lock().expect("count");
            *builds += 1;
            format!("build{builds}")
        };
        let lease = proto::BuildLease {
            build_id: id.clone(),
            attempt: 1,
            options: Some(options),
            ttl_seconds: 15,
            likely_keys: Vec::new(),
        };
        self.state.lock().expect("state").queue.push_back(lease);
        id
    }

    /// Waits for the end of a build.
    pub async fn follow(&self, id: &str) -> Outcome {
        let mut outcome = Outcome::default();
        let mut log = self.bus.build_log(id).await.expect("a log");
        let next = async {
            while let Some(chunk) = log.next().await {
                let chunk = chunk.and_then(|written| written.chunk).expect("a chunk");
                match chunk.what.expect("something") {
                    What::Stream(text) => outcome.messages.push(text),
                    What::AuxId(id) => outcome.aux.push(id),
                    What::Error(message) => {
                        outcome.error = Some((message, chunk.error_code));
                        return;
                    }
                    What::End(_) => return,
                    What::StatusJson(_) => {}
                    What::Trace(trace) => outcome.trace(trace),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), next).await.expect("an end within a minute");
        let state = self.state.lock().expect("state");
        let finish = state.finished.get(id).expect("finished").clone();
        outcome.image =
            state.steps.values().chain(state.images.values()).find(|image| image.id == finish.image_id).cloned();
        outcome
    }

    /// Waits for a message of a build.
    pub async fn wait_for(&self, id: &str, text: &str) {
        let mut log = self.bus.build_log(id).await.expect("a log");
        let wait = async {
            while let Some(chunk) = log.next().await {
                let chunk = chunk.and_then(|written| written.chunk).expect("a chunk");
                if matches!(chunk.what, Some(What::Stream(said)) if said == text) {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect("the message within 30 s");
    }

    pub async fn cancel(&self, id: &str) {
        self.state.lock().expect("state").cancelled.push(id.to_owned());
        let request = proto::BuildCancel { build_id: id.to_owned() };
        self.bus.call::<calls::BuildCancel>(&Target::Worker("w".to_owned()), &request).await.expect("answered");
    }

    /// Mount points that are left of builds.
    pub fn mounts(&self) -> Vec<String> {
        let folder = self.folder.path().join("worker").display().to_string();
        let table = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        table.lines().filter(|line| line.contains(&folder)).map(str::to_owned).collect()
    }
}

/// The gateway of the session `s`, whose client takes whatever is sent.
fn session(state: &Arc<Mutex<State>>) -> Router {
    let state = state.clone();
    Router::new()
        .on::<calls::SecretGet, _, _>(|request: proto::SecretGet| async move {
            let found = request.id == "token";
            Ok(proto::SecretGetReply { found, value: if found { b"s3cret".to_vec() } else { Vec::new() } })
        })
        .on::<calls::OutputSend, _, _>(move |request| {
            state.lock().expect("state").sent.push(request);
            async { Ok(proto::Empty {}) }
        })
}

fn gateway(state: &Arc<Mutex<State>>) -> Router {
    let with = || state.clone();
    let (next, resolve, look, result, finish, renew) = (with(), with(), with(), with(), with(), with());
    let (find, put, export, import) = (with(), with(), with(), with());
    let (cache, cache_put) = (with(), with());
    Router::new()
        .on::<calls::BuildNext, _, _>(move |_| {
            let state = next.clone();
            async move {
                for _ in 0..100 {
                    if let Some(lease) = state.lock().expect("state").queue.pop_front() {
                        return Ok(lease);
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Ok(proto::BuildLease::default())
            }
        })
        .on::<calls::ImageResolve, _, _>(move |request| {
            let found = resolve.lock().expect("state").images.get(&request.reference).cloned();
            async move { found.ok_or_else(|| bus::Error::not_found(format!("No such image: {}", request.reference))) }
        })
        .on::<calls::StepLookup, _, _>(move |request| {
            let found = look.lock().expect("state").steps.get(&request.key).cloned().unwrap_or_default();
            async move { Ok(found) }
        })
        .on::<calls::StepResult, _, _>(move |request| {
            let image = request.image.expect("an image");
            result.lock().expect("state").steps.insert(request.key, image);
            async { Ok(proto::Empty {}) }
        })
        .on::<calls::CacheImport, _, _>(move |request| {
            // The registry's cache is the one that was exported last.
            let state = import.lock().expect("state");
            let cache = state.exports.iter().rev().find(|export| export.cache);
            let image = cache.and_then(|cache| cache.images[0].image.clone());
            async move {
                let image = image.ok_or_else(|| bus::Error::not_found("no such cache"))?;
                let config = proto::Descriptor { digest: image.id, ..proto::Descriptor::default() };
                let wanted = request.diff_ids.iter();
                let layers =
                    wanted.filter_map(|id| image.layers.iter().find(|layer| layer.diff_id == *id)).cloned().collect();
                Ok(proto::CacheFetchReply { config: Some(config), layers })
            }
        })
        .on::<calls::BuildExport, _, _>(move |request| {
            if request.cache {
                export.lock().expect("state").exports.push(request);
                return std::future::ready(Ok(proto::BuildExportReply::default()));
            }
            let image = request.images[0].image.clone().expect("an image");
            let response = HashMap::from([("containerimage.config.digest".to_owned(), image.id.clone())]);
            let mut state = export.lock().expect("state");
            state.steps.insert(image.id.clone(), image);
            state.exports.push(request);
            std::future::ready(Ok(proto::BuildExportReply { archive: None, response }))
        })
        .on::<calls::ResultLookup, _, _>(move |request| {
            let known = &find.lock().expect("state").results;
            let records = request.keys.iter().filter_map(|key| known.get(key).cloned()).collect();
            async move { Ok(proto::ResultLookupReply { records }) }
        })
        .on::<calls::ResultPut, _, _>(move |request| {
            let record = request.record.expect("a record");
            put.lock().expect("state").results.insert(record.key.clone(), record);
            async { Ok(proto::Empty {}) }
        })
        .on::<calls::CacheMountGet, _, _>(move |request| {
            let known = cache.lock().expect("state").caches.get(&request.key).cloned();
            async move { Ok(known.unwrap_or_default()) }
        })
        .on::<calls::CacheMountPut, _, _>(move |request| {
            let mount = request.mount.expect("a mount");
            let mut state = cache_put.lock().expect("state");
            let now = state.caches.entry(mount.key.clone()).or_default();
            let stored = now.version == request.replaces;
            if stored {
                *now = proto::CacheMount { version: request.replaces + 1, ..mount };
            }
            let reply = proto::CacheMountPutReply { stored, mount: Some(now.clone()) };
            async move { Ok(reply) }
        })
        .on::<calls::BuildFinish, _, _>(move |request| {
            let tagged = vec!["made:latest".to_owned()];
            finish.lock().expect("state").finished.insert(request.build_id.clone(), request);
            async { Ok(proto::BuildFinishReply { tagged }) }
        })
        .on::<calls::BuildRenew, _, _>(move |request| {
            let cancelled = renew.lock().expect("state").cancelled.contains(&request.build_id);
            async move { Ok(proto::BuildRenewReply { cancelled }) }
        })
}
