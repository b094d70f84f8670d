//! Pulls: what clients ask for at once is fetched once, each stored layer is told to the nodes, and a registry-sync that
//! dies is replaced without the clients' notice.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, Weak};

use bus::calls;
use model::{Digest, ErrorKind, ImageRef, Platform};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::builds::labels_of;
use super::images::{Image, MAX_CONFIG_BYTES, config_of};
use super::lease::Lease;
use super::lines::{Held, Lines};
use super::{App, Failure, Outcome, lock};

const NO_BASE_IMAGE: &str = "scratch";
const EXISTS: &str = "Already exists";

/// What is pulled. Two pulls are the same only when all of it is, the credentials too.
#[derive(Clone)]
pub struct Wanted {
    /// Without tag and digest: all tags.
    pub reference: ImageRef,
    pub platform: Option<Platform>,
    pub auth: Option<proto::RegistryAuth>,
}

impl Wanted {
    fn key(&self) -> Key {
        let auth = self.auth.as_ref().map(proto::RegistryAuth::encode_to_vec);
        (self.reference.to_string(), self.platform_text(), auth)
    }

    /// What to say of an image that is not of the wanted platform.
    fn mismatch(&self, name: &ImageRef, image: &Image) -> Option<String> {
        super::platform::mismatch(self.platform.as_ref()?, &name.familiar(), image)
    }

    fn platform_text(&self) -> String {
        self.platform.as_ref().map(ToString::to_string).unwrap_or_default()
    }
}

/// One image that has come.
struct Pulled {
    image: Image,
    /// Its name did not mean it before.
    is_newer: bool,
}

type Key = (String, String, Option<Vec<u8>>);

/// The pulls that go on, for those who want the same.
pub type Flights = Mutex<HashMap<Key, Weak<Flight>>>;

/// One pull, shared by the clients that wait for it: it ends with the last of them.
pub struct Flight {
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

struct Shared {
    lines: Arc<Lines>,
    /// Layers that are in the layer store under this pull's lease, and in no record yet.
    stored: Mutex<Vec<proto::Layer>>,
}

/// A client's hold on a pull.
pub type Pulling = Held<Arc<Flight>>;

/// What must happen however a pull ends, by its end, its failure or because nobody wants it any more.
struct Ending {
    app: Arc<App>,
    shared: Arc<Shared>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.shared.lines.end(Err(Failure::new(ErrorKind::Internal, "the pull broke off")));
        let (app, stored) = (self.app.clone(), std::mem::take(&mut *lock(&self.shared.stored)));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { app.forget_unrecorded(stored).await });
        }
    }
}

impl App {
    /// Begins to pull, or joins a pull of the same that goes on.
    ///
    /// # Errors
    /// `Denied` for the name that means no image.
    pub fn pull(&self, wanted: Wanted) -> Outcome<Pulling> {
        if wanted.reference.familiar_name() == NO_BASE_IMAGE {
            return Err(Failure::new(ErrorKind::Denied, format!("'{NO_BASE_IMAGE}' is a reserved name")));
        }
        let app = self.me.upgrade().ok_or_else(|| Failure::new(ErrorKind::Unavailable, "the gateway ends"))?;
        let mut flights = lock(&self.flights);
        flights.retain(|_, flight| flight.upgrade().is_some_and(|flight| !flight.shared.lines.is_over()));
        if let Some(flight) = flights.get(&wanted.key()).and_then(Weak::upgrade) {
            return Ok(Held::new(flight.shared.lines.reader(), flight));
        }
        let shared = Arc::new(Shared { lines: Lines::new(), stored: Mutex::default() });
        let key = wanted.key();
        let ending = Ending { app: app.clone(), shared: shared.clone() };
        let task = tokio::spawn(async move {
            let outcome = app.pull_all(&wanted, &ending.shared).await;
            ending.shared.lines.end(outcome);
        });
        let reader = shared.lines.reader();
        let flight = Arc::new(Flight { shared, _task: AbortOnDropHandle::new(task) });
        flights.insert(key, Arc::downgrade(&flight));
        Ok(Held::new(reader, flight))
    }

    async fn pull_all(&self, wanted: &Wanted, shared: &Shared) -> Outcome<()> {
        let reference = &wanted.reference;
        let lease = self.lease("pull").await?;
        let mut newer = false;
        let mut mismatch = None;
        if reference.has_tag_or_digest() {
            let pulled = self.pull_one(reference, wanted, &lease, shared).await?;
            newer = pulled.is_newer;
            mismatch = wanted.mismatch(reference, &pulled.image);
        } else {
            let request = proto::RegistryTags { name: reference.full_name(), auth: wanted.auth.clone() };
            for tag in self.ask_sync::<calls::RegistryTags>(&request, None).await.map_err(as_docker)?.tags {
                let pulled = self.pull_one(&reference.clone().with_tag(&tag)?, wanted, &lease, shared).await?;
                newer |= pulled.is_newer;
            }
        }
        let status = if newer { "Downloaded newer image" } else { "Image is up to date" };
        shared.lines.message("", &format!("Status: {status} for {}", reference.familiar()));
        if let Some(mismatch) = mismatch {
            shared.lines.message("", &format!("WARNING: {mismatch}"));
        }
        self.tell_registry(reference, "pull").await;
        Ok(())
    }

