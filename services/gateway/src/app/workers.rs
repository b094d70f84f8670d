//! The build workers: which of them may take which build, and what was decided of them while they run.

use std::collections::BTreeMap;

use metadata::{Demand, WorkerOrders};
use model::Platform;

use super::overview::services::Sign;
use super::{App, Failure, Outcome};

pub const KIND: &str = "build-worker";
/// Longest name or value of a label.
const LABEL_MAX_BYTES: usize = 200;

/// A worker as the queue sees it.
#[derive(Clone, Debug, Default)]
pub struct Able {
    pub id: String,
    /// The labels that count now.
    pub labels: BTreeMap<String, String>,
    pub platforms: Vec<Platform>,
    pub drained: bool,
}

impl Able {
    pub fn new(info: &proto::WorkerInfo, orders: Option<&WorkerOrders>) -> Self {
        let own = info.labels.clone().into_iter();
        let orders = orders.cloned().unwrap_or_default();
        let platforms = info.platforms.iter().chain([&info.platform]);
        Self {
            id: info.id.clone(),
            labels: orders.over(own),
            platforms: platforms.filter_map(|platform| platform.parse().ok()).collect(),
            drained: orders.drained,
        }
    }

    fn has_labels(&self, wanted: &BTreeMap<String, String>) -> bool {
        wanted.iter().all(|(name, value)| self.labels.get(name) == Some(value))
    }

    fn runs(&self, platform: &Platform) -> bool {
        self.platforms.iter().any(|own| platform.takes(own))
    }
}

/// What a build asks of its worker.
pub fn demand_of(options: &proto::BuildOptions) -> Demand {
    let platform = match (options.platform.as_str(), options.platforms.as_slice()) {
        ("", [only]) => only.clone(),
        (platform, _) => platform.to_owned(),
    };
    Demand {
        owner: options.user.clone(),
        priority: options.priority.into(),
        labels: options.worker_labels.clone().into_iter().collect(),
        platform,
        attendance: match options.attendance() {
            proto::Attendance::Connected => metadata::Attendance::Connected,
            proto::Attendance::Returning => metadata::Attendance::Returning,
            proto::Attendance::Absent => metadata::Attendance::Absent,
        },
    }
}

/// Whether a worker may take a build, among those that are alive. A platform that none of them runs is nobody's: such a
/// build may still copy files, and where it runs something it fails with the reason.
fn may_take(worker: &Able, demand: &Demand, alive: &[Able]) -> bool {
    if worker.drained || !worker.has_labels(&demand.labels) {
        return false;
    }
    let Ok(platform) = demand.platform.parse::<Platform>() else { return true };
    let elsewhere =
        || alive.iter().any(|other| !other.drained && other.has_labels(&demand.labels) && other.runs(&platform));
    worker.runs(&platform) || !elsewhere()
}

/// Why no worker takes a build, where none of those that are alive may; none where they are only busy.
fn why_nobody(demand: &Demand, alive: &[Able]) -> Option<String> {
    let labels = || demand.labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ");
    let names = |workers: &[&Able]| workers.iter().map(|worker| worker.id.as_str()).collect::<Vec<_>>().join(", ");
    if alive.is_empty() {
        return Some("no build worker is running".to_owned());
    }
    let matching: Vec<&Able> = alive.iter().filter(|worker| worker.has_labels(&demand.labels)).collect();
    if matching.is_empty() {
        return Some(format!("no build worker that is running has the labels {}", labels()));
    }
    if matching.iter().all(|worker| worker.drained) {
        return Some(match demand.labels.is_empty() {
            true => format!("all build workers are drained: {}", names(&matching)),
            false => format!("all build workers with the labels {} are drained: {}", labels(), names(&matching)),
        });
    }
    None
}

impl App {
    pub(super) async fn able(&self, info: &proto::WorkerInfo) -> Outcome<Able> {
        Ok(Able::new(info, self.db.worker_orders().await?.get(&info.id)))
    }

    /// The workers that give a sign of life.
    pub async fn able_workers(&self) -> Outcome<Vec<Able>> {
        let orders = self.db.worker_orders().await?;
        let signs = self.signs().await?;
        Ok(alive_workers(&signs).map(|info| Able::new(&info, orders.get(&info.id))).collect())
    }

    /// The workers that take steps of each other's builds.
    pub async fn helpers(&self, _: proto::Empty) -> Outcome<proto::WorkersReply> {
        let orders = self.db.worker_orders().await?;
        let signs = self.signs().await?;
        let helper = |info: proto::WorkerInfo| {
            let able = Able::new(&info, orders.get(&info.id));
            (!able.drained).then(|| proto::WorkerInfo { labels: able.labels.into_iter().collect(), ..info })
        };
        Ok(proto::WorkersReply { workers: alive_workers(&signs).filter_map(helper).collect() })
    }

    pub(super) async fn may_take(&self, worker: &Able, demand: &Demand) -> Outcome<bool> {
        // Most builds go anywhere; who is alive matters to the others only.
        let alive = if demand.platform.is_empty() { Vec::new() } else { self.able_workers().await? };
        Ok(may_take(worker, demand, &alive))
    }

    /// Why a build that waits will not begin as things are, for its client; none where a worker only has to get free.
    pub async fn why_waits(&self, build_id: &str) -> Option<String> {
        let demand = self.db.waits_for(build_id).await.ok()??;
        let why = why_nobody(&demand, &self.able_workers().await.ok()?)?;
        Some(format!("Waiting for a build worker: {why}"))
    }

