use bus::calls::{SyncImport, SyncLoad, SyncSave};
use distribution::Store;
use tokio::runtime::Handle;

use crate::error::Error;
use crate::progress::Teller;
use crate::{import, load, save};

pub fn router(store: Store) -> bus::Router {
    let (loading, saving, importing) = (store.clone(), store.clone(), store);
    bus::Router::new()
        .on_progress::<SyncLoad, _, _>(move |request, progress| {
            let store = loading.clone();
            async move {
                let stream = dial(request.ticket).await?;
                let teller = Teller { to: (!request.quiet).then_some(progress), runtime: Handle::current() };
                let images = load::load(store, stream, lease(&request.lease), teller).await?;
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
                let lease = lease(&request.lease);
                let layer = match request.url.as_str() {
                    "" => import::import(store, dial(request.ticket).await?, lease).await?,
                    url => import::import_url(store, url, lease).await?,
                };
                Ok(proto::ImportReply { layer: Some(layer) })
            }
        })
}

async fn dial(ticket: Option<proto::Ticket>) -> Result<streams::Duplex, Error> {
    let ticket = ticket.ok_or_else(|| Error::Archive("the call has no stream ticket".to_owned()))?;
    Ok(streams::dial(&ticket.secret, &ticket.address).await?)
}

fn lease(id: &str) -> Option<String> {
    (!id.is_empty()).then(|| id.to_owned())
}
