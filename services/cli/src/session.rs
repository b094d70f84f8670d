//! The bytes of an attached container or exec, between a hijacked connection and this
//! process's stdin, stdout and stderr.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, WriteHalf};
use tokio::signal::unix::{SignalKind, signal};

use crate::engine::{Engine, Raw};
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::terminal::{self, DetachKeys, RawMode};

pub struct Session {
    pub tty: bool,
    pub stdin: bool,
    pub output: bool,
    pub detach_keys: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Closed,
    Detached,
}

impl Session {
    /// Copies both ways until the output ends or the person detaches.
    pub async fn relay(self, raw: Raw) -> Outcome<End> {
        let keys = DetachKeys::parse(self.detach_keys.as_deref())?;
        let _raw_mode = if self.tty && self.stdin { Some(RawMode::enter()?) } else { None };
        let (mut from, to) = tokio::io::split(raw);
        let input = async {
            if !self.stdin {
                drop(to);
                return std::future::pending().await;
            }
            if send_stdin(to, self.tty.then_some(keys)).await {
                return End::Detached;
            }
            // Without output the session is over when all input is sent.
            if self.output { std::future::pending().await } else { End::Closed }
        };
        let output = async {
            let copied = if self.tty { copy_raw(&mut from).await } else { demultiplex(&mut from).await };
            copied.map(|()| End::Closed)
        };
        tokio::select! {
            end = input => Ok(end),
            end = output => end,
        }
    }
}

/// True when the person detached. At the end of stdin only this direction is closed.
async fn send_stdin(mut to: WriteHalf<Raw>, mut keys: Option<DetachKeys>) -> bool {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; 32 * 1024];
    while let Ok(count @ 1..) = stdin.read(&mut buffer).await {
        let (bytes, detached) = match &mut keys {
            Some(keys) => keys.filter(&buffer[..count]),
            None => (buffer[..count].to_vec(), false),
        };
        if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
            break;
        }
        if detached {
            return true;
        }
    }
    let _ = to.shutdown().await;
    false
}

async fn copy_raw(from: &mut (impl AsyncRead + Unpin)) -> Outcome {
    let mut buffer = vec![0; 32 * 1024];
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(()),
            count => output::write(&buffer[..count]),
        }
    }
}

/// Splits Docker's frames: stream (1 stdout, 2 stderr), three zeros, length, bytes.
pub async fn demultiplex(from: &mut (impl AsyncRead + Unpin)) -> Outcome {
    let mut frame = Vec::new();
    loop {
        let mut head = [0u8; 8];
        match from.read_exact(&mut head).await {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) => return Err(e.into()),
        }
        let mut left = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        while left > 0 {
            // The length is the sender's word: never allocated at once.
            frame.resize(left.min(64 * 1024), 0);
            let count = from.read(&mut frame).await?;
            if count == 0 {
                return Err(Failure::new("the stream broke off in the middle of a frame"));
            }
            match head[0] {
                0 | 1 => output::write(&frame[..count]),
                2 => output::error(&frame[..count]),
                3 => {
                    return Err(Failure::new(format!(
                        "error from daemon in stream: {}",
                        String::from_utf8_lossy(&frame[..count])
                    )));
                }
                other => return Err(Failure::new(format!("Unrecognized input header: {other}"))),
            }
            left -= count;
        }
    }
}

/// Tells the daemon the terminal's size now and at each change; never returns.
/// `path` is `/containers/ID/resize` or `/exec/ID/resize`.
pub async fn follow_size(engine: &Engine, path: &str) {
    let Ok(mut changed) = signal(SignalKind::window_change()) else { return std::future::pending().await };
    loop {
        if let Some((rows, columns)) = terminal::size() {
            for attempt in 0..10u64 {
                let sent = engine.post(path).query("h", rows).query("w", columns).send().await;
                if sent.is_ok() {
                    break;
                }
                // The process may not have its terminal yet.
                tokio::time::sleep(std::time::Duration::from_millis(10 * (attempt + 1))).await;
            }
        }
        changed.recv().await;
    }
}

/// Passes signals of this process on to the container; never returns.
pub async fn proxy_signals(engine: &Engine, container: &str) {
    let kinds = [
        (SignalKind::interrupt(), "INT"),
        (SignalKind::terminate(), "TERM"),
        (SignalKind::hangup(), "HUP"),
        (SignalKind::quit(), "QUIT"),
        (SignalKind::user_defined1(), "USR1"),
        (SignalKind::user_defined2(), "USR2"),
        (SignalKind::alarm(), "ALRM"),
    ];
    let (sender, mut received) = tokio::sync::mpsc::channel(16);
    for (kind, name) in kinds {
        let Ok(mut stream) = signal(kind) else { continue };
        let sender = sender.clone();
        tokio::spawn(async move { while stream.recv().await.is_some() && sender.send(name).await.is_ok() {} });
    }
    while let Some(name) = received.recv().await {
        let _ = engine.post(format!("/containers/{container}/kill")).query("signal", name).send().await;
    }
    std::future::pending().await
}
