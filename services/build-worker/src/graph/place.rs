//! Where a step runs: consecutive steps stay where their parent lies, steps that run at once go to different workers.
//!
//! Only the coordinator runs what needs the client's session (secrets, agents), and all of a
//! build with limits: they hold for its steps together, which is one control group of one machine.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bus::{Bus, Target, calls};
use model::Platform;
use proto::step_definition::Operation;
use proto::step_input::From;

use super::Graph;
use crate::failure::Failure;
use crate::layers::diff_id;

/// What the gateway has said of the other workers is used again for so long.
const FRESH: Duration = Duration::from_millis(500);
/// A worker that could not run a step is asked for none for so long.
const AVOIDED: Duration = Duration::from_secs(20);

/// A smaller cache goes to its step rather than the step to it, which has layers of its own to move.
const LARGE_CACHE_BYTES: u64 = 32 << 20;

/// Who runs a step.
pub enum Place {
    /// This worker.
    Here,
    /// Another one, by its id.
    Worker(String),
}

/// A step that runs somewhere, as long as this lives.
pub struct Placed {
    pub place: Place,
    _running: Running,
}

/// Where the steps of a build run. A clone is the same.
#[derive(Clone, Default)]
pub struct Places(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    others: Option<(Instant, Vec<proto::WorkerInfo>)>,
    /// Steps of this build, by worker; under an empty id those that run here.
    running: HashMap<String, usize>,
    /// Who has made the layer on top, by its diff id.
    made: HashMap<String, String>,
    avoided: HashMap<String, Instant>,
}

struct Running {
    places: Places,
    worker: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(count) = self.places.state().running.get_mut(&self.worker) {
            *count -= 1;
        }
    }
}

impl State {
    /// No step of the build runs here.
    fn is_alone(&self) -> bool {
        self.running.get("").is_none_or(|count| *count == 0)
    }
}

impl Places {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("no holder panics")
    }

    /// Counts a step that runs there from now on; under the lock under which its place was chosen, since others choose by
    /// the count.
    fn take(&self, state: &mut State, worker: Option<String>) -> Placed {
        let worker = worker.unwrap_or_default();
        *state.running.entry(worker.clone()).or_default() += 1;
        let place = if worker.is_empty() { Place::Here } else { Place::Worker(worker.clone()) };
        Placed { place, _running: Running { places: self.clone(), worker } }
    }

    /// The layer on top of a step's result, and who has made it.
    pub fn note_made(&self, layer: &proto::Layer, worker: &str) {
        self.state().made.insert(layer.diff_id.clone(), worker.to_owned());
    }

    /// The worker could not run a step of this build.
    pub fn avoid(&self, worker: &str) {
        self.state().avoided.insert(worker.to_owned(), Instant::now());
    }

    /// The other workers as the gateway knows them. Where it does not answer, there are none.
    async fn others(&self, bus: &Bus) -> Vec<proto::WorkerInfo> {
        if let Some((at, others)) = &self.state().others
            && at.elapsed() < FRESH
        {
            return others.clone();
        }
        let others = match bus.call::<calls::Workers>(&Target::Gateway, &proto::Empty {}).await {
            Ok(reply) => reply.workers,
            Err(error) => {
                tracing::warn!(%error, "the other workers are not known");
                Vec::new()
            }
        };
        self.state().others = Some((Instant::now(), others.clone()));
        others
    }
}

/// What counts for where a step runs.
struct Wish<'a> {
    /// Who has made its parent; none where nobody of this build has.
    parent: Option<&'a str>,
    labels: &'a HashMap<String, String>,
    platform: Option<Platform>,
    here: &'a str,
    /// This worker can run its platform.
    fits_here: bool,
    /// Who has the newest content of its cache mounts.
    cache: Option<&'a str>,
    /// No command, only files: another worker has it only where its parent is.
    only_to_parent: bool,
}

