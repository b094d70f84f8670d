//! What this worker keeps on its machine, for who asks.

use crate::failure::Failure;
use crate::layers::blocking;
use crate::space::free_bytes;
use crate::worker::Worker;

/// What the worker keeps; the unpacked layers are those of its whole machine.
pub async fn of(worker: &Worker, ask: proto::StorageAsk) -> Result<proto::MachineStorage, Failure> {
    let (snapshots, folder) = (worker.snapshots.clone(), worker.machine.builds.clone());
    let (layers, machine, free_bytes, layer) = blocking(move || {
        let sum = snapshots.unpacking().map_err(Failure::caused)?;
        let layers = proto::KeptFiles { count: sum.layers, bytes: sum.bytes, held_bytes: sum.held_bytes };
        let machine = snapshots.place().map_err(Failure::caused)?;
        let layer = match ask.diff_id.parse() {
            Ok(diff_id) => snapshots.copy(&diff_id).map_err(Failure::caused)?,
            Err(_) => None,
        };
        let layer = layer.map(|(bytes, holders)| proto::LayerCopy { bytes, holders });
        Ok((layers, machine, free_bytes(&folder), layer))
    })
    .await?;
    Ok(proto::MachineStorage {
        machine,
        cap_bytes: worker.cap_bytes,
        free_bytes,
        layers: Some(layers),
        trees: Some(worker.trees.kept()),
        contexts: Some(worker.contexts.kept()),
        layer,
        caches: worker.caches.copies(),
    })
}
