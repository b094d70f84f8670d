use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use bus::{Bus, Router, Target, calls};
use distribution::Store;
use prost::Message as _;
use snapshots::Snapshots;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::caches::Caches;
use crate::claims::Claims;
use crate::config::Config;
use crate::context::kept::Kept;
use crate::context::trees::Trees;
use crate::flight::{Ended, Flight};
use crate::garbage::{self, Keeper};
use crate::graph;
use crate::handover::{self, Handover};
use crate::lifeline::Renewals;
use crate::limits::Groups;
use crate::machine::{self, Machine};
use crate::neighbours::Neighbours;
use crate::network::Networks;
use crate::platforms;
use crate::session::{self, Session};
use crate::slots::Slots;
use crate::storage;

/// How long the gateway may hold a question for a build. Shorter than a lease: the question of a worker that was killed
/// must have ended before the build that it had is given out again, or it would be given to nobody.
const WAIT_SECONDS: u32 = 5;
/// After a failed question.
const PAUSE: Duration = Duration::from_millis(500);

/// What every build of this worker shares.
#[derive(Clone)]
pub struct Worker {
    pub bus: Bus,
    pub store: Store,
    pub snapshots: Snapshots,
    pub machine: Machine,
    pub contexts: Arc<Kept>,
    pub trees: Arc<Trees>,
    pub caches: Arc<Caches>,
    pub claims: Arc<Claims>,
    pub id: String,
    pub slots: Slots,
    /// What may be kept there, and by this worker.
    pub cap_bytes: u64,
    /// Told when this worker keeps more than before.
    grown: Arc<Notify>,
    running: Arc<Mutex<HashMap<String, CancellationToken>>>,
}

/// Takes builds until `stop`; builds in progress then end without a result, and another worker gets them.
pub async fn serve(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let worker = Worker::start(&config).await?;
    let platforms = platforms::supported();
    let info = proto::WorkerInfo {
        id: config.id.clone(),
        name: config.id.clone(),
        version: service::VERSION.to_owned(),
        node_id: config.machine.instance.clone(),
        slots: worker.slots.total(),
        platform: platforms[0].to_string(),
        labels: config.labels.iter().cloned().collect(),
        platforms: platforms.iter().map(ToString::to_string).collect(),
        busy: 0,
    };
    tokio::spawn(worker.clone().keep_alive(info.clone(), stop.clone()));
    let (bus, router, ending) = (worker.bus.clone(), worker.router(&stop), stop.clone());
    let target = Target::Worker(config.id.clone());
    tokio::spawn(async move {
        if let Err(error) = bus.serve(target, router, ending).await {
            tracing::error!(%error, "calls are no longer answered");
        }
    });
    let keeper = Keeper {
        snapshots: worker.snapshots.clone(),
        trees: worker.trees.clone(),
        contexts: worker.contexts.clone(),
        caches: worker.caches.clone(),
        grown: worker.grown.clone(),
        cap_bytes: worker.cap_bytes,
        machine_dir: config.machine.machine_dir.clone(),
        neighbours: Neighbours::open(&config.machine.machine_dir, &config.id, &config.data_dir)?,
    };
    tokio::spawn(keeper.hold(stop.clone()));
    service::announce_ready();
    worker.take_builds(info, &stop).await;
    worker.caches.settle().await;
    if config.machine.stops_for_good() {
        // A machine's node does this where there is one.
        let has_node = config.machine.machine_dir.join(handover::NODE_ID_FILE).exists();
        if !has_node && let Err(error) = worker.machine.networks.take_down().await {
            tracing::warn!(%error, "the network could not be taken down");
        }
        // Whoever ends last leaves nothing.
        runtime::cgroup::remove_all(&config.machine.instance);
    }
    Ok(())
}

impl Worker {
    async fn start(config: &Config) -> anyhow::Result<Self> {
        let bus = Bus::connect(&bus::Config {
            url: config.bus.nats_url.clone(),
            user: config.bus.nats_user.clone(),
            password_file: config.bus.nats_password_file.clone(),
            name: format!("build-worker-{}", config.id),
        })
        .await?;
        let token = config.store.token()?;
        let snapshots = Snapshots::open(config.machine.machine_dir.join("snapshots"))?;
        let builds = config.data_dir.join("b");
        let networks = Networks::new(&config.machine.instance, config.machine.machine_dir.join("network"));
        let handover = Handover::new(config.machine.machine_dir.clone());
        machine::sweep(&builds, &snapshots, &networks, &handover).await?;
        let machine = Machine {
            runtime_binary: config.machine.runtime_binary().context("neither crun nor runc is on PATH")?,
            shim_binary: config.machine.shim_binary(),
            runtime_root: config.data_dir.join("oci"),
            builds: builds.canonicalize()?,
            networks,
            handover,
            groups: Groups::new(&config.machine.instance, &config.id),
        };
        let grown = Arc::<Notify>::default();
        let contexts = Arc::new(Kept::open(config.data_dir.join("contexts"), grown.clone())?);
        let store = Store::new(config.store.store_url.clone(), token);
        let claims = Claims::new(bus.clone(), &config.id);
        let (id, slots, running) = (config.id.clone(), Slots::new(config.slots), Arc::default());
        let trees = Arc::new(Trees::open(config.data_dir.join("trees"), store.clone(), grown.clone())?);
        let caches = Caches::open(config.data_dir.join("cache"), bus.clone(), store.clone(), grown.clone())?;
        let cap_bytes = garbage::cap_bytes(config.cache_bytes, &config.machine.machine_dir);
        Ok(Self {
            bus,
            store,
            snapshots,
            machine,
            contexts,
            trees,
            caches,
            claims,
            id,
            slots,
            cap_bytes,
            grown,
            running,
        })
    }

