//! `--ssh default|ID[=SOCKET|KEY[,KEY...]]`: what a step asks an ssh agent for goes to the agent of this machine, or to
//! private keys that are read here; they never leave this process.

mod keys;
mod protocol;
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard_buildkit_proto::moby::sshforward::v1::ssh_server::Ssh;
use bollard_buildkit_proto::moby::sshforward::v1::{BytesMessage, CheckAgentRequest, CheckAgentResponse};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::net::UnixStream;
use tokio_util::io::{ReaderStream, StreamReader};
use tonic::{Request, Response, Status, Streaming};

use self::keys::Key;
use self::protocol::Behind;
use crate::commands::os_words;
use crate::failure::{Failure, Outcome};

const DEFAULT: &str = "default";
/// Metadata that names the agent.
const ID: &str = "buildkit.ssh.id";
/// What of an answer waits to be sent, in bytes.
const ANSWER_BYTES: usize = 64 * 1024;

/// Agents by the names that a build asks for.
#[derive(Debug, Default)]
pub struct Agents(BTreeMap<String, Agent>);

#[derive(Debug, Clone)]
enum Agent {
    Socket(PathBuf),
    Keys(Arc<[Key]>),
}

impl Agents {
    /// Reads the flags; each must name the socket of an agent, or private keys.
    ///
    /// # Errors
    /// In buildx' words, for what is not there, is no key, or is encrypted.
    pub fn parse(flags: &[String]) -> Outcome<Self> {
        let mut agents = BTreeMap::new();
        for flag in flags {
            let wrong = |why: String| Failure::new(format!("could not parse ssh: [{flag}]: {why}"));
            let (id, paths) = flag.split_once('=').map_or((flag.as_str(), ""), |(id, paths)| (id, paths));
            let paths: Vec<PathBuf> = paths.split(',').filter(|path| !path.is_empty()).map(PathBuf::from).collect();
            let id = if id.is_empty() { DEFAULT } else { id };
            let agent = match (paths.is_empty(), std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty())) {
                (false, _) => Agent::open(&paths).map_err(wrong)?,
                (true, Some(socket)) => Agent::open(&[PathBuf::from(socket)]).map_err(wrong)?,
                (true, None) => {
                    return Err(Failure::new("invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set"));
                }
            };
            if agents.insert(id.to_owned(), agent).is_some() {
                return Err(Failure::new(format!("duplicate agent ID {id:?}")));
            }
        }
        Ok(Self(agents))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find(&self, id: &str) -> Result<&Agent, Status> {
        let id = if id.is_empty() { DEFAULT } else { id };
        self.0.get(id).ok_or_else(|| Status::not_found(format!("unset ssh forward key {id}")))
    }
}

impl Agent {
    fn open(paths: &[PathBuf]) -> Result<Self, String> {
        let is_socket = |path: &PathBuf| match std::fs::metadata(path) {
            Ok(found) => Ok(found.file_type().is_socket()),
            Err(error) => Err(format!("stat {}: {}", path.display(), os_words(&error))),
        };
        let sockets = paths.iter().map(is_socket).collect::<Result<Vec<_>, _>>()?;
        match (paths, sockets.iter().filter(|is_socket| **is_socket).count()) {
            (_, 0) => Ok(Self::Keys(paths.iter().map(|path| read(path)).collect::<Result<_, _>>()?)),
            ([socket], 1) => Ok(Self::Socket(socket.clone())),
            (_, 1) => Err("invalid combination of keys and sockets".to_owned()),
            _ => Err("only single socket allowed".to_owned()),
        }
    }

    async fn connect(&self) -> io::Result<Behind> {
        Ok(match self {
            Self::Socket(path) => Behind::Socket(UnixStream::connect(path).await?),
            Self::Keys(keys) => Behind::Keys(keys.clone()),
        })
    }
}

fn read(path: &Path) -> Result<Key, String> {
    let content = keys::read(path).map_err(|e| format!("failed to open {}: {}", path.display(), os_words(&e)))?;
    Key::parse(&content).map_err(|why| format!("failed to parse {}: {why}", path.display()))
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
        let behind = self.find(id)?.connect().await;
        let behind = behind.map_err(|e| Status::unavailable(format!("failed to connect to the ssh agent: {e}")))?;
        let requests = asked.into_inner().map_ok(|message| bytes::Bytes::from(message.data)).map_err(io::Error::other);
        let (answers, to_step) = tokio::io::duplex(ANSWER_BYTES);
        tokio::spawn(async move {
            // Whatever it ends with, the step sees its connection end.
            let _ = protocol::serve(StreamReader::new(requests), to_step, behind).await;
        });
        let answers = ReaderStream::new(answers).map(|bytes| match bytes {
            Ok(bytes) => Ok(BytesMessage { data: bytes.to_vec() }),
            Err(error) => Err(Status::unavailable(error.to_string())),
        });
        Ok(Response::new(answers.boxed()))
    }
}
