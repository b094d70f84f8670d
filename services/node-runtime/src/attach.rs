use bus::Error;
use bytes::Bytes;
use proto::{ContainerAttach, Empty, Ticket};
use runtime::shim::Streams;
use streams::Duplex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::node::Node;
use crate::start::runtime_error;

pub async fn dial(ticket: Option<Ticket>) -> Result<Duplex, Error> {
    let ticket = ticket.ok_or_else(|| Error::invalid("a ticket is missing"))?;
    streams::dial(&ticket.secret, &ticket.address).await.map_err(|e| Error::new(e.kind(), e.to_string()))
}

/// Bytes both ways, until the process' output has ended; `at_end` comes before the client sees that.
pub async fn pump(duplex: Duplex, shim: UnixStream, at_end: impl FnOnce()) {
    let Duplex { mut reader, mut writer } = duplex;
    let (mut output, mut input) = shim.into_split();
    let typed = tokio::spawn(async move {
        while let Ok(Some(bytes)) = reader.next().await {
            if input.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = input.shutdown().await;
    });
    let mut buffer = vec![0; 32 * 1024];
    loop {
        match output.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(n) => {
                if writer.send(Bytes::copy_from_slice(&buffer[..n])).await.is_err() {
                    typed.abort();
                    return;
                }
            }
        }
    }
    at_end();
    let _ = writer.finish().await;
    typed.abort();
}

impl Node {
    pub async fn attach(&self, request: ContainerAttach) -> Result<Empty, Error> {
        let container = self.container(&request.id)?;
        let shim = {
            let _busy = container.busy.lock().await;
            self.ensure_shim(&container).await?
        };
        let (stdin, stdout, stderr) = (request.stdin, request.stdout, request.stderr);
        let joined = match request.stream {
            true => Some(shim.attach(Streams { stdin, stdout, stderr }).await.map_err(runtime_error)?),
            false => None,
        };
        let mut duplex = dial(request.ticket).await?;
        tokio::spawn(async move {
            if request.logs {
                for frame in crate::logs::all(&container, stdout, stderr) {
                    if duplex.writer.send(frame).await.is_err() {
                        return;
                    }
                }
            }
            match joined {
                Some(joined) => pump(duplex, joined, || ()).await,
                None => drop(duplex.writer.finish().await),
            }
        });
        Ok(Empty {})
    }
}
