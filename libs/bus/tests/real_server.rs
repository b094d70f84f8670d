//! The bus against a real nats-server with JetStream: every promise of a call, an event and a log.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bus::{Bus, Config, Error, Happened, Router, Target, calls};
use futures::StreamExt as _;
use model::ErrorKind;
use tokio_util::sync::CancellationToken;

struct Server {
    child: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("bound").port();
        drop(free);
        let child = Command::new("nats-server")
            .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"])
            .arg(folder.path())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server is on PATH; make setup brings it");
        Self { child, url: format!("nats://127.0.0.1:{port}"), _folder: folder }
    }

    async fn bus(&self, user: &str) -> Bus {
        let config = Config { url: self.url.clone(), user: user.into(), password_file: None, name: user.into() };
        let bus = Bus::connect(&config).await.expect("connects in the background");
        while bus.ensure_streams().await.is_err() {
            tokio::task::yield_now().await;
        }
        bus
    }
}

/// Serves `router` as the layer store and returns when the subscription is there.
async fn serve_store(bus: &Bus, router: Router) -> CancellationToken {
    let cancel = CancellationToken::new();
    let (server, stop) = (bus.clone(), cancel.clone());
    let router = router.on::<calls::LeaseRenew, _, _>(|_| async { Ok(proto::Empty {}) });
    tokio::spawn(async move { server.serve(Target::Store, router, stop).await });
    while bus.call::<calls::LeaseRenew>(&Target::Store, &proto::LeaseRenew::default()).await.is_err() {
        tokio::task::yield_now().await;
    }
    cancel
}

#[tokio::test]
async fn a_call_brings_the_reply_the_error_or_that_nobody_serves() {
    let server = Server::start();
    let bus = server.bus("one").await;
    let absent = bus.call::<calls::Usage>(&Target::Store, &proto::Empty {}).await.expect_err("nobody serves");
    assert_eq!(absent.kind(), ErrorKind::Unavailable);
    assert_eq!(absent.message(), "no layer store is running");
    assert!(absent.is_lost());

    let router = Router::new()
        .on::<calls::Usage, _, _>(|_| async { Ok(proto::StoreUsage { blob_count: 7, ..Default::default() }) })
        .on::<calls::LeaseEnd, _, _>(|lease: proto::Lease| async move {
            Err::<proto::Empty, _>(Error::not_found(format!("no such lease: {}", lease.id)))
        })
        .on::<calls::LeaseCreate, _, _>(|_| async { panic!("on purpose") });
    serve_store(&bus, router).await;

    let usage = bus.call::<calls::Usage>(&Target::Store, &proto::Empty {}).await.expect("answered");
    assert_eq!(usage.blob_count, 7);
    let refused =
        bus.call::<calls::LeaseEnd>(&Target::Store, &proto::Lease { id: "x".into() }).await.expect_err("refused");
    assert_eq!((refused.kind(), refused.message()), (ErrorKind::NotFound, "no such lease: x"));
    let unknown = bus.call::<calls::BlobsRelease>(&Target::Store, &Default::default()).await.expect_err("not served");
    assert_eq!(unknown.kind(), ErrorKind::Unimplemented);
    let panicked = bus.call::<calls::LeaseCreate>(&Target::Store, &Default::default()).await.expect_err("panicked");
    assert_eq!(panicked.kind(), ErrorKind::Internal);
}

#[tokio::test]
async fn a_slow_call_is_kept_alive_by_heartbeats_and_shows_progress() {
    let server = Server::start();
    let bus = server.bus("two").await;
    let cancel = CancellationToken::new();
    let (other, stop) = (bus.clone(), cancel.clone());
    let router = Router::new().on_progress::<calls::SyncLoad, _, _>(|_, progress| async move {
        progress.send(&proto::Progress { status: "Loading layer".into(), ..Default::default() }).await;
        // Longer than the silence that a caller bears.
        tokio::time::sleep(std::time::Duration::from_secs(7)).await;
        Ok(proto::LoadReply::default())
    });
    tokio::spawn(async move { other.serve(Target::Sync, router, stop).await });
    let (sender, mut steps) = tokio::sync::mpsc::channel(8);
    let load = proto::Load::default();
    loop {
        match bus.call_with_progress::<calls::SyncLoad>(&Target::Sync, &load, sender.clone()).await {
            Err(error) if error.message().starts_with("no ") => tokio::task::yield_now().await,
            outcome => break outcome.map(drop).expect("heartbeats keep the call"),
        }
    }
    assert_eq!(steps.recv().await.expect("a step").status, "Loading layer");
    cancel.cancel();
}

