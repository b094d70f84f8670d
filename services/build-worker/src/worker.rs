use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use bus::{Bus, Router, Target, calls};
use distribution::Store;
use snapshots::Snapshots;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::claims::Claims;
use crate::config::Config;
use crate::context::kept::Kept;
use crate::flight::{Ended, Flight};
use crate::handover::{self, Handover};
use crate::machine::{self, Machine};
use crate::network::Networks;
use crate::session::Session;

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
    pub claims: Arc<Claims>,
    pub id: String,
    running: Arc<Mutex<HashMap<String, CancellationToken>>>,
}

/// Takes builds until `stop`; builds in progress then end without a result, and another worker gets them.
pub async fn serve(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let worker = Worker::start(&config).await?;
    let slots = usize::try_from(config.slots.max(1))?;
    let info = proto::WorkerInfo {
        id: config.id.clone(),
        name: config.id.clone(),
        version: service::VERSION.to_owned(),
        node_id: config.machine.instance.clone(),
        slots: config.slots,
        platform: model::Platform::host().to_string(),
        labels: HashMap::new(),
    };
    let alive = bus::sign_of_life("build-worker", &config.id, prost::Message::encode_to_vec(&info));
    let (bus, ending) = (worker.bus.clone(), stop.clone());
    tokio::spawn(async move { bus.keep_alive(alive, ending).await });
    let (bus, router, ending) = (worker.bus.clone(), worker.router(), stop.clone());
    let target = Target::Worker(config.id.clone());
    tokio::spawn(async move {
        if let Err(error) = bus.serve(target, router, ending).await {
            tracing::error!(%error, "calls are no longer answered");
        }
    });
    service::announce_ready();
    worker.take_builds(info, slots, &stop).await;
    // A machine's node does this where there is one.
    let has_node = config.machine.machine_dir.join(handover::NODE_ID_FILE).exists();
    if config.machine.stops_for_good() && !has_node {
        if let Err(error) = worker.machine.networks.take_down().await {
            tracing::warn!(%error, "the network could not be taken down");
        }
        runtime::cgroup::remove_parents(&config.machine.instance);
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
            instance: config.machine.instance.clone(),
            runtime_binary: config.machine.runtime_binary().context("neither crun nor runc is on PATH")?,
            shim_binary: config.machine.shim_binary(),
            runtime_root: config.data_dir.join("oci"),
            builds: builds.canonicalize()?,
            networks,
            handover,
        };
        let contexts = Arc::new(Kept::open(config.data_dir.join("contexts"))?);
        let store = Store::new(config.store.store_url.clone(), token);
        let claims = Claims::new(bus.clone(), &config.id);
        let (id, running) = (config.id.clone(), Arc::default());
        Ok(Self { bus, store, snapshots, machine, contexts, claims, id, running })
    }

    fn router(&self) -> Router {
        let (running, claims) = (self.running.clone(), self.claims.clone());
        let router = Router::new().on_while_wanted::<calls::StepFollow, _, _>(move |request, progress| {
            let flight = claims.flight(&request.claim_id);
            async move {
                let flight = flight.ok_or_else(|| bus::Error::not_found("the step does not run here"))?;
                Ok(follow(flight, progress).await)
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

    async fn take_builds(&self, mut info: proto::WorkerInfo, slots: usize, stop: &CancellationToken) {
        let free = Arc::new(Semaphore::new(slots));
        let builds = TaskTracker::new();
        loop {
            let slot = tokio::select! {
                () = stop.cancelled() => break,
                slot = free.clone().acquire_owned() => slot.expect("never closed"),
            };
            info.slots = u32::try_from(free.available_permits() + 1).unwrap_or(1);
            let ask = proto::BuildNext { worker: Some(info.clone()), wait_seconds: WAIT_SECONDS };
            let lease = tokio::select! {
                () = stop.cancelled() => break,
                lease = self.bus.call::<calls::BuildNext>(&Target::Gateway, &ask) => lease,
            };
            match lease {
                Ok(lease) if lease.build_id.is_empty() => {}
                Ok(lease) => {
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
        let session = Session { worker: self.clone(), lease, cancel, stop };
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
            Some(Ended::Command { command, code }) => proto::StepFollowReply { command, code, ..Default::default() },
            Some(Ended::Dropped) => proto::StepFollowReply::default(),
        };
    }
}