impl Graph {
    /// Chooses where a step runs. `claimed`: its claim is what keeps it alive on another worker.
    pub(super) async fn place(&self, step: &proto::StepDefinition, claimed: bool) -> Placed {
        let here = |places: &Places| places.take(&mut places.state(), None);
        if !claimed || !may_go(step) {
            return here(&self.places);
        }
        let platform = step.platform.parse::<Platform>().ok();
        let only_to_parent = !matches!(step.operation, Some(Operation::Run(_)));
        let fits_here =
            only_to_parent || platform.as_ref().is_none_or(|wanted| self.platforms.iter().any(|own| wanted.takes(own)));
        let made_by = step.parent.last().and_then(|layer| self.places.state().made.get(&layer.diff_id).cloned());
        let mut parent = made_by.filter(|worker| *worker != self.worker_id);
        if only_to_parent && let Some(worker) = &parent {
            match self.moved_bytes(step, worker).await {
                Ok((here, there)) if there < here => {}
                // What cannot be known is found out, and told, where the step runs.
                _ => parent = None,
            }
        }
        let cache = self.cache_worker(step).await;
        if fits_here && (cache.as_ref() == Some(&self.worker_id) || parent.is_none() && only_to_parent) {
            return here(&self.places);
        }
        // A build whose steps follow each other asks nobody.
        if fits_here && parent.is_none() && cache.is_none() {
            let mut state = self.places.state();
            if state.is_alone() {
                return self.places.take(&mut state, None);
            }
        }
        let others = self.places.others(&self.executor.worker.bus).await;
        let wish = Wish {
            parent: parent.as_deref(),
            labels: &self.options.worker_labels,
            platform,
            here: &self.worker_id,
            fits_here,
            cache: cache.as_deref(),
            only_to_parent,
        };
        let mut state = self.places.state();
        state.avoided.retain(|_, since| since.elapsed() < AVOIDED);
        let avoided = state.avoided.keys().cloned().collect();
        let chosen = choose(&wish, &others, &state.running, &avoided);
        self.places.take(&mut state, chosen)
    }

    /// How many bytes come to this worker, and how many to the one that has the step's parent, where either runs it.
    async fn moved_bytes(&self, step: &proto::StepDefinition, there: &str) -> Result<(u64, u64), Failure> {
        let (mut to_here, mut to_there) = (0, 0);
        for layer in &step.parent {
            if !self.executor.layers.snapshots.has_layer(&diff_id(layer)?) {
                to_here += blob_bytes(layer);
            }
        }
        let sources = match &step.operation {
            Some(Operation::Copy(copy)) => &copy.sources[..],
            _ => &[],
        };
        // Layers that are copied from were read for the step's key: they are here.
        for source in sources {
            to_there += match source.from.as_ref().and_then(|input| input.from.as_ref()) {
                Some(From::Layers(list)) => {
                    let state = self.places.state();
                    let is_there = |layer: &proto::Layer| {
                        step.parent.contains(layer)
                            || state.made.get(&layer.diff_id).is_some_and(|worker| worker == there)
                    };
                    list.layers.iter().filter(|layer| !is_there(layer)).map(blob_bytes).sum()
                }
                Some(From::Tar(blob)) => blob.size,
                Some(From::Tree(tree)) => {
                    let bytes = self.executor.worker.trees.tree(tree).await?.bytes();
                    if !self.executor.worker.trees.is_laid_out(tree) {
                        to_here += bytes;
                    }
                    bytes
                }
                Some(From::Files(_)) | None => 0,
            };
        }
        Ok((to_here, to_there))
    }

