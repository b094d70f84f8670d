use std::future::Future;
use std::sync::Arc;

use bus::{Error, Router, calls};
use proto::{Empty, NodeEvent, NodeReply};

use crate::node::{Node, lock};

fn reply(events: Vec<NodeEvent>) -> NodeReply {
    NodeReply { events, warnings: Vec::new() }
}

/// A handler with the node in its hand.
fn with<Q, A, F: Future<Output = Result<A, Error>> + Send + 'static>(
    node: &Arc<Node>,
    handler: impl Fn(Arc<Node>, Q) -> F + Send + Sync + 'static,
) -> impl Fn(Q) -> F + Send + Sync + 'static {
    let node = node.clone();
    move |request| handler(node.clone(), request)
}

pub fn router(node: &Arc<Node>) -> Router {
    Router::new()
        .on::<calls::ContainerCreate, _, _>(with(node, |n, q| async move { n.create(q).await.map(reply) }))
        .on::<calls::ContainerAdopt, _, _>(with(node, |n, q| async move { n.adopt(q).await.map(reply) }))
        .on::<calls::ContainerStart, _, _>(with(node, |n, q: proto::ContainerStart| async move {
            n.start(&q.id).await.map(reply)
        }))
        .on::<calls::ContainerStop, _, _>(with(node, |n, q| async move { n.stop(&q).await.map(reply) }))
        .on::<calls::ContainerRestart, _, _>(with(node, |n, q| async move { n.restart(&q).await.map(reply) }))
        .on::<calls::ContainerKill, _, _>(with(node, |n, q: proto::ContainerKill| async move {
            n.kill(&q.id, &q.signal).await.map(reply)
        }))
        .on::<calls::ContainerPause, _, _>(with(node, |n, q: proto::ContainerRef| async move {
            n.pause(&q.id, true).await.map(reply)
        }))
        .on::<calls::ContainerUnpause, _, _>(with(node, |n, q: proto::ContainerRef| async move {
            n.pause(&q.id, false).await.map(reply)
        }))
        .on::<calls::ContainerRename, _, _>(with(node, |n, q: proto::ContainerRename| async move {
            let container = n.container(&q.id)?;
            lock(&container.spec).name = q.name;
            let bytes = prost::Message::encode_to_vec(&container.spec());
            crate::containers::write(&container.dir.join("spec.pb"), &bytes)?;
            Ok(reply(Vec::new()))
        }))
        .on::<calls::ContainerRemove, _, _>(with(node, |n, q| async move { n.remove(&q).await.map(reply) }))
        .on::<calls::ContainerAttach, _, _>(with(node, |n, q| async move { n.attach(q).await }))
        .on::<calls::ContainerLogs, _, _>(with(node, |n, q| async move { n.logs(q).await }))
        .on::<calls::Resize, _, _>(with(node, |n, q| async move { resize(&n, &q).await }))
        .on::<calls::ContainerChanges, _, _>(with(node, |n, q| async move { n.changes(q).await }))
        .on::<calls::ContainerCommit, _, _>(with(node, |n, q| async move { n.commit(q).await }))
        .on::<calls::ContainerExport, _, _>(with(node, |n, q| async move { n.export(q).await }))
        .on::<calls::ContainerSizes, _, _>(with(node, |n, q| async move { n.sizes(q).await }))
        .on::<calls::ContainerTop, _, _>(with(node, |n, q| async move { n.top(q).await }))
        .on::<calls::Prefetch, _, _>(with(node, |n, q| async move { n.prefetch(q) }))
        .on::<calls::ForgetLayers, _, _>(with(node, |n, q| async move { n.forget(q).await }))
        .on::<calls::NodeStorage, _, _>(with(node, |n, q| async move { n.storage(q).await }))
        .on::<calls::ContainerStats, _, _>(with(node, |n, q| async move { n.stats(q).await }))
        .on::<calls::ContainerUpdate, _, _>(with(node, |n, q| async move { n.update(q).await.map(reply) }))
        .on::<calls::ArchiveStat, _, _>(with(node, |n, q| async move { n.archive_stat(q).await }))
        .on::<calls::ArchiveGet, _, _>(with(node, |n, q| async move { n.archive_get(q).await }))
        .on::<calls::ArchivePut, _, _>(with(node, |n, q| async move { n.archive_put(q).await }))
        .on::<calls::VolumeCreate, _, _>(with(node, |n, q| async move { n.volume_create(q) }))
        .on::<calls::VolumeRemove, _, _>(with(node, |n, q| async move { n.volume_remove(&q) }))
        .on::<calls::VolumeList, _, _>(with(node, |n, _| async move { n.volume_list().await }))
        .on::<calls::ExecCreate, _, _>(with(node, |n, q| async move { n.exec_create(q) }))
        .on::<calls::ExecStart, _, _>(with(node, |n, q| async move { n.exec_start(q).await }))
        .on::<calls::ExecInspect, _, _>(with(node, |n, q| async move { n.exec_inspect(&q) }))
}

async fn resize(node: &Node, request: &proto::TerminalSize) -> Result<Empty, Error> {
    let shim = match request.exec_id.is_empty() {
        true => node.container(&request.id)?.shim(),
        false => lock(&node.exec(&request.exec_id)?.shim).clone(),
    };
    let shim = shim.ok_or_else(|| Error::conflict(format!("container {} is not running", request.id)))?;
    shim.resize(request.height as u16, request.width as u16).await.map_err(crate::start::runtime_error)?;
    Ok(Empty {})
}
