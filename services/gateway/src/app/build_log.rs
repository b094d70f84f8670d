//! The log of a build from its first chunk to its last, by whichever gateway and whenever: live from the bus, later as it
//! was stored.
//!
//! A stored log is one blob: chunks (`proto::BuildLog`), each after its length as a varint, compressed by zstd.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::BoxStream;
use model::ErrorKind;
use prost::Message as _;
use proto::BuildLog;
use proto::build_log::What;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::builds::Ended;
use super::{App, Failure, Outcome};

/// A silent build is looked at so often: its workers may have died with it.
const LOOK: Duration = Duration::from_secs(5);
/// So long a database that does not answer is asked whose words count.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(1);
/// No chunk is longer: text is cut at 64 KiB, and the vertices of a step are small.
const CHUNK_MAX_BYTES: u64 = 4 << 20;

/// Reads a build's log: what the workers say, or have said, that it was given to, one attempt after the other.
pub struct BuildLogReader {
    app: Arc<App>,
    id: String,
    source: Source,
    /// Why no worker can take the build, as it was told last.
    told: Option<String>,
    /// What is told next, of a build whose end no log tells of.
    last: Option<BuildLog>,
    attempt: u32,
    holder: String,
    /// Another one's chunk was passed over.
    warned: bool,
    /// The build has ended; the end of its log may be on its way still.
    over: bool,
    ended: bool,
}

enum Source {
    Live(BoxStream<'static, Result<bus::Written, bus::Error>>),
    Stored(BoxStream<'static, Outcome<BuildLog>>),
}

impl App {
    /// The log of a build that is queued, runs, or is remembered.
    ///
    /// # Errors
    /// `NotFound` for a build that is not remembered, or whose log is not.
    pub async fn read_build_log(self: &Arc<Self>, id: &str) -> Outcome<BuildLogReader> {
        match self.db.recorded_log(id).await? {
            Some(stored) if stored.log.is_empty() => Err(Failure::not_found(format!("build {id} left no log"))),
            Some(stored) => {
                let reader = self.store.get_to_reader(&stored.log.parse()?).await?;
                Ok(self.reader(id, Source::Stored(decoded(reader))))
            }
            None if self.db.build(id).await?.is_none() => Err(Failure::not_found(format!("no such build: {id}"))),
            None => self.follow_build_log(id).await,
        }
    }

    /// The log of a build that is not over, or has just ended; may be asked for before the build is queued.
    pub async fn follow_build_log(self: &Arc<Self>, id: &str) -> Outcome<BuildLogReader> {
        let log = self.bus.build_log(id).await?;
        Ok(self.reader(id, Source::Live(log.boxed())))
    }

    /// What a build that is not recorded yet has said so far.
    pub async fn build_log_so_far(self: &Arc<Self>, id: &str) -> Outcome<BuildLogReader> {
        let log = self.bus.build_log_so_far(id).await?;
        Ok(self.reader(id, Source::Live(log.boxed())))
    }

    fn reader(self: &Arc<Self>, id: &str, source: Source) -> BuildLogReader {
        let (app, id) = (self.clone(), id.to_owned());
        BuildLogReader {
            app,
            id,
            source,
            told: None,
            last: None,
            attempt: 0,
            holder: String::new(),
            warned: false,
            over: false,
            ended: false,
        }
    }
}

impl BuildLogReader {
    /// The next chunk; after the last one, which is an end or an error, there is none. Of a build whose end no log tells
    /// of, the record is told as the last chunk.
    ///
    /// # Errors
    /// What keeps the rest of the log from being read: nothing comes after it.
    pub async fn next(&mut self) -> Option<Outcome<BuildLog>> {
        if self.ended {
            return None;
        }
        let next = match &mut self.source {
            _ if self.last.is_some() => self.last.take().map(Ok),
            Source::Stored(chunks) => chunks.next().await,
            Source::Live(_) => self.next_live().await,
        };
        self.ended = match &next {
            Some(Ok(chunk)) => matches!(chunk.what, Some(What::End(_) | What::Error(_))),
            Some(Err(_)) | None => true,
        };
        next
    }

    async fn next_live(&mut self) -> Option<Outcome<BuildLog>> {
        loop {
            let Source::Live(log) = &mut self.source else { return None };
            let written = tokio::select! {
                written = log.next() => written?,
                () = tokio::time::sleep(LOOK) => match self.app.how_ended(&self.id).await {
                    Some(_) if !std::mem::replace(&mut self.over, true) => continue,
                    Some(ended) => return Some(Ok(self.tell_end(ended))),
                    None => match self.why_it_waits().await {
                        Some(why) => return Some(Ok(why)),
                        None => continue,
                    },
                },
            };
            let bus::Written { user, chunk } = match written {
                Ok(written) => written,
                Err(error) => return Some(Err(error.into())),
            };
            let chunk = match chunk {
                Ok(chunk) => chunk,
                // Anybody may write such a thing; how a build ended that lost its last word so is known from its record.
                Err(error) => {
                    tracing::warn!(%error, build_id = self.id, user, "what is no chunk of a log is not shown");
                    continue;
                }
            };
            match self.counts_patiently(&user, &chunk).await {
                Ok(true) => return Some(Ok(chunk)),
                Ok(false) => {}
                Err(failure) => return Some(Err(failure)),
            }
        }
    }

    /// As [`Self::counts`]; a database that does not answer is asked again, since the log waits.
    async fn counts_patiently(&mut self, user: &str, chunk: &BuildLog) -> Outcome<bool> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.counts(user, chunk).await {
                Err(failure) if failure.kind.is_retryable() && Instant::now() < until => {
                    tracing::info!(%failure, build_id = self.id, "whose build this is is not known yet");
                    tokio::time::sleep(PAUSE).await;
                }
                counts => return counts,
            }
        }
    }

