use std::collections::HashMap;
use std::sync::{Arc, Mutex as StdMutex, PoisonError, Weak};

use tokio::sync::Mutex;

use super::manifest::Blob;

/// Work on one layer that is under way. Whoever comes later waits for the lock and finds the result, or does it itself
/// when the first one failed or was called off.
#[derive(Default)]
pub struct Flights {
    layers: StdMutex<HashMap<String, Weak<Flight>>>,
    packs: StdMutex<HashMap<String, Weak<Pack>>>,
}

/// The layer once it is in the layer store.
pub type Flight = Mutex<Option<proto::Layer>>;
/// The packed layer once it is in the layer store.
pub type Pack = Mutex<Option<Blob>>;

impl Flights {
    /// `key` ties the packed digest to the diff id: a layer is the same only when both are.
    pub fn layer(&self, key: &str) -> Arc<Flight> {
        shared(&self.layers, key)
    }

    /// By diff id and packing.
    pub fn pack(&self, key: &str) -> Arc<Pack> {
        shared(&self.packs, key)
    }
}

fn shared<T: Default>(map: &StdMutex<HashMap<String, Weak<T>>>, key: &str) -> Arc<T> {
    // The map is whole after every statement.
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = map.get(key).and_then(Weak::upgrade) {
        return known;
    }
    map.retain(|_, weak| weak.strong_count() > 0);
    let new = Arc::new(T::default());
    map.insert(key.to_owned(), Arc::downgrade(&new));
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_has_one_flight_while_somebody_wants_it() {
        let flights = Flights::default();
        let first = flights.layer("a");
        assert!(Arc::ptr_eq(&first, &flights.layer("a")));
        assert!(!Arc::ptr_eq(&first, &flights.layer("b")));
        *first.try_lock().expect("free") = Some(proto::Layer::default());
        drop(first);
        assert!(flights.layer("a").try_lock().expect("free").is_none(), "results do not outlive those who want them");
    }
}