    /// Who has the newest content of the step's cache mounts, where that is worth its way.
    async fn cache_worker(&self, step: &proto::StepDefinition) -> Option<String> {
        let Some(Operation::Run(run)) = &step.operation else { return None };
        let mut bytes = HashMap::<String, u64>::new();
        for mount in run.mounts.iter().filter(|mount| mount.r#type == "cache") {
            let ask = proto::CacheMountGet { key: model::cache_key(&mount.id, &mount.sharing), used: false };
            match self.executor.worker.bus.call::<calls::CacheMountGet>(&Target::Gateway, &ask).await {
                Ok(stored) => *bytes.entry(stored.worker_id).or_default() += stored.bytes,
                Err(error) => tracing::debug!(%error, "who has a cache is not known"),
            }
        }
        bytes.remove("");
        let (worker, bytes) = bytes.into_iter().max_by_key(|(worker, bytes)| (*bytes, worker.clone()))?;
        (bytes >= LARGE_CACHE_BYTES).then_some(worker)
    }
}

/// The layers that a step reads or stands on.
pub(super) fn layers_of(step: &proto::StepDefinition) -> impl Iterator<Item = &proto::Layer> {
    let inputs: Vec<Option<&proto::StepInput>> = match &step.operation {
        Some(Operation::Run(run)) => run.mounts.iter().map(|mount| mount.from.as_ref()).collect(),
        Some(Operation::Copy(copy)) => copy.sources.iter().map(|source| source.from.as_ref()).collect(),
        Some(Operation::Folder(_)) | None => Vec::new(),
    };
    let lists = inputs.into_iter().flatten().filter_map(|input| match &input.from {
        Some(From::Layers(list)) => Some(&list.layers),
        _ => None,
    });
    step.parent.iter().chain(lists.flatten())
}

fn blob_bytes(layer: &proto::Layer) -> u64 {
    layer.blob.as_ref().map_or(0, |blob| blob.size)
}

