use bus::calls::{SyncImport, SyncLoad, SyncSave};
use distribution::Store;

use crate::error::Error;
use crate::{import, load, save};

pub fn router(store: Store) -> bus::Router {
    let (loading, saving, importing) = (store.clone(), store.clone(), store);
    bus::Router::new()
        .on_progress::<SyncLoad, _, _>(move |request, progress| {
            let store = loading.clone();
            async move {
                let stream = dial(request.ticket).await?;
                let images = load::load(store, stream, lease(&request.lease)).await?;
                if !request.quiet {
                    tell(&progress, &images).await;
                }
                Ok(proto::LoadReply { images })
            }
        })
        .on::<SyncSave, _, _>(move |request| {
            let store = saving.clone();
            async move {
                let stream = dial(request.ticket).await?;
                save::save(&store, stream.writer, &request.images).await?;
                Ok(proto::Empty {})
            }
        })
        .on::<SyncImport, _, _>(move |request| {
            let store = importing.clone();
            async move {
                if !request.url.is_empty() {
                    return Err(Error::Unimplemented("importing from a URL is not built yet").into());
                }
                let stream = dial(request.ticket).await?;
                let layer = import::import(store, stream, lease(&request.lease)).await?;
                Ok(proto::ImportReply { layer: Some(layer) })
            }
        })
}

/// Docker's line for each layer.
async fn tell(progress: &bus::ProgressSender, images: &[proto::LoadedImage]) {
    for layer in images.iter().flat_map(|image| &image.layers) {
        let size = layer.blob.as_ref().map_or(0, |blob| blob.size);
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        let id = model::short_id(&layer.diff_id).to_owned();
        let status = "Loading layer".to_owned();
        progress.send(&proto::Progress { id, status, current: size, total: size, stream: String::new() }).await;
    }
}

async fn dial(ticket: Option<proto::Ticket>) -> Result<streams::Duplex, Error> {
    let ticket = ticket.ok_or_else(|| Error::Archive("the call has no stream ticket".to_owned()))?;
    Ok(streams::dial(&ticket.secret, &ticket.address).await?)
}

fn lease(id: &str) -> Option<String> {
    (!id.is_empty()).then(|| id.to_owned())
}
