//! A registry-sync between a NATS and a layer store of its own, and what images are made of.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bus::{Bus, Target, calls};
use model::Digest;
use streams::Tickets;
use tokio_util::sync::CancellationToken;

pub struct Engine {
    pub bus: Bus,
    pub tickets: Arc<Tickets>,
    pub store: distribution::Store,
    pub lease: String,
    /// The registry-sync is the last one.
    children: Vec<Child>,
    sync: (PathBuf, Vec<String>),
    _folder: tempfile::TempDir,
}

impl Drop for Engine {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

pub fn start(binary: &Path, args: &[String]) -> Child {
    Command::new(binary)
        .args(args)
        .stdout(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| panic!("{}: {e}", binary.display()))
}

impl Engine {
    pub async fn start() -> Self {
        let sync = PathBuf::from(env!("CARGO_BIN_EXE_boxyard-registry-sync"));
        let store = sync.with_file_name("boxyard-layer-store");
        let nats = PathBuf::from("nats-server");
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(at("token"), "secret").expect("written");
        let (nats_port, store_port) = (free_port(), free_port());
        let url = format!("nats://127.0.0.1:{nats_port}");
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let common = format!("--nats-url {url} --token-file {}", at("token"));
        let sync_args = words(&format!("{common} --nats-user sync --store-url http://127.0.0.1:{store_port}"));
        let children = vec![
            start(&nats, &words(&format!("-js -a 127.0.0.1 -p {nats_port} -sd {} -l {}", at("js"), at("nats.log")))),
            start(
                &store,
                &words(&format!(
                    "{common} --nats-user store --listen 127.0.0.1:{store_port} --data-dir {}",
                    at("store")
                )),
            ),
            start(&sync, &sync_args),
        ];
        let config = bus::Config { url, user: "gateway".to_owned(), password_file: None, name: "test".to_owned() };
        let bus = Bus::connect(&config).await.expect("connects");
        answer_as_gateway(&bus);
        let tickets = Tickets::listen(&format!("unix:{}", at("streams.sock"))).await.expect("listens");
        let request = proto::LeaseCreate { owner: "test".to_owned(), ttl_seconds: 600 };
        let mut lease = None;
        for _ in 0..200 {
            match bus.call::<calls::LeaseCreate>(&Target::Store, &request).await {
                Ok(made) => {
                    lease = Some(made.id);
                    break;
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        let sync = (sync, sync_args);
        let store = distribution::Store::new(format!("http://127.0.0.1:{store_port}"), "secret");
        Self { bus, tickets, store, lease: lease.expect("the store answers"), children, sync, _folder: folder }
    }

    /// Ends the registry-sync as a crash does, and starts another.
    pub fn replace_sync(&mut self) {
        let mut old = self.children.pop().expect("it runs");
        old.kill().expect("killed");
        old.wait().expect("it has ended");
        self.children.push(start(&self.sync.0, &self.sync.1));
    }
}

/// A gateway whose database is empty.
fn answer_as_gateway(bus: &Bus) {
    let router = bus::Router::new()
        .on::<calls::LayersLookup, _, _>(|_| async { Ok(proto::LayersLookupReply::default()) })
        .on::<calls::BlobsInUse, _, _>(|_| async { Ok(proto::BlobsInUseReply::default()) });
    let bus = bus.clone();
    tokio::spawn(async move { bus.serve(Target::Gateway, router, CancellationToken::new()).await });
}

pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, *content).expect("in memory");
    }
    builder.into_inner().expect("in memory")
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

pub fn config_of(diff_ids: &[&Digest]) -> Vec<u8> {
    serde_json::to_vec(&serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }))
    .expect("JSON")
}
