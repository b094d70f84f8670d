use bytes::{Bytes, BytesMut};
use futures::Stream;
use model::ErrorKind;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

const DATA: u8 = 0;
const END: u8 = 1;
const FAILURE: u8 = 2;
/// A frame above this is not from our writer.
const MAX_FRAME_BYTES: usize = 1 << 20;
/// What the writer puts into one frame at most.
const CHUNK_BYTES: usize = 256 << 10;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the stream was broken off")]
    Aborted,
    /// The other side gave up, in its own words.
    #[error("{0}")]
    Peer(String),
    #[error("nobody dialled back for the stream")]
    NoDialBack,
    #[error("the stream ticket was refused")]
    Refused,
    #[error("stream: {0}")]
    Io(#[from] std::io::Error),
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Aborted | Self::Io(_) => ErrorKind::Unavailable,
            Self::Peer(_) => ErrorKind::Internal,
            Self::NoDialBack => ErrorKind::Timeout,
            Self::Refused => ErrorKind::Denied,
        }
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => error,
            other => Self::other(other),
        }
    }
}

/// Both directions of one stream; they end apart from each other.
pub struct Duplex {
    pub reader: Reader,
    pub writer: Writer,
}

pub struct Reader {
    inner: Box<dyn AsyncRead + Send + Unpin>,
    ended: bool,
}

/// Dropped without [`Writer::finish`] the other side sees [`Error::Aborted`].
pub struct Writer {
    inner: Box<dyn AsyncWrite + Send + Unpin>,
}

impl Duplex {
    pub(crate) fn new(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        Self { reader: Reader { inner: Box::new(reader), ended: false }, writer: Writer { inner: Box::new(writer) } }
    }
}

impl Reader {
    /// The next bytes; `None` at the clean end. Not cancel safe: a half-read frame is lost with its future.
    ///
    /// # Errors
    /// `Aborted` when the connection closed before the end, `Peer` with the other side's words when it failed.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.ended {
            return Ok(None);
        }
        let mut head = [0u8; 5];
        self.fill(&mut head).await?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(Error::Aborted);
        }
        let mut payload = BytesMut::zeroed(length);
        self.fill(&mut payload).await?;
        match head[0] {
            DATA => Ok(Some(payload.freeze())),
            END => {
                self.ended = true;
                Ok(None)
            }
            FAILURE => Err(Error::Peer(String::from_utf8_lossy(&payload).into_owned())),
            _ => Err(Error::Aborted),
        }
    }

    async fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        match self.inner.read_exact(buffer).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(Error::Aborted),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Err(Error::Aborted),
            Err(error) => Err(error.into()),
        }
    }

    /// The same as a stream, for bodies.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, Error>> + Send {
        futures::stream::try_unfold(
            self,
            |mut reader| async move { Ok(reader.next().await?.map(|bytes| (bytes, reader))) },
        )
    }

    /// The same as a reader.
    pub fn into_async_read(self) -> impl AsyncRead + Send {
        use futures::StreamExt as _;
        tokio_util::io::StreamReader::new(self.into_stream().map(|item| item.map_err(std::io::Error::from)).boxed())
    }
}

impl Writer {
    /// Sends bytes; waits while the other side does not take them.
    ///
    /// # Errors
    /// `Io` when the connection is gone.
    pub async fn send(&mut self, bytes: Bytes) -> Result<(), Error> {
        for chunk in bytes.chunks(CHUNK_BYTES) {
            self.frame(DATA, chunk).await?;
        }
        Ok(())
    }

    /// Ends this direction cleanly.
    ///
    /// # Errors
    /// `Io` when the connection is gone.
    pub async fn finish(mut self) -> Result<(), Error> {
        self.frame(END, &[]).await?;
        self.inner.shutdown().await?;
        Ok(())
    }

    /// Ends this direction with a failure in words.
    ///
    /// # Errors
    /// `Io` when the connection is gone.
    pub async fn fail(mut self, message: &str) -> Result<(), Error> {
        self.frame(FAILURE, message.as_bytes()).await?;
        self.inner.shutdown().await?;
        Ok(())
    }

    async fn frame(&mut self, kind: u8, payload: &[u8]) -> Result<(), Error> {
        let length = (payload.len() as u32).to_be_bytes();
        let head = [kind, length[0], length[1], length[2], length[3]];
        self.inner.write_all(&head).await?;
        self.inner.write_all(payload).await?;
        self.inner.flush().await?;
        Ok(())
    }
}
