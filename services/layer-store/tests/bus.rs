//! The whole process on a real NATS server: leases and the release of blobs.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use bus::{Bus, Error, Router, Target, calls};
use distribution::Store;
use model::ErrorKind;
use tokio_util::sync::CancellationToken;

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Running {
    _nats: Process,
    _layer_store: Process,
    _data: tempfile::TempDir,
    bus: Bus,
    store: Store,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}

async fn start() -> Running {
    let data = tempfile::tempdir().expect("a folder");
    let (nats_port, http_port) = (free_port(), free_port());
    let nats = Command::new("nats-server")
        .args(["-a", "127.0.0.1", "-p", &nats_port.to_string()])
        .stderr(Stdio::null())
        .spawn()
        .expect("nats-server is on the PATH");
    let nats = Process(nats);
    let nats_url = format!("nats://127.0.0.1:{nats_port}");
    let token = data.path().join("token");
    std::fs::write(&token, "secret\n").expect("writes");
    let mut layer_store = Command::new(env!("CARGO_BIN_EXE_boxyard-layer-store"))
        .args(["--nats-url", &nats_url, "--nats-user", "store", "--free-space-floor-bytes", "0"])
        .args(["--listen", &format!("127.0.0.1:{http_port}")])
        .arg("--data-dir")
        .arg(data.path().join("store"))
        .arg("--token-file")
        .arg(token)
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let out = layer_store.stdout.take().expect("is piped");
    let layer_store = Process(layer_store);
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line).expect("reads");
    assert_eq!(line, "ready\n");
    let config =
        bus::Config { url: nats_url, user: "gateway".to_owned(), password_file: None, name: "test".to_owned() };
    let bus = Bus::connect(&config).await.expect("connects");
    let store = Store::new(format!("http://127.0.0.1:{http_port}"), "secret");
    Running { _nats: nats, _layer_store: layer_store, _data: data, bus, store }
}

impl Running {
    /// Answers as a gateway that names `in_use`.
    fn be_gateway(&self, in_use: HashSet<String>) {
        let router = Router::new().on::<calls::BlobsInUse, _, _>(move |request| {
            let digests = request.digests.into_iter().filter(|digest| in_use.contains(digest)).collect();
            async move { Ok(proto::BlobsInUseReply { digests }) }
        });
        let bus = self.bus.clone();
        tokio::spawn(async move { bus.serve(Target::Gateway, router, CancellationToken::new()).await });
    }

    async fn release(&self, digests: &[&str]) -> Result<proto::BlobsReleaseReply, Error> {
        let request = proto::BlobsRelease { digests: digests.iter().map(|digest| (*digest).to_owned()).collect() };
        self.bus.call::<calls::BlobsRelease>(&Target::Store, &request).await
    }
}

/// Repeats a call until its server has subscribed.
async fn once_served<T>(call: impl AsyncFn() -> Result<T, Error>) -> T {
    for _ in 0..200 {
        match call().await {
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            outcome => return outcome.expect("answers"),
        }
    }
    panic!("nobody answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_blobs_that_nobody_names_are_released() {
    let running = start().await;
    let (bus, store) = (&running.bus, &running.store);
    let create = proto::LeaseCreate { owner: "test".to_owned(), ttl_seconds: 60 };
    let lease = once_served(|| bus.call::<calls::LeaseCreate>(&Target::Store, &create)).await;
    let leased = store.put_bytes(b"leased", Some(&lease.id)).await.expect("stores");
    let named = store.put_bytes(b"named", None).await.expect("stores");
    let free = store.put_bytes(b"free", None).await.expect("stores");
    let all = [leased.as_str(), named.as_str(), free.as_str()];

    let error = running.release(&all).await.expect_err("without a gateway nothing goes");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(store.has(&free, None).await.expect("answers"), Some(4));

    running.be_gateway(HashSet::from([named.to_string()]));
    let reply = once_served(|| running.release(&all)).await;
    assert_eq!(reply, proto::BlobsReleaseReply { freed_bytes: 4, kept: vec![leased.to_string(), named.to_string()] });
    assert_eq!(store.has(&free, None).await.expect("answers"), None);

    bus.call::<calls::LeaseEnd>(&Target::Store, &lease).await.expect("ends");
    let renew = proto::LeaseRenew { id: lease.id.clone(), ttl_seconds: 60 };
    let error = bus.call::<calls::LeaseRenew>(&Target::Store, &renew).await.expect_err("the lease is over");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    for look in 0.. {
        if store.has(&leased, None).await.expect("answers").is_none() {
            break;
        }
        assert!(look < 200, "what only a lease kept goes with it");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let usage = bus.call::<calls::Usage>(&Target::Store, &proto::Empty {}).await.expect("answers");
    assert_eq!((usage.blob_count, usage.blob_bytes), (1, 5));
    let error = running.release(&["sha256:../../x"]).await.expect_err("is no digest");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}
