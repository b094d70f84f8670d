//! The ssh agent's protocol (draft-ietf-sshm-ssh-agent), as far as a build may speak it: it may list keys and have things
//! signed. Keys are neither added nor removed, and no agent is locked, for a step.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::keys::Key;
use super::wire::{Reader, Writer};

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
/// OpenSSH's own limit of a message.
const MAX_BYTES: u32 = 256 * 1024;

/// Who answers.
pub enum Behind {
    Socket(UnixStream),
    Keys(Arc<[Key]>),
}

/// Answers one request after the other until the step has no more.
pub async fn serve(
    mut requests: impl AsyncRead + Unpin,
    mut answers: impl AsyncWrite + Unpin,
    mut behind: Behind,
) -> io::Result<()> {
    while let Some(request) = read(&mut requests).await? {
        let answer = match request.first() {
            Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)) => behind.answer(&request).await?,
            _ => vec![FAILURE],
        };
        write(&mut answers, &answer).await?;
    }
    Ok(())
}

impl Behind {
    async fn answer(&mut self, request: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Socket(agent) => {
                write(agent, request).await?;
                read(agent).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
            }
            Self::Keys(keys) => Ok(match request[0] {
                REQUEST_IDENTITIES => list(keys),
                _ => sign(keys, &request[1..]).unwrap_or_else(|| vec![FAILURE]),
            }),
        }
    }
}

fn list(keys: &[Key]) -> Vec<u8> {
    let count = u32::try_from(keys.len()).unwrap_or(u32::MAX);
    let answer = Writer::default().byte(IDENTITIES_ANSWER).number(count);
    keys.iter().fold(answer, |answer, key| answer.string(key.public()).string(key.comment().as_bytes())).done()
}

/// None where the key is not one of these, or cannot sign so.
fn sign(keys: &[Key], request: &[u8]) -> Option<Vec<u8>> {
    let mut request = Reader(request);
    let (public, data, flags) = (request.string()?, request.string()?, request.number()?);
    let signature = keys.iter().find(|key| key.public() == public)?.sign(data, flags)?;
    Some(Writer::default().byte(SIGN_RESPONSE).string(&signature).done())
}

async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => drop(read?),
    }
    let length = u32::from_be_bytes(length);
    if length > MAX_BYTES {
        return Err(io::Error::other(format!("a message of {length} bytes")));
    }
    let mut message = vec![0; length as usize];
    from.read_exact(&mut message).await?;
    Ok(Some(message))
}

async fn write(to: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    to.write_all(&Writer::default().string(message).done()).await?;
    to.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered(behind: Behind, requests: &[&[u8]]) -> Vec<Vec<u8>> {
        let sent: Vec<u8> = requests.iter().flat_map(|request| Writer::default().string(request).done()).collect();
        let mut answers = Vec::new();
        serve(sent.as_slice(), &mut answers, behind).await.expect("served");
        let mut reader = Reader(&answers);
        std::iter::from_fn(|| reader.string().map(<[u8]>::to_vec)).collect()
    }

    #[tokio::test]
    async fn a_step_may_list_and_sign_only() {
        let add = Writer::default().byte(17).string(b"key").done();
        let unknown = Writer::default().byte(SIGN_REQUEST).string(b"no key").string(b"data").number(0).done();
        let keys = || Behind::Keys(Arc::new([]));
        let answers = answered(keys(), &[&[REQUEST_IDENTITIES], &add, &[19], &unknown, &[SIGN_REQUEST], &[]]).await;
        assert_eq!(answers[0], [IDENTITIES_ANSWER, 0, 0, 0, 0]);
        assert!(answers[1..].iter().all(|answer| answer == &[FAILURE]) && answers.len() == 6, "{answers:?}");
    }

    #[tokio::test]
    async fn an_agent_is_asked_nothing_else() {
        let (ours, mut agent) = UnixStream::pair().expect("a pair");
        let asked = tokio::spawn(async move {
            let asked = read(&mut agent).await.expect("read");
            write(&mut agent, b"answer").await.expect("written");
            (asked, read(&mut agent).await.expect("read"))
        });
        let answers = answered(Behind::Socket(ours), &[&[19], &[REQUEST_IDENTITIES]]).await;
        assert_eq!(answers, [vec![FAILURE], b"answer".to_vec()]);
        assert_eq!(asked.await.expect("joined"), (Some(vec![REQUEST_IDENTITIES]), None));
    }

    #[tokio::test]
    async fn a_long_message_ends_the_connection() {
        let sent = (MAX_BYTES + 1).to_be_bytes();
        assert!(serve(sent.as_slice(), Vec::new(), Behind::Keys(Arc::new([]))).await.is_err());
    }
}
