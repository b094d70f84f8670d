//! The database of the gateway: images, tags, containers, build steps, builds. The only room that names sqlx.
//!
//! Entry point: [`Database::open`]. One connection writes, several read (SQLite, WAL). Messages of the bus are kept
//! encoded and are not looked into here. A change of a container is applied only when its (epoch, sequence) is newer
//! than the one that the row holds, in one transaction with the position in the stream of events.

mod builds;
mod containers;
mod error;
mod images;
mod steps;

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

pub use builds::{Build, Leased};
pub use containers::{Change, Container};
pub use error::Error;
pub use images::{Image, Layer};

const READERS: u32 = 4;
const BUSY: Duration = Duration::from_secs(10);

/// The open database; clones share it.
#[derive(Clone)]
pub struct Database {
    writer: SqlitePool,
    readers: SqlitePool,
    /// Held as long as the database is open: a second gateway on one file refuses to start.
    _lock: std::sync::Arc<File>,
}

impl Database {
    /// Opens `folder/boxyard.db`, makes it where it is missing, and brings it to this version's tables.
    ///
    /// # Errors
    /// `Conflict` when another process has it open.
    pub async fn open(folder: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(folder)?;
        let lock = File::create(folder.join("boxyard.db.lock"))?;
        lock.try_lock().map_err(|_| Error::Locked(folder.display().to_string()))?;
        let options = SqliteConnectOptions::new()
            .filename(folder.join("boxyard.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .foreign_keys(true)
            .busy_timeout(BUSY);
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        sqlx::migrate!("./migrations").run(&writer).await.map_err(|e| Error::Migrate(e.to_string()))?;
        let readers = SqlitePoolOptions::new().max_connections(READERS).connect_with(options.read_only(true)).await?;
        Ok(Self { writer, readers, _lock: std::sync::Arc::new(lock) })
    }

    /// How far the stream `stream` is applied.
    pub async fn position(&self, stream: &str) -> Result<u64, Error> {
        let row: Option<(i64,)> = sqlx::query_as("SELECT number FROM position WHERE stream = $1")
            .bind(stream)
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.map_or(0, |row| row.0.cast_unsigned()))
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64)
}
