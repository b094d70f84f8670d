use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::{Duplex, Error};

/// How long a ticket may be used.
const LIFE: Duration = Duration::from_secs(10);
const SECRET_HEX: usize = 64;
const ACCEPTED: u8 = b'+';

type Hash = [u8; 32];

/// The gateway's stream listener and the tickets that it has given out.
pub struct Tickets {
    address: String,
    waiting: Mutex<HashMap<Hash, oneshot::Sender<Duplex>>>,
}

/// What the other side needs to dial back.
#[derive(Clone, Debug)]
pub struct Ticket {
    pub secret: String,
    pub address: String,
}

/// How the listener is reached from elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What tickets say in place of the address that is listened on, `tls:host:port`.
    pub advertise: Option<String>,
    /// For `tls:`; its certificate names the host of the advertised address.
    pub identity: Option<trust::Identity>,
}

/// A ticket that waits for its dial-back; void when dropped.
pub struct Pending {
    tickets: Arc<Tickets>,
    hash: Hash,
    arrival: oneshot::Receiver<Duplex>,
}

impl Tickets {
    /// Listens on `unix:/path` (a stale socket there is replaced) or `tcp:ip:port`, both for one machine only.
    ///
    /// # Errors
    /// `Io` when the address is malformed or taken.
    pub async fn listen(address: &str) -> Result<Arc<Self>, Error> {
        Self::listen_as(address, Options::default()).await
    }

    /// The same, and `tls:ip:port` for other machines, which takes an identity.
    ///
    /// # Errors
    /// `Io` when an address is malformed or taken, or the identity cannot be used.
    pub async fn listen_as(address: &str, options: Options) -> Result<Arc<Self>, Error> {
        let Options { advertise, identity } = options;
        if let Some(advertised) = &advertise {
            parse(advertised)?;
        }
        match parse(address)? {
            Address::Unix(path) => {
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
                let listener = UnixListener::bind(&path)?;
                let tickets = Self::new(advertise.unwrap_or_else(|| address.to_owned()));
                tokio::spawn(accept_unix(tickets.clone(), listener));
                Ok(tickets)
            }
            Address::Tcp(host) => {
                let listener = TcpListener::bind(&host).await?;
                let own = format!("tcp:{}", listener.local_addr()?);
                let tickets = Self::new(advertise.unwrap_or(own));
                tokio::spawn(accept_tcp(tickets.clone(), listener));
                Ok(tickets)
            }
            Address::Tls(host) => {
                let identity = identity.ok_or_else(|| invalid(format!("{address} takes a certificate and its key")))?;
                let config = trust::server(&identity, None).map_err(std::io::Error::other)?;
                let listener = trust::Listener::new(TcpListener::bind(&host).await?, config)?;
                let own = format!("tls:{}", listener.local_addr());
                let tickets = Self::new(advertise.unwrap_or(own));
                tokio::spawn(accept_tls(tickets.clone(), listener));
                Ok(tickets)
            }
        }
    }

    fn new(address: String) -> Arc<Self> {
        Arc::new(Self { address, waiting: Mutex::default() })
    }

