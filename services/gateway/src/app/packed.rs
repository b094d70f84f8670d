//! How layers look in registries: which packed blob holds a layer, and where it is shown.

use super::{App, Outcome};

impl App {
    pub(super) async fn record_packed(&self, packed: Vec<proto::PackedLayer>) -> Outcome<()> {
        let rows: Vec<metadata::Packed> = packed.into_iter().map(row).collect();
        Ok(self.db.record_packed(&rows).await?)
    }

    /// What is known of these layers: first what the layer store itself holds.
    pub(super) async fn packed_of(&self, diff_ids: &[String]) -> Outcome<Vec<proto::PackedLayer>> {
        Ok(self.db.packed_of(diff_ids).await?.into_iter().map(message).collect())
    }
}

fn row(packed: proto::PackedLayer) -> metadata::Packed {
    let proto::PackedLayer { diff_id, blob, repository } = packed;
    let proto::Descriptor { media_type, digest, size } = blob.unwrap_or_default();
    metadata::Packed { diff_id, digest, media_type, size, repository }
}

fn message(packed: metadata::Packed) -> proto::PackedLayer {
    let metadata::Packed { diff_id, digest, media_type, size, repository } = packed;
    proto::PackedLayer { diff_id, blob: Some(proto::Descriptor { media_type, digest, size }), repository }
}
