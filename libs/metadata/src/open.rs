//! Opening a database: a file of SQLite's, or a server of PostgreSQL's.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{Migration, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions as _, SqlSafeStr as _};

use crate::{Database, Error};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Each connection costs a thread and a page cache; reads here take microseconds.
const READERS: u32 = 2;
const BUSY: Duration = Duration::from_secs(10);
/// PostgreSQL starts a process for each connection.
const CONNECTIONS: u32 = 8;
/// So long a request waits for a connection before it is told that the database does not answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// So long the server is waited for when the gateway starts.
const START_PATIENCE: Duration = Duration::from_secs(45);
const RETRY: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub(crate) enum Pools {
    Sqlite {
        writer: SqlitePool,
        readers: SqlitePool,
        /// Held as long as the database is open: a second gateway on one file refuses to start.
        _lock: Arc<File>,
    },
    Postgres(PgPool),
}

impl Database {
    /// Opens the database that `url` names, and brings it to this version's tables: `sqlite:` is the file `boxyard.db`
    /// in `folder`, which is made where it is missing; `postgres://user:password@host/name` a server's. A server that does not
    /// answer yet is waited for; `waiting` is told once why.
    ///
    /// # Errors
    /// `Conflict` when another process has the file open; `InvalidArgument` for a URL that is none; `Unavailable` when
    /// the server does not answer for 45 seconds.
    pub async fn open(url: &str, folder: &Path, waiting: impl FnOnce(&Error)) -> Result<Self, Error> {
        let pools = match url.split_once(':') {
            Some(("sqlite", "")) => sqlite(folder).await?,
            Some(("postgres" | "postgresql", _)) => postgres(url, waiting).await?,
            _ => {
                // Without the text: it may hold a password.
                let why = "the database's URL is neither sqlite: nor postgres://USER:PASSWORD@HOST:PORT/NAME";
                return Err(Error::Url(why.to_owned()));
            }
        };
        Ok(Self { pools, clock: Default::default() })
    }
}

async fn sqlite(folder: &Path) -> Result<Pools, Error> {
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
    MIGRATIONS.run(&writer).await.map_err(|e| Error::Migrate(e.to_string()))?;
    let readers = SqlitePoolOptions::new().max_connections(READERS).connect_with(options.read_only(true)).await?;
    Ok(Pools::Sqlite { writer, readers, _lock: Arc::new(lock) })
}

async fn postgres(url: &str, waiting: impl FnOnce(&Error)) -> Result<Pools, Error> {
    let options: PgConnectOptions =
        url.parse().map_err(|e| Error::Url(format!("the database's URL cannot be read: {e}")))?;
    // Statements are logged by nobody: they carry what users name.
    let options = options.application_name("boxyard-gateway").disable_statement_logging();
    let until = tokio::time::Instant::now() + START_PATIENCE;
    let mut waiting = Some(waiting);
    let pool = loop {
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(PATIENCE);
        let place = format!("{}:{}", options.get_host(), options.get_port());
        match pool.connect_with(options.clone()).await.map_err(Error::from) {
            Ok(pool) => break pool,
            Err(Error::Unavailable(why)) => {
                let error = Error::Unavailable(format!("PostgreSQL at {place}: {why}"));
                if tokio::time::Instant::now() > until {
                    return Err(error);
                }
                if let Some(waiting) = waiting.take() {
                    waiting(&error);
                }
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => return Err(error),
        }
    };
    let migrations = MIGRATIONS.iter().map(for_postgres).collect();
    Migrator::with_migrations(migrations).run(&pool).await.map_err(|e| Error::Migrate(e.to_string()))?;
    Ok(Pools::Postgres(pool))
}

/// The migrations are written for SQLite in words that both know, but for two: PostgreSQL's bytes have another name, and its
/// texts are to be ordered by their bytes, as SQLite's are, whatever the server's language.
fn for_postgres(migration: &Migration) -> Migration {
    let words = |line: &str| {
        line.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .map(|word| {
                let (name, rest) =
                    word.split_at(word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric() && c != '_').len());
                match name {
                    "BLOB" => format!("BYTEA{rest}"),
                    "TEXT" => format!("TEXT COLLATE \"C\"{rest}"),
                    _ => word.to_owned(),
                }
            })
            .collect::<String>()
    };
    let Migration { version, description, migration_type, sql, checksum: _, no_tx } = migration;
    let sql = AssertSqlSafe(words(sql.as_str())).into_sql_str();
    Migration::new(*version, description.clone(), *migration_type, sql, *no_tx)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_words_are_replaced() {
        let written = "CREATE TABLE a (b TEXT PRIMARY KEY, c BLOB NOT NULL, TEXTUAL BIGINT, d TEXT);";
        let sql = AssertSqlSafe(written).into_sql_str();
        let migration = Migration::new(1, "a".into(), sqlx::migrate::MigrationType::Simple, sql, false);
        assert_eq!(
            for_postgres(&migration).sql.as_str(),
            "CREATE TABLE a (b TEXT COLLATE \"C\" PRIMARY KEY, c BYTEA NOT NULL, TEXTUAL BIGINT, d TEXT COLLATE \"C\");"
        );
    }
}