#[tokio::test]
async fn events_are_replayed_from_a_position_and_logs_from_their_first_chunk() {
    let server = Server::start();
    let bus = server.bus("three").await;
    for seq in 1..=3 {
        let event = proto::NodeEvent { node_id: "n".into(), seq, ..Default::default() };
        bus.publish_event(&event).await.expect("stored");
    }
    let mut events = bus.events(2).await.expect("a consumer");
    let told = proto::GatewayEvent { gateway: "g".into(), number: 7, ..Default::default() };
    bus.publish_gateway_event(&told).await.expect("stored");
    let mut heard = Vec::new();
    for _ in 0..3 {
        heard.push(match events.next().await.expect("one").expect("whole") {
            (position, Happened::OnNode(event)) => (position, event.node_id, event.seq),
            (position, Happened::AtGateway(event)) => (position, event.gateway, event.number),
        });
    }
    assert_eq!(heard, [(2, "n".to_owned(), 2), (3, "n".to_owned(), 3), (4, "g".to_owned(), 7)]);

    for number in 0..3 {
        bus.publish_build_log("b1", &proto::BuildLog { number, ..Default::default() }).await.expect("sent");
    }
    let mut log = bus.build_log("b1").await.expect("a consumer");
    for number in 0..3 {
        let written = log.next().await.expect("one").expect("whole");
        assert_eq!((written.user.as_str(), written.chunk.expect("a chunk").number), ("three", number));
    }
    bus.clear_build_log("b1").await.expect("cleared");
    bus.publish_build_log("b1", &proto::BuildLog { number: 9, ..Default::default() }).await.expect("sent");
    let mut log = bus.build_log("b1").await.expect("a consumer");
    let written = log.next().await.expect("one").expect("whole");
    assert_eq!(written.chunk.expect("a chunk").number, 9, "the log of a later build of that id");
}

#[tokio::test]
async fn a_process_is_alive_while_it_says_so() {
    let server = Server::start();
    let bus = server.bus("four").await;
    let cancel = CancellationToken::new();
    let alive = proto::Alive { kind: "node".into(), id: "n1".into(), ..Default::default() };
    let counter = Arc::new(AtomicU32::new(0));
    let (speaker, stop, count) = (bus.clone(), cancel.clone(), counter.clone());
    let speaking = tokio::spawn(async move {
        count.fetch_add(1, Ordering::SeqCst);
        speaker.keep_alive(alive, stop).await;
    });
    let found = loop {
        let found = bus.alive().await.expect("the bucket answers");
        if !found.is_empty() {
            break found;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(found[0].id, "n1");
    cancel.cancel();
    speaking.await.expect("ends on cancel");
    assert_eq!(counter.load(Ordering::SeqCst), 1);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !bus.alive().await.expect("the bucket answers").is_empty() {
        assert!(std::time::Instant::now() < deadline, "the sign of life outlived its time");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn a_handler_ends_when_the_caller_that_wanted_it_has_gone() {
    let server = Server::start();
    let bus = server.bus("one").await;
    let (running, ended) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    struct Ends(Arc<AtomicU32>);
    impl Drop for Ends {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    // Two of one group: only one of them has the call, and the caller does not know which.
    for _ in 0..2 {
        let (running, ended) = (running.clone(), ended.clone());
        let router = Router::new().on_while_wanted::<calls::Usage, _, _>(move |_, _| {
            running.fetch_add(1, Ordering::SeqCst);
            let ends = Ends(ended.clone());
            async move {
                std::future::pending::<()>().await;
                drop(ends);
                Ok(proto::StoreUsage::default())
            }
        });
        serve_store(&bus, router).await;
    }
    let call = tokio::spawn({
        let bus = bus.clone();
        async move { bus.call_while_wanted::<calls::Usage>(&Target::Store, &proto::Empty {}, None).await }
    });
    while running.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ended.load(Ordering::SeqCst), 0);
    call.abort();
    while ended.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((running.load(Ordering::SeqCst), ended.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn a_claim_is_one_workers_until_it_ends_or_runs_out() {
    let server = Server::start();
    let bus = server.bus("one").await;
    let claim =
        |id: &str, ended| proto::StepClaim { id: id.into(), worker_id: "w".into(), ended, ..Default::default() };
    let (mine, other) = (claim("mine", false), claim("other", false));
    assert_eq!(bus.claimed("a").await.expect("read"), bus::Claimed::default());
    let first = bus.claim("a", &mine, 0).await.expect("written").expect("nobody was first");
    assert_eq!(bus.claim("a", &other, 0).await.expect("asked"), None, "it is claimed");
    let held = bus::Claimed { claim: Some(mine.clone()), revision: first };
    assert_eq!(bus.claimed("a").await.expect("read"), held);
    let renewed = bus.claim("a", &mine, first).await.expect("written").expect("renewed");
    assert_eq!(bus.claim("a", &mine, first).await.expect("asked"), None, "that was the revision before");

    // One that is taken over after its end, and one that is renewed, run out as a new one does.
    let second = bus.claim("b", &mine, 0).await.expect("written").expect("nobody was first");
    let over = bus.claim("b", &claim("mine", true), second).await.expect("written").expect("ended");
    let taken = bus.claim("b", &other, over).await.expect("written").expect("taken over");
    let began = std::time::Instant::now();
    for (key, newest) in [("a", renewed), ("b", taken)] {
        let void = loop {
            let found = bus.claimed(key).await.expect("read");
            if found.claim.is_none() {
                break found;
            }
            assert!(began.elapsed() < bus::CLAIM_TTL * 6, "{key} does not run out");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        };
        assert!(began.elapsed() > bus::CLAIM_TTL / 2 && void.revision > newest, "{void:?}");
        assert!(bus.claim(key, &other, void.revision).await.expect("written").is_some(), "it may be claimed again");
    }
}