    fn router(&self, stop: &CancellationToken) -> Router {
        let (running, claims) = (self.running.clone(), self.claims.clone());
        let router = Router::new().on_while_wanted::<calls::StepFollow, _, _>(move |request, progress| {
            let flight = claims.flight(&request.claim_id);
            async move {
                let flight = flight.ok_or_else(|| bus::Error::not_found("the step does not run here"))?;
                Ok(follow(flight, progress).await)
            }
        });
        let (helping, stop) = (self.clone(), stop.clone());
        let router = router.on_while_wanted::<calls::StepRun, _, _>(move |request, progress| {
            graph::serve::run_step(helping.clone(), request, progress, stop.clone())
        });
        let (storing, forgetting) = (self.clone(), self.caches.clone());
        let router = router
            .on::<calls::WorkerStorage, _, _>(move |ask| {
                let worker = storing.clone();
                async move {
                    let storage = storage::of(&worker, ask).await;
                    storage.map_err(|error| bus::Error::internal(crate::failure::chain(&error)))
                }
            })
            .on::<calls::CachesForget, _, _>(move |request| {
                let caches = forgetting.clone();
                async move {
                    let forgotten = tokio::task::spawn_blocking(move || caches.forget(&request.keys)).await;
                    forgotten.map_err(|error| bus::Error::internal(error.to_string()))?;
                    Ok(proto::Empty {})
                }
            });
        router.on::<calls::BuildCancel, _, _>(move |request| {
            let found = running.lock().expect("no holder panics").get(&request.build_id).cloned();
            if let Some(cancel) = found {
                cancel.cancel();
            }
            async { Ok(proto::Empty {}) }
        })
    }

    /// Gives a sign of life until `stop`, at once when there is more or less to do.
    async fn keep_alive(self, mut info: proto::WorkerInfo, stop: CancellationToken) {
        let (sender, news) = watch::channel(info.encode_to_vec());
        let alive = bus::sign_of_life("build-worker", &self.id, info.encode_to_vec());
        let telling = self.bus.keep_alive_with(alive, news, stop);
        let mut busy = self.slots.watch();
        let watching = async {
            while busy.changed().await.is_ok() {
                busy.borrow_and_update();
                info.busy = self.slots.busy();
                sender.send_replace(info.encode_to_vec());
            }
        };
        tokio::select! {
            () = telling => {}
            () = watching => {}
        }
    }

    async fn take_builds(&self, mut info: proto::WorkerInfo, stop: &CancellationToken) {
        let builds = TaskTracker::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.slots.free() => {}
            }
            info.busy = self.slots.busy();
            let ask = proto::BuildNext { worker: Some(info.clone()), wait_seconds: WAIT_SECONDS };
            let lease = tokio::select! {
                () = stop.cancelled() => break,
                lease = self.bus.call::<calls::BuildNext>(&Target::Gateway, &ask) => lease,
            };
            match lease {
                Ok(lease) if lease.build_id.is_empty() => {}
                Ok(lease) => {
                    // Also where a step of another's build has taken the last one meanwhile.
                    let slot = self.slots.take();
                    let (worker, stop) = (self.clone(), stop.clone());
                    builds.spawn(async move {
                        worker.build(lease, stop).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "no build could be asked for");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        builds.close();
        builds.wait().await;
    }

    async fn build(&self, lease: proto::BuildLease, stop: CancellationToken) {
        let cancel = CancellationToken::new();
        let id = lease.build_id.clone();
        self.running.lock().expect("no holder panics").insert(id.clone(), cancel.clone());
        tracing::info!(build_id = %id, attempt = lease.attempt, "build began");
        let renewals = Renewals::new(session::ttl(&lease));
        let session = Session { worker: self.clone(), lease, renewals, cancel, stop };
        let outcome = session.run().await;
        self.running.lock().expect("no holder panics").remove(&id);
        tracing::info!(build_id = %id, outcome, "build ended");
    }
}

/// Tells a caller what a step prints and how it ends.
async fn follow(flight: Arc<Flight>, progress: bus::ProgressSender) -> proto::StepFollowReply {
    let mut follower = flight.follow();
    loop {
        let (lines, ended) = follower.next().await;
        for line in lines {
            progress.send(&line).await;
        }
        return match ended {
            None => continue,
            Some(Ended::Made(image)) => proto::StepFollowReply { made: Some(*image), ..Default::default() },
            Some(Ended::Recorded(record)) => proto::StepFollowReply { record: Some(*record), ..Default::default() },
            Some(Ended::Command { command, code }) => proto::StepFollowReply { command, code, ..Default::default() },
            Some(Ended::Dropped) => proto::StepFollowReply::default(),
        };
    }
}
