//! Pulls and pushes that go on, for those who look: what moves, and how far it is.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, Weak};

use super::{App, lock};

/// Words of the steps whose bytes count.
const MOVING: [&str; 2] = ["Downloading", "Pushing"];
/// Words of a layer's last step.
const DONE: [&str; 5] = ["Pull complete", "Already exists", "Pushed", "Layer already exists", "Mounted from"];

/// All that go on. Clones share them.
#[derive(Clone, Default)]
pub struct Transfers(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    last: u64,
    going: BTreeMap<u64, Transfer>,
}

#[derive(Clone, Debug)]
pub struct Transfer {
    pub number: u64,
    /// "pull" or "push".
    pub kind: &'static str,
    /// Familiar name of what moves.
    pub name: String,
    pub started_ms: i64,
    layers: HashMap<String, Layer>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Layer {
    current: u64,
    total: u64,
    is_done: bool,
}

/// One transfer's place in the list; it leaves the list with this.
pub struct Shown {
    all: Transfers,
    number: u64,
    /// Who tells of its end; nobody in tests.
    app: Weak<App>,
}

impl App {
    /// Shows a transfer of a repository's tag or digest that begins, until what is given back is dropped.
    pub fn begin_transfer(&self, kind: &'static str, repository: &str, what: &str) -> Shown {
        let repository = repository.parse().map_or(repository.to_owned(), |name: model::ImageRef| name.familiar_name());
        let name = format!("{repository}{}{what}", if what.contains(':') { '@' } else { ':' });
        let shown = self.transfers.begin(kind, name, self.me.clone());
        self.tell_transfer(shown.number, "began");
        shown
    }

    fn tell_transfer(&self, number: u64, action: &str) {
        self.tell("transfer", action, &number.to_string(), Default::default());
    }
}

impl Transfers {
    fn begin(&self, kind: &'static str, name: String, app: Weak<App>) -> Shown {
        let mut known = lock(&self.0);
        known.last += 1;
        let number = known.last;
        let started_ms = metadata::now_ms();
        known.going.insert(number, Transfer { number, kind, name, started_ms, layers: HashMap::new() });
        Shown { all: self.clone(), number, app }
    }

    pub fn list(&self) -> Vec<Transfer> {
        lock(&self.0).going.values().cloned().collect()
    }
}

impl Shown {
    /// Takes note of one of Docker's progress lines.
    pub fn step(&self, step: &proto::Progress) {
        if step.id.is_empty() || step.status.is_empty() {
            return;
        }
        let mut known = lock(&self.all.0);
        let Some(transfer) = known.going.get_mut(&self.number) else { return };
        let layer = transfer.layers.entry(step.id.clone()).or_default();
        if MOVING.contains(&step.status.as_str()) {
            layer.current = u64::try_from(step.current).unwrap_or(0);
            layer.total = u64::try_from(step.total).unwrap_or(0).max(layer.current);
        }
        if DONE.iter().any(|word| step.status.starts_with(word)) {
            layer.is_done = true;
        }
        if layer.is_done || matches!(step.status.as_str(), "Verifying Checksum" | "Download complete") {
            layer.current = layer.total;
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        lock(&self.all.0).going.remove(&self.number);
        if let Some(app) = self.app.upgrade() {
            app.tell_transfer(self.number, "ended");
        }
    }
}

impl Transfer {
    /// Layers that are done, and all that were heard of.
    pub fn layers(&self) -> (usize, usize) {
        (self.layers.values().filter(|layer| layer.is_done).count(), self.layers.len())
    }

    /// Bytes that have moved, and those of all layers that have begun to move.
    pub fn bytes(&self) -> (u64, u64) {
        self.layers.values().fold((0, 0), |(current, total), layer| (current + layer.current, total + layer.total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_adds_up_its_layers_and_leaves_with_its_end() {
        let transfers = Transfers::default();
        let shown = transfers.begin("pull", "busybox:latest".to_owned(), Weak::new());
        for (id, status, current, total) in [
            ("a", "Pulling fs layer", 0, 0),
            ("b", "Already exists", 0, 0),
            ("a", "Downloading", 30, 100),
            ("c", "Downloading", 50, 50),
            ("c", "Download complete", 0, 0),
            ("c", "Pull complete", 0, 0),
            ("", "Digest: x", 0, 0),
        ] {
            let (id, status) = (id.to_owned(), status.to_owned());
            shown.step(&proto::Progress { id, status, current, total, ..Default::default() });
        }
        let list = transfers.list();
        assert_eq!((list[0].layers(), list[0].bytes()), ((2, 3), (80, 150)));
        drop(shown);
        assert!(transfers.list().is_empty());
    }
}