    /// Fetches and records one image.
    async fn pull_one(&self, name: &ImageRef, wanted: &Wanted, lease: &Lease, shared: &Shared) -> Outcome<Pulled> {
        let digest = name.digest().map(Digest::to_string).unwrap_or_default();
        let tag = if digest.is_empty() { name.tag().unwrap_or_default() } else { "" };
        let request = proto::Pull {
            content: None,
            name: name.full_name(),
            tag: tag.to_owned(),
            digest: digest.clone(),
            platform: wanted.platform_text(),
            auth: wanted.auth.clone(),
            lease: lease.id.clone(),
        };
        let by_digest = format!("{}@{digest}", request.name);
        let mut told = Told::new(shared, name.path(), if digest.is_empty() { tag } else { &by_digest });
        let reply = self.fetch(&request, &mut told).await?;
        told.end(self.db.image(&reply.id).await?.is_some());
        shared.lines.message("", &format!("Digest: {}", reply.digest));
        let before = self.named(name).await?;
        let image = self.record_pulled(name, reply).await?;
        Ok(Pulled { is_newer: before.as_ref() != Some(&image.id), image })
    }

    async fn fetch(&self, request: &proto::Pull, told: &mut Told<'_>) -> Outcome<proto::PullReply> {
        let what = if request.digest.is_empty() { &request.tag } else { &request.digest };
        let shown = self.begin_transfer("pull", &request.name, what);
        let (progress, mut steps) = mpsc::channel::<proto::Progress>(64);
        let forward = async {
            while let Some(step) = steps.recv().await {
                shown.step(&step);
                match &step.stored {
                    Some(layer) => self.stored(layer, told.shared).await,
                    None => told.step(step),
                }
            }
        };
        let (reply, ()) = tokio::join!(self.ask_sync::<calls::SyncPull>(request, Some(progress)), forward);
        reply.map_err(as_docker)
    }

    /// A layer of a pull is in the layer store: nodes may unpack it while the others come.
    async fn stored(&self, layer: &proto::Layer, shared: &Shared) {
        lock(&shared.stored).push(layer.clone());
        self.prefetch(vec![layer.clone()]).await;
    }

    async fn record_pulled(&self, name: &ImageRef, reply: proto::PullReply) -> Outcome<Image> {
        let id: Digest = reply.id.parse().map_err(|_| Failure::invalid("an image without an id"))?;
        let digest: Digest = reply.digest.parse().map_err(|_| Failure::invalid("an image without a digest"))?;
        let by_digest = name.clone().without_tag().with_digest(digest).familiar();
        self.record(proto::Image {
            config: self.store.get_bytes(&id, MAX_CONFIG_BYTES).await?,
            id: reply.id.clone(),
            layers: reply.layers,
            parent_id: String::new(),
            tags: if name.digest().is_some() { Vec::new() } else { vec![name.familiar()] },
            digests: vec![by_digest],
        })
        .await?;
        self.record_packed(reply.packed).await?;
        self.find_image(&reply.id).await
    }

    /// Docker's event of a pull or a push: its actor is the name, not the image.
    pub async fn tell_registry(&self, reference: &ImageRef, action: &str) {
        let found = self.find_image(&reference.familiar()).await.ok();
        let mut attributes = found.map(|image| labels_of(&config_of(&image))).unwrap_or_default();
        attributes.insert("name".to_owned(), reference.familiar_name().into());
        self.tell("image", action, &reference.familiar(), attributes);
    }

    /// Layers that a record or a pull under way holds: a pull need not fetch them.
    pub async fn lookup_layers(&self, request: proto::LayersLookup) -> Outcome<proto::LayersLookupReply> {
        let mut missing: HashSet<&str> = request.diff_ids.iter().map(String::as_str).collect();
        let mut layers = Vec::new();
        for flight in self.live_flights() {
            let stored = lock(&flight.shared.stored);
            layers.extend(stored.iter().filter(|layer| missing.remove(layer.diff_id.as_str())).cloned());
        }
        if !missing.is_empty() {
            let known = self.db.image_layers().await?.into_iter().flat_map(|(_, layers)| layers);
            let known = known.filter(|layer| missing.remove(layer.diff_id.as_str()));
            layers.extend(known.map(super::images::layer_message));
        }
        Ok(proto::LayersLookupReply { layers })
    }

    fn live_flights(&self) -> Vec<Arc<Flight>> {
        lock(&self.flights).values().filter_map(Weak::upgrade).collect()
    }

