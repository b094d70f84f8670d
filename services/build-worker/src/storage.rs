//! What this worker keeps on its machine, for who asks.

use crate::failure::Failure;
use crate::layers::blocking;
use crate::space::free_bytes;
use crate::worker::Worker;

/// What the worker keeps; the unpacked layers are those of its whole machine.
pub async fn of(worker: &Worker) -> Result<proto::MachineStorage, Failure> {
    let (snapshots, folder) = (worker.snapshots.clone(), worker.machine.builds.clone());
    let (layers, machine, free_bytes) = blocking(move || {
        let sum = snapshots.unpacking().map_err(Failure::caused)?;
        let layers = proto::KeptFiles { count: sum.layers, bytes: sum.bytes, held_bytes: sum.held_bytes };
        let machine = snapshots.place().map_err(Failure::caused)?;
        Ok((layers, machine, free_bytes(&folder)))
    })
    .await?;
    Ok(proto::MachineStorage {
        machine,
        cap_bytes: worker.cap_bytes,
        free_bytes,
        layers: Some(layers),
        trees: Some(worker.trees.kept()),
        contexts: Some(worker.contexts.kept()),
        caches: worker.caches.copies().await,
    })
}
