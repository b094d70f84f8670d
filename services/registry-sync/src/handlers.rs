use bus::calls::{
    RegistryInspect, RegistryLogin, RegistrySearch, RegistryTags, SyncArchive, SyncCache, SyncImport, SyncLoad,
    SyncPull, SyncPush, SyncSave,
};
use distribution::Store;
use tokio::runtime::Handle;

use crate::error::Error;
use crate::lines::Lines;
use crate::progress::Teller;
use crate::registry::{Remote, archive, cache, pull, push, questions};
use crate::{import, load, save};

pub fn router(remote: Remote) -> bus::Router {
    archives(registries(remote.clone()), remote.store)
}

/// What is asked of other registries; it ends when whoever asked has gone.
fn registries(remote: Remote) -> bus::Router {
    let (pulling, pushing, packing, caching, inspecting, logging_in, searching, listing) = (
        remote.clone(),
        remote.clone(),
        remote.clone(),
        remote.clone(),
        remote.clone(),
        remote.clone(),
        remote.clone(),
        remote,
    );
    bus::Router::new()
        .on_while_wanted::<SyncPull, _, _>(move |request, progress| {
            let remote = pulling.clone();
            async move { Ok(pull::pull(&remote, request, progress).await?) }
        })
        .on_while_wanted::<SyncPush, _, _>(move |request, progress| {
            let remote = pushing.clone();
            async move { Ok(push::push(&remote, request, progress).await?) }
        })
        .on_while_wanted::<SyncCache, _, _>(move |request, progress| {
            let remote = caching.clone();
            async move { Ok(cache::fetch(&remote, request, progress).await?) }
        })
        .on_while_wanted::<SyncArchive, _, _>(move |request, _| {
            let remote = packing.clone();
            async move { Ok(archive::archive(&remote, request).await?) }
        })
        .on_while_wanted::<RegistryInspect, _, _>(move |request, _| {
            let remote = inspecting.clone();
            async move { Ok(questions::inspect(&remote, request).await?) }
        })
        .on_while_wanted::<RegistryLogin, _, _>(move |request, _| {
            let remote = logging_in.clone();
            async move { Ok(questions::login(&remote, request).await?) }
        })
        .on_while_wanted::<RegistrySearch, _, _>(move |request, _| {
            let remote = searching.clone();
            async move { Ok(questions::search(&remote, request).await?) }
        })
        .on_while_wanted::<RegistryTags, _, _>(move |request, _| {
            let remote = listing.clone();
            async move { Ok(questions::tags(&remote, request).await?) }
        })
}

fn archives(router: bus::Router, store: Store) -> bus::Router {
    let (loading, saving, importing) = (store.clone(), store.clone(), store);
    router
        .on_progress::<SyncLoad, _, _>(move |request, progress| {
            let store = loading.clone();
            async move {
                let stream = dial(request.ticket).await?;
                let teller =
                    Teller { to: (!request.quiet).then_some(Lines { to: progress }), runtime: Handle::current() };
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