    /// What nodes unpacked ahead for an image that did not come.
    async fn forget_unrecorded(&self, stored: Vec<proto::Layer>) {
        if stored.is_empty() {
            return;
        }
        let recorded: HashSet<String> = match self.db.image_layers().await {
            Ok(images) => images.into_iter().flat_map(|(_, layers)| layers).map(|layer| layer.diff_id).collect(),
            Err(error) => return tracing::warn!(%error, "nodes keep layers of a pull that broke off"),
        };
        // Another pull may have fetched the same.
        let others: HashSet<String> = self
            .live_flights()
            .iter()
            .flat_map(|flight| {
                lock(&flight.shared.stored).iter().map(|layer| layer.diff_id.clone()).collect::<Vec<_>>()
            })
            .collect();
        let diff_ids = stored.into_iter().map(|layer| layer.diff_id);
        self.forget_layers(diff_ids.filter(|id| !recorded.contains(id) && !others.contains(id)).collect()).await;
    }
}

/// Docker tells what is not there apart; every other trouble with a registry is its own.
pub fn as_docker(failure: Failure) -> Failure {
    let kind = match failure.kind {
        ErrorKind::NotFound | ErrorKind::InvalidArgument | ErrorKind::Unimplemented => failure.kind,
        _ => ErrorKind::Internal,
    };
    Failure { kind, ..failure }
}

/// Tells a pull's lines as Docker does: what it pulls from once the registry has answered, and layers only when the
/// image is not there already.
struct Told<'a> {
    shared: &'a Shared,
    from: Option<(String, String)>,
    /// Layers that exist, until it is known that the image itself does not.
    exist: Option<Vec<proto::Progress>>,
}

impl<'a> Told<'a> {
    fn new(shared: &'a Shared, path: &str, what: &str) -> Self {
        Self { shared, from: Some((what.to_owned(), format!("Pulling from {path}"))), exist: Some(Vec::new()) }
    }

    fn step(&mut self, step: proto::Progress) {
        self.begin();
        match &mut self.exist {
            _ if step == proto::Progress::default() => {}
            Some(exist) if step.status == EXISTS => exist.push(step),
            _ => {
                self.tell_existing();
                self.shared.lines.progress(&step);
            }
        }
    }

    fn end(&mut self, is_known: bool) {
        self.begin();
        if !is_known {
            self.tell_existing();
        }
    }

    fn begin(&mut self) {
        if let Some((what, text)) = self.from.take() {
            self.shared.lines.message(&what, &text);
        }
    }

    fn tell_existing(&mut self) {
        for step in self.exist.take().into_iter().flatten() {
            self.shared.lines.progress(&step);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(steps: &[(&str, &str)], is_known: bool) -> Vec<String> {
        let shared = Shared { lines: Lines::new(), stored: Mutex::default() };
        let mut told = Told::new(&shared, "library/x", "v1");
        for (id, status) in steps {
            told.step(proto::Progress { id: (*id).into(), status: (*status).into(), ..Default::default() });
        }
        told.end(is_known);
        shared.lines.end(Ok(()));
        let mut reader = shared.lines.reader();
        let mut seen = Vec::new();
        while let Some(Ok(line)) = reader.next().await {
            seen.push(format!(
                "{}: {}",
                line["id"].as_str().unwrap_or_default(),
                line["status"].as_str().unwrap_or("")
            ));
        }
        seen
    }

    #[tokio::test]
    async fn layers_of_a_known_image_are_not_told() {
        let exist = [("a", EXISTS), ("b", EXISTS)];
        assert_eq!(told(&exist, true).await, ["v1: Pulling from library/x"]);
        assert_eq!(told(&exist, false).await, ["v1: Pulling from library/x", "a: Already exists", "b: Already exists"]);
        let some = [("a", EXISTS), ("b", "Pulling fs layer"), ("c", EXISTS)];
        assert_eq!(told(&some, true).await.len(), 4);
        assert_eq!(told(&[], true).await, ["v1: Pulling from library/x"]);
        assert_eq!(told(&[("", ""), ("a", EXISTS)], true).await, ["v1: Pulling from library/x"]);
    }

    #[test]
    fn other_credentials_are_another_pull() {
        let wanted = |name: &str, user: Option<&str>| Wanted {
            reference: name.parse().expect("a name"),
            platform: None,
            auth: user.map(|user| proto::RegistryAuth { username: user.to_owned(), ..Default::default() }),
        };
        assert!(wanted("x:1", None).key() == wanted("docker.io/library/x:1", None).key());
        assert!(wanted("x:1", None).key() != wanted("x:2", None).key());
        assert!(wanted("x:1", Some("a")).key() != wanted("x:1", None).key());
        assert!(wanted("x:1", Some("a")).key() != wanted("x:1", Some("b")).key());
    }
}