    /// Says whether a worker takes new builds and steps; those that it has go on.
    ///
    /// # Errors
    /// `NotFound` for a worker that neither lives nor was seen lately.
    pub async fn drain_worker(&self, id: &str, drained: bool) -> Outcome<()> {
        self.known_worker(id).await?;
        self.db.drain_worker(id, drained).await?;
        self.changed_worker(id, if drained { "drain" } else { "undrain" });
        Ok(())
    }

    /// Sets labels of a worker, and takes those away that have no value.
    ///
    /// # Errors
    /// `NotFound` as for [`Self::drain_worker`], `InvalidArgument` for what is no label.
    pub async fn label_worker(&self, id: &str, changes: &BTreeMap<String, Option<String>>) -> Outcome<()> {
        if let Some((name, _)) = changes.iter().find(|(name, value)| !is_label(name, value.as_deref())) {
            return Err(Failure::invalid(format!("invalid label {name:?} of a build worker")));
        }
        self.known_worker(id).await?;
        self.db.label_worker(id, changes).await?;
        self.changed_worker(id, "label");
        Ok(())
    }

    async fn known_worker(&self, id: &str) -> Outcome<()> {
        let signs = self.signs().await?;
        match signs.iter().any(|sign| sign.alive.kind == KIND && sign.alive.id == id) {
            true => Ok(()),
            false => Err(Failure::not_found(format!("no such build worker: {id}"))),
        }
    }

    fn changed_worker(&self, id: &str, action: &str) {
        self.queued.notify_waiters();
        self.tell("worker", action, id, Default::default());
    }
}

/// What the workers say of themselves that are alive.
pub fn alive_workers(signs: &[Sign]) -> impl Iterator<Item = proto::WorkerInfo> {
    let alive = signs.iter().filter(|sign| sign.is_alive && sign.alive.kind == KIND);
    alive.filter_map(|sign| prost::Message::decode(sign.alive.info.as_slice()).ok())
}

fn is_label(name: &str, value: Option<&str>) -> bool {
    let is_plain = |text: &str| text.len() <= LABEL_MAX_BYTES && !text.chars().any(char::is_control);
    !name.is_empty() && !name.contains(['=', ',', ' ']) && is_plain(name) && value.is_none_or(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        let pairs = text.split(' ').filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn worker(text: &str, platforms: &[&str], drained: bool) -> Able {
        let platforms = platforms.iter().map(|platform| platform.parse().expect("a platform")).collect();
        Able { id: "w".to_owned(), labels: labels(text), platforms, drained }
    }

    fn demand(text: &str, platform: &str) -> Demand {
        Demand { labels: labels(text), platform: platform.to_owned(), ..Demand::default() }
    }

    #[test]
    fn who_may_take_a_build() {
        let (here, arm) = (&["linux/amd64"][..], &["linux/arm64"][..]);
        let others = [worker("disk=ssd", &["linux/arm64"], false), worker("", &["linux/s390x"], true)];
        for (worker, demand, may) in [
            (worker("", here, false), demand("", ""), true),
            (worker("", here, true), demand("", ""), false),
            (worker("disk=ssd zone=a", here, false), demand("disk=ssd", ""), true),
            (worker("disk=hdd", here, false), demand("disk=ssd", ""), false),
            (worker("", here, false), demand("disk=ssd", ""), false),
            (worker("", here, false), demand("", "linux/amd64"), true),
            (worker("", here, false), demand("", "linux/arm64"), false),
            (worker("", arm, false), demand("", "linux/arm64/v8"), true),
            // Nobody has it, or only one that is drained.
            (worker("", here, false), demand("", "linux/riscv64"), true),
            (worker("", here, false), demand("", "linux/s390x"), true),
            // Who has it lacks the labels.
            (worker("zone=a", here, false), demand("zone=a", "linux/arm64"), true),
        ] {
            assert_eq!(may_take(&worker, &demand, &others), may, "{worker:?} {demand:?}");
        }
    }

    #[test]
    fn what_a_client_is_told_that_waits_in_vain() {
        let here = &["linux/amd64"][..];
        for (alive, demand, why) in [
            (vec![], demand("", ""), Some("no build worker is running")),
            (vec![worker("", here, false)], demand("", ""), None),
            (
                vec![worker("", here, false)],
                demand("disk=ssd zone=a", ""),
                Some("no build worker that is running has the labels disk=ssd, zone=a"),
            ),
            (vec![worker("", here, true)], demand("", ""), Some("all build workers are drained: w")),
            (
                vec![worker("a=b", here, true), worker("", here, false)],
                demand("a=b", ""),
                Some("all build workers with the labels a=b are drained: w"),
            ),
        ] {
            assert_eq!(why_nobody(&demand, &alive).as_deref(), why);
        }
    }

    #[test]
    fn labels_of_workers() {
        for (name, value, fine) in [
            ("disk", Some("ssd"), true),
            ("disk", None, true),
            ("disk", Some(""), true),
            ("", Some("x"), false),
            ("a b", Some("x"), false),
            ("a=b", Some("x"), false),
            ("a", Some("x\n"), false),
        ] {
            assert_eq!(is_label(name, value), fine, "{name:?} {value:?}");
        }
    }
}
