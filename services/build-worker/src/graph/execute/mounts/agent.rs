//! The client's SSH agent: a socket in the step, each of whose connections goes to the client.

use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use bus::calls;
use model::ErrorKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::super::Executor;
use super::Mounted;
use crate::client::BuildClient;
use crate::container::bind;
use crate::failure::{Doing as _, Failure};
use crate::tree::Tree;

const BUFFER_BYTES: usize = 16 * 1024;
/// Where the agent is when nothing else is said, as with BuildKit.
const USUAL_PLACE: &str = "/run/buildkit/ssh_agent";

/// The socket's end here. Connections end with it.
pub struct Agent(#[expect(dead_code, reason = "it serves as long as it lives")] AbortOnDropHandle<()>);

/// Whom connections go to.
#[derive(Clone)]
struct Client {
    client: BuildClient,
    request: proto::SshForward,
}

impl Executor {
    /// Adds the agent; one that the client has not may be left out.
    pub(super) async fn agent(
        &self,
        tree: &Tree,
        mounted: &mut Mounted,
        wanted: &proto::StepMount,
    ) -> Result<(), Failure> {
        let (build_id, attempt, id) = (self.build_id.clone(), self.attempt, wanted.id.clone());
        let client = Client { client: self.client.clone(), request: proto::SshForward { build_id, attempt, id } };
        let missing = || Failure::user(format!("no SSH key {:?} forwarded from the client", wanted.id));
        // Asked once before the step begins: it is not to fail in the middle.
        let there = match self.client.has_session() {
            false => Err(missing()),
            true => client.ticket().await.map(drop).map_err(|error| match error.kind() {
                ErrorKind::NotFound => missing(),
                _ => error.into(),
            }),
        };
        match there {
            Err(Failure::User(_)) if !wanted.required => return Ok(()),
            other => other?,
        }
        let number = mounted.agents.len();
        let name = format!("agent{number}");
        let listener = listen(tree.folder(), &name, wanted).doing(|| "listening for a step's SSH agent".to_owned())?;
        mounted.agents.push(Agent(AbortOnDropHandle::new(tokio::spawn(serve(listener, client)))));
        let target = match wanted.target.as_str() {
            "" => format!("{USUAL_PLACE}.{number}"),
            target => target.to_owned(),
        };
        if number == 0 {
            mounted.env.push(format!("SSH_AUTH_SOCK={target}"));
        }
        mounted.mounts.push(bind(tree.folder().join(name), target));
        Ok(())
    }
}

fn listen(folder: &Path, name: &str, wanted: &proto::StepMount) -> std::io::Result<UnixListener> {
    // The name of a socket is short; that of its folder need not be.
    let opened = std::fs::File::open(folder)?;
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/{name}", opened.as_raw_fd()))?;
    let path = folder.join(name);
    std::os::unix::fs::chown(&path, Some(wanted.uid), Some(wanted.gid))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(wanted.mode))?;
    Ok(listener)
}

async fn serve(listener: UnixListener, client: Client) {
    let mut going = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((connection, _)) => {
                    let client = client.clone();
                    going.spawn(async move {
                        if let Err(error) = client.forward(connection).await {
                            tracing::debug!(%error, "a connection to a client's agent ended");
                        }
                    });
                }
                Err(error) => return tracing::warn!(%error, "a step's SSH agent is gone"),
            },
            Some(_) = going.join_next() => {}
        }
    }
}

impl Client {
    async fn ticket(&self) -> Result<proto::SshForwardReply, bus::Error> {
        self.client.ask::<calls::SshForward>(&self.request).await
    }

    async fn forward(&self, mut connection: UnixStream) -> Result<(), Failure> {
        let proto::SshForwardReply { address, ticket } = self.ticket().await?;
        let streams::Duplex { mut reader, mut writer } =
            streams::dial(&ticket, &address).await.map_err(Failure::caused)?;
        let (mut from, mut to) = connection.split();
        let out = async {
            let mut buffer = vec![0; BUFFER_BYTES];
            loop {
                let length = from.read(&mut buffer).await.doing(|| "reading of an agent's client".to_owned())?;
                if length == 0 {
                    return writer.finish().await.map_err(Failure::caused);
                }
                writer.send(buffer[..length].to_vec().into()).await.map_err(Failure::caused)?;
            }
        };
        let back = async {
            while let Some(bytes) = reader.next().await.map_err(Failure::caused)? {
                to.write_all(&bytes).await.doing(|| "writing to an agent's client".to_owned())?;
            }
            to.shutdown().await.doing(|| "writing to an agent's client".to_owned())
        };
        tokio::try_join!(out, back).map(drop)
    }
}