    /// A new ticket, and the end that waits for it.
    pub fn issue(self: &Arc<Self>) -> (Ticket, Pending) {
        let secret = hex::encode(rand::random::<[u8; 32]>());
        let hash = hash(secret.as_bytes());
        let (sender, arrival) = oneshot::channel();
        self.lock().insert(hash, sender);
        (Ticket { secret, address: self.address.clone() }, Pending { tickets: self.clone(), hash, arrival })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Hash, oneshot::Sender<Duplex>>> {
        // The map is whole after every statement, so a panic elsewhere does not spoil it.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn welcome<R, W>(self: Arc<Self>, mut reader: R, mut writer: W)
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let mut secret = [0u8; SECRET_HEX];
        if !matches!(timeout(LIFE, reader.read_exact(&mut secret)).await, Ok(Ok(_))) {
            return;
        }
        let Some(waiting) = self.lock().remove(&hash(&secret)) else { return };
        if writer.write_all(&[ACCEPTED]).await.is_ok() && writer.flush().await.is_ok() {
            // Nobody waits any more: dropping the stream tells the other side.
            let _ = waiting.send(Duplex::new(reader, writer));
        }
    }
}

impl Pending {
    /// The stream, when the other side dials back within the ticket's life.
    ///
    /// # Errors
    /// `NoDialBack`.
    pub async fn accept(mut self) -> Result<Duplex, Error> {
        match timeout(LIFE, &mut self.arrival).await {
            Ok(Ok(duplex)) => Ok(duplex),
            _ => Err(Error::NoDialBack),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.tickets.lock().remove(&self.hash);
    }
}

/// How this process reaches other machines' streams, in place of the host that tickets name.
static HOST: OnceLock<String> = OnceLock::new();

/// Makes this process dial streams of other machines at `host`. The first call counts.
pub fn dial_at(host: &str) {
    let _ = HOST.set(host.to_owned());
}

/// Dials back with a ticket.
///
/// # Errors
/// `Refused` when the ticket is used, too old or unknown; `Io` when nobody listens.
pub async fn dial(secret: &str, address: &str) -> Result<Duplex, Error> {
    match parse(address)? {
        Address::Unix(path) => {
            let (reader, writer) = UnixStream::connect(path).await?.into_split();
            present(secret, reader, writer).await
        }
        Address::Tcp(host) => {
            let stream = TcpStream::connect(host).await?;
            stream.set_nodelay(true)?;
            let (reader, writer) = stream.into_split();
            present(secret, reader, writer).await
        }
        Address::Tls(host) => {
            let address = at(host, HOST.get().map(String::as_str));
            let (reader, writer) = tokio::io::split(trust::connect(&address).await?);
            present(secret, reader, writer).await
        }
    }
}

async fn present<R, W>(secret: &str, mut reader: R, mut writer: W) -> Result<Duplex, Error>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    writer.write_all(secret.as_bytes()).await?;
    // TLS keeps what is not flushed.
    writer.flush().await?;
    match reader.read_u8().await {
        Ok(ACCEPTED) => Ok(Duplex::new(reader, writer)),
        _ => Err(Error::Refused),
    }
}

async fn accept_unix(tickets: Arc<Tickets>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (reader, writer) = stream.into_split();
                tokio::spawn(tickets.clone().welcome(reader, writer));
            }
            // Out of descriptors: others will close some.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn accept_tcp(tickets: Arc<Tickets>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                let (reader, writer) = stream.into_split();
                tokio::spawn(tickets.clone().welcome(reader, writer));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn accept_tls(tickets: Arc<Tickets>, mut listener: trust::Listener) {
    loop {
        let (stream, _) = listener.accept().await;
        let (reader, writer) = tokio::io::split(stream);
        tokio::spawn(tickets.clone().welcome(reader, writer));
    }
}

enum Address {
    Unix(PathBuf),
    Tcp(String),
    Tls(String),
}

fn parse(address: &str) -> Result<Address, Error> {
    match address.split_once(':') {
        Some(("unix", path)) => Ok(Address::Unix(path.into())),
        Some(("tcp", host)) => Ok(Address::Tcp(host.to_owned())),
        Some(("tls", host)) => Ok(Address::Tls(host.to_owned())),
        _ => Err(invalid(format!("not a stream address: {address}"))),
    }
}

/// `address` with another host, where there is one.
fn at(address: String, host: Option<&str>) -> String {
    match (host, address.rsplit_once(':')) {
        (Some(host), Some((_, port))) if host.contains(':') => format!("[{host}]:{port}"),
        (Some(host), Some((_, port))) => format!("{host}:{port}"),
        _ => address,
    }
}

fn invalid(what: String) -> Error {
    std::io::Error::new(std::io::ErrorKind::InvalidInput, what).into()
}

fn hash(secret: &[u8]) -> Hash {
    Sha256::digest(secret).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    async fn pair() -> (Arc<Tickets>, Duplex, Duplex, Ticket) {
        let tickets = Tickets::listen("tcp:127.0.0.1:0").await.expect("a free port");
        let (ticket, pending) = tickets.issue();
        let (ours, theirs) = tokio::join!(pending.accept(), dial(&ticket.secret, &ticket.address));
        (tickets, ours.expect("accepted"), theirs.expect("dialled"), ticket)
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_and_each_way_ends_by_itself() {
        let (_tickets, mut ours, mut theirs, _) = pair().await;
        ours.writer.send(Bytes::from_static(b"in")).await.expect("sent");
        ours.writer.finish().await.expect("ended");
        assert_eq!(theirs.reader.next().await.expect("read"), Some(Bytes::from_static(b"in")));
        assert_eq!(theirs.reader.next().await.expect("clean end"), None);
        theirs.writer.send(Bytes::from_static(b"out")).await.expect("the other way is still open");
        theirs.writer.finish().await.expect("ended");
        assert_eq!(ours.reader.next().await.expect("read"), Some(Bytes::from_static(b"out")));
        assert_eq!(ours.reader.next().await.expect("clean end"), None);
    }

    #[test]
    fn another_name_keeps_the_port() {
        for (host, wanted) in
            [(None, "10.0.0.1:7422"), (Some("head"), "head:7422"), (Some("fd00::1"), "[fd00::1]:7422")]
        {
            assert_eq!(at("10.0.0.1:7422".to_owned(), host), wanted);
        }
        assert_eq!(at("[fd00::1]:7422".to_owned(), Some("10.0.0.1")), "10.0.0.1:7422");
    }

    #[tokio::test]
    async fn a_broken_stream_is_no_clean_end() {
        let (_tickets, mut ours, theirs, _) = pair().await;
        drop(theirs);
        assert!(matches!(ours.reader.next().await, Err(Error::Aborted)));
        let (_tickets, mut ours, theirs, _) = pair().await;
        theirs.writer.fail("disk full").await.expect("sent");
        assert!(matches!(ours.reader.next().await, Err(Error::Peer(words)) if words == "disk full"));
    }

    #[tokio::test]
    async fn a_ticket_is_used_once_and_void_when_nobody_waits() {
        let (tickets, _ours, _theirs, used) = pair().await;
        assert!(matches!(dial(&used.secret, &used.address).await, Err(Error::Refused)));
        let (void, pending) = tickets.issue();
        drop(pending);
        assert!(matches!(dial(&void.secret, &void.address).await, Err(Error::Refused)));
    }
}
