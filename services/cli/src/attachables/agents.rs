//! `--ssh default|ID[=SOCKET]`: a step's connections to an ssh agent, passed on to the agent of this machine.

use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;

use bollard_buildkit_proto::moby::sshforward::v1::ssh_server::Ssh;
use bollard_buildkit_proto::moby::sshforward::v1::{BytesMessage, CheckAgentRequest, CheckAgentResponse};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tonic::{Request, Response, Status, Streaming};

use crate::failure::{Failure, Outcome};

const DEFAULT: &str = "default";
/// Metadata that names the agent.
const ID: &str = "buildkit.ssh.id";

#[derive(Debug, Default)]
pub struct Agents(BTreeMap<String, PathBuf>);

impl Agents {
    /// Reads the flags; each must name a socket that is there.
    pub fn parse(flags: &[String]) -> Outcome<Self> {
        let mut agents = BTreeMap::new();
        for flag in flags {
            let (id, path) = match flag.split_once('=') {
                Some((id, path)) => (id, Some(PathBuf::from(path))),
                None => (flag.as_str(), None),
            };
            let path = match path.or_else(|| std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from)) {
                Some(path) => path,
                None => {
                    return Err(Failure::new("invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set"));
                }
            };
            let is_socket = std::fs::metadata(&path).map(|found| found.file_type().is_socket());
            match is_socket {
                Ok(true) => {}
                Ok(false) => {
                    return Err(Failure::new(format!("{} is no socket of an ssh agent", path.display()))
                        .hint("Private keys are not read: add yours to an agent with ssh-add."));
                }
                Err(e) => {
                    let why = crate::commands::os_words(&e);
                    return Err(Failure::new(format!("could not parse ssh: [{flag}]: stat {}: {why}", path.display())));
                }
            }
            agents.insert(id.to_owned(), path);
        }
        Ok(Self(agents))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find(&self, id: &str) -> Result<&PathBuf, Status> {
        let id = if id.is_empty() { DEFAULT } else { id };
        self.0.get(id).ok_or_else(|| Status::not_found(format!("unset ssh forward key {id}")))
    }
}

#[tonic::async_trait]
impl Ssh for Agents {
    type ForwardAgentStream = BoxStream<'static, Result<BytesMessage, Status>>;

    async fn check_agent(&self, asked: Request<CheckAgentRequest>) -> Result<Response<CheckAgentResponse>, Status> {
        self.find(&asked.into_inner().id)?;
        Ok(Response::new(CheckAgentResponse {}))
    }

    async fn forward_agent(
        &self,
        asked: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::ForwardAgentStream>, Status> {
        let id = asked.metadata().get(ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
        let agent = UnixStream::connect(self.find(id)?).await;
        let agent = agent.map_err(|e| Status::unavailable(format!("failed to connect to the ssh agent: {e}")))?;
        let (from_agent, mut to_agent) = agent.into_split();
        let mut messages = asked.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(message)) = messages.message().await {
                if to_agent.write_all(&message.data).await.is_err() {
                    return;
                }
            }
            let _ = to_agent.shutdown().await;
        });
        let answers = tokio_util::io::ReaderStream::new(from_agent).map(|bytes| match bytes {
            Ok(bytes) => Ok(BytesMessage { data: bytes.to_vec() }),
            Err(error) => Err(Status::unavailable(error.to_string())),
        });
        Ok(Response::new(answers.boxed()))
    }
}