/// Whether another worker may have a step: none that needs the client's session, which is the coordinator's to ask, and
/// none of a build with limits.
pub(super) fn may_go(step: &proto::StepDefinition) -> bool {
    match &step.operation {
        Some(Operation::Run(run)) => {
            // The others hang on the client.
            let is_plain = |mount: &proto::StepMount| matches!(mount.r#type.as_str(), "bind" | "cache" | "tmpfs");
            let limited = run.resources.as_ref().is_some_and(crate::limits::is_limited);
            run.security != "insecure" && !limited && run.mounts.iter().all(is_plain)
        }
        Some(Operation::Copy(_) | Operation::Folder(_)) => true,
        None => false,
    }
}

/// The worker that is to run a step; none: this one.
fn choose(
    wish: &Wish<'_>,
    others: &[proto::WorkerInfo],
    running: &HashMap<String, usize>,
    avoided: &HashSet<String>,
) -> Option<String> {
    let own = |worker: &proto::WorkerInfo| running.get(&worker.id).copied().unwrap_or(0);
    let load = |worker: &proto::WorkerInfo| usize::try_from(worker.busy).unwrap_or(usize::MAX).max(own(worker));
    let has_room = |worker: &proto::WorkerInfo, load: usize| load < usize::try_from(worker.slots).unwrap_or(usize::MAX);
    let fits = |worker: &&proto::WorkerInfo| {
        let platforms = || worker.platforms.iter().chain([&worker.platform]).filter_map(|text| text.parse().ok());
        worker.id != wish.here
            && !avoided.contains(&worker.id)
            && wish.labels.iter().all(|(name, value)| worker.labels.get(name) == Some(value))
            && wish.platform.as_ref().is_none_or(|wanted| platforms().any(|own: Platform| wanted.takes(&own)))
    };
    let able: Vec<&proto::WorkerInfo> = others.iter().filter(fits).collect();
    let cache = able.iter().find(|worker| Some(worker.id.as_str()) == wish.cache);
    if let Some(cache) = cache.filter(|cache| has_room(cache, load(cache))) {
        return Some(cache.id.clone());
    }
    // What it has said may still be of the step before this one: it is asked, and says so where it is full.
    let parent = able.iter().find(|worker| Some(worker.id.as_str()) == wish.parent);
    if let Some(parent) = parent.filter(|parent| has_room(parent, own(parent))) {
        return Some(parent.id.clone());
    }
    let is_free_here = wish.fits_here && running.get("").is_none_or(|count| *count == 0);
    if is_free_here || wish.only_to_parent {
        return None;
    }
    // This build's own steps go on for certain; what a worker has said may be over.
    let free = able.into_iter().filter(|worker| has_room(worker, load(worker)));
    free.min_by_key(|worker| (load(worker), own(worker), worker.id.clone())).map(|worker| worker.id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(id: &str, busy: u32, platform: &str) -> proto::WorkerInfo {
        let labels = HashMap::from([("disk".to_owned(), id.to_owned())]);
        proto::WorkerInfo {
            id: id.to_owned(),
            slots: 2,
            busy,
            platform: platform.to_owned(),
            labels,
            ..Default::default()
        }
    }

    #[test]
    fn steps_go_where_there_is_room() {
        let here = "linux/amd64";
        let farm = [
            worker("a", 0, here),
            worker("b", 0, here),
            worker("c", 1, here),
            worker("arm", 0, "linux/arm64"),
            worker("full", 2, here),
        ];
        let none = HashMap::new();
        let only_c = HashMap::from([("disk".to_owned(), "c".to_owned())]);
        let wish = |parent, labels, platform: &str, fits_here| Wish {
            parent,
            labels,
            platform: platform.parse().ok(),
            here: "a",
            fits_here,
            cache: None,
            only_to_parent: false,
        };
        let cached = |cache| Wish { cache: Some(cache), ..wish(Some("b"), &none, here, true) };
        let copy = |parent| Wish { only_to_parent: true, ..wish(parent, &none, here, true) };
        for (wish, running, avoided, wanted) in [
            // The first stays, the next ones go to the emptiest.
            (wish(None, &none, here, true), &[][..], &[][..], None),
            (wish(None, &none, here, true), &[("", 1)], &[], Some("b")),
            (wish(None, &none, here, true), &[("", 1), ("b", 1)], &[], Some("c")),
            (wish(None, &none, here, true), &[("", 1), ("b", 2)], &[], Some("c")),
            (wish(None, &none, here, true), &[("", 1), ("b", 2), ("c", 2)], &[], None),
            (wish(None, &none, here, true), &[("", 1)], &["b"], Some("c")),
            // Who has the parent goes on, unless it is full or gone.
            (wish(Some("c"), &none, here, true), &[], &[], Some("c")),
            (wish(Some("c"), &none, here, true), &[("c", 2)], &[], None),
            (wish(Some("gone"), &none, here, true), &[("", 1)], &[], Some("b")),
            // The one before it may have ended just now.
            (wish(Some("full"), &none, here, true), &[("", 1)], &[], Some("full")),
            (wish(Some("full"), &none, here, true), &[("", 1)], &["full"], Some("b")),
            // Files go where they lie, or nowhere.
            (copy(Some("c")), &[("", 1)], &[], Some("c")),
            (copy(Some("c")), &[("", 1)], &["c"], None),
            (copy(None), &[("", 1)], &[], None),
            (wish(None, &only_c, here, true), &[("", 1)], &[], Some("c")),
            (wish(None, &none, "linux/arm64", false), &[], &[], Some("arm")),
            (wish(None, &none, "linux/s390x", false), &[], &[], None),
            // A cache that is worth it draws its step, also from the parent.
            (cached("c"), &[], &[], Some("c")),
            (cached("c"), &[("c", 2)], &[], Some("b")),
            (cached("gone"), &[], &[], Some("b")),
        ] {
            let running = running.iter().map(|(id, count)| ((*id).to_owned(), *count)).collect();
            let avoided = avoided.iter().map(|id| (*id).to_owned()).collect();
            assert_eq!(choose(&wish, &farm, &running, &avoided).as_deref(), wanted, "{running:?} {avoided:?}");
        }
    }
}