    /// Every worker may write into the log; what one says that never had the build, or that comes after a later attempt's
    /// words, does not count.
    async fn counts(&mut self, user: &str, chunk: &BuildLog) -> Outcome<bool> {
        if chunk.attempt < self.attempt {
            return Ok(false);
        }
        let is_last = matches!(chunk.what, Some(What::End(_) | What::Error(_)));
        if chunk.attempt != self.attempt || user != self.holder || is_last {
            // What an earlier attempt has said stays said, but only who has the build ends it.
            let counts = match is_last {
                true => self.app.is_held_by(user, &self.id, chunk.attempt).await?,
                false => self.app.had(user, &self.id, chunk.attempt).await?,
            };
            if !counts {
                // Each of its chunks would say the same.
                if !std::mem::replace(&mut self.warned, true) {
                    let build_id = &self.id;
                    tracing::warn!(build_id, chunk.attempt, user, "this is not its build, or no more: not shown");
                }
                return Ok(false);
            }
            (self.attempt, self.holder) = (chunk.attempt, user.to_owned());
        }
        Ok(true)
    }

    /// What a build says that no worker can take: told anew only when it changes.
    async fn why_it_waits(&mut self) -> Option<BuildLog> {
        let why = self.app.why_waits(&self.id).await;
        let is_new = why != self.told;
        self.told.clone_from(&why);
        let text = why.filter(|_| is_new)?;
        Some(BuildLog { what: Some(What::Stream(format!("{text}\n"))), ..BuildLog::default() })
    }

    /// The first of the chunks that stand for a lost end.
    fn tell_end(&mut self, ended: Ended) -> BuildLog {
        let attempt = self.attempt;
        let chunk = |what, error_code| BuildLog {
            attempt,
            number: u64::MAX,
            what: Some(what),
            error_code,
            ..BuildLog::default()
        };
        match ended {
            Ended::Built { image_id } => {
                self.last = Some(chunk(What::End(true), 0));
                chunk(What::Stream(format!("Successfully built {}\n", model::short_id(&image_id))), 0)
            }
            Ended::Failed { why, code } => chunk(What::Error(why), code.unwrap_or_default()),
        }
    }
}

/// The chunks of a stored log. Read on a thread of its own, only as far ahead as they are taken.
fn decoded(stored: impl Read + Send + 'static) -> BoxStream<'static, Outcome<BuildLog>> {
    let (sender, chunks) = mpsc::channel(16);
    tokio::task::spawn_blocking(move || {
        let mut reader = match zstd::Decoder::new(stored) {
            Ok(decoder) => std::io::BufReader::new(decoder),
            Err(error) => return drop(sender.blocking_send(Err(corrupt(&error)))),
        };
        loop {
            let chunk = read_chunk(&mut reader).map_err(|error| corrupt(&error)).transpose();
            let Some(chunk) = chunk else { return };
            let is_last = chunk.is_err();
            if sender.blocking_send(chunk).is_err() || is_last {
                return;
            }
        }
    });
    ReceiverStream::new(chunks).boxed()
}

/// The next chunk; `None` at the end.
fn read_chunk(reader: &mut impl std::io::BufRead) -> std::io::Result<Option<BuildLog>> {
    if reader.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut length = 0u64;
    for shift in (0..).step_by(7).take(5) {
        let mut byte = [0];
        reader.read_exact(&mut byte)?;
        length |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] < 0x80 {
            break;
        }
    }
    if length > CHUNK_MAX_BYTES {
        return Err(std::io::Error::other(format!("a chunk of {length} bytes")));
    }
    let mut bytes = Vec::new();
    reader.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    BuildLog::decode(bytes.as_slice()).map(Some).map_err(std::io::Error::other)
}

fn corrupt(error: &std::io::Error) -> Failure {
    Failure::new(ErrorKind::Corrupt, format!("the build's log cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(number: u64, text: &str) -> BuildLog {
        BuildLog { attempt: 1, number, what: Some(What::Stream(text.to_owned())), ..BuildLog::default() }
    }

    #[tokio::test]
    async fn a_stored_log_is_read_as_it_was_written() {
        let chunks = [chunk(0, "a"), chunk(1, &"long ".repeat(20_000)), chunk(2, "")];
        let bytes: Vec<u8> = chunks.iter().flat_map(prost::Message::encode_length_delimited_to_vec).collect();
        let stored = zstd::encode_all(bytes.as_slice(), 3).expect("compressed");
        let read: Vec<_> = decoded(std::io::Cursor::new(stored.clone())).collect().await;
        let read: Vec<BuildLog> =
            read.into_iter().map(|chunk| chunk.map_err(|failure| failure.message).expect("read")).collect();
        assert_eq!(read, chunks);
        for broken in
            [&stored[..stored.len() / 2], b"not compressed", &zstd::encode_all(&[0xff; 9][..], 3).expect("compressed")]
        {
            let read: Vec<_> = decoded(std::io::Cursor::new(broken.to_vec())).collect().await;
            assert!(matches!(read.last(), Some(Err(failure)) if failure.kind == ErrorKind::Corrupt));
        }
    }
}
