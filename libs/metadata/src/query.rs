//! One SQL text for both databases: `$1`, only what SQLite and PostgreSQL read alike.

use sqlx::postgres::{PgConnection, PgPool, PgRow, Postgres};
use sqlx::sqlite::{Sqlite, SqliteConnection, SqlitePool, SqliteRow};
use sqlx::{FromRow, Transaction};

use crate::{Database, Error, Pools};

/// A row of either database.
pub(crate) trait Row:
    for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin + 'static
{
}

impl<T> Row for T where T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin + 'static {}

/// What is bound to a placeholder: the types of columns that there are.
pub(crate) enum Value {
    Text(String),
    Int(i64),
    Bytes(Vec<u8>),
    Bool(bool),
}

macro_rules! from {
    ($($given:ty => |$value:ident| $made:expr;)*) => {
        $(impl From<$given> for Value {
            fn from($value: $given) -> Self {
                $made
            }
        })*
    };
}

from! {
    &str => |text| Self::Text(text.to_owned());
    &String => |text| Self::Text(text.clone());
    String => |text| Self::Text(text);
    i64 => |number| Self::Int(number);
    &[u8] => |bytes| Self::Bytes(bytes.to_vec());
    &Vec<u8> => |bytes| Self::Bytes(bytes.clone());
    bool => |truth| Self::Bool(truth);
}

/// Where a statement runs.
enum On<'c> {
    Sqlite(&'c SqlitePool),
    SqliteTx(&'c mut SqliteConnection),
    Postgres(&'c PgPool),
    PostgresTx(&'c mut PgConnection),
}

/// A statement with its values, in the order of their placeholders.
pub(crate) struct Query<'c> {
    on: On<'c>,
    sql: &'static str,
    values: Vec<Value>,
}

/// The statement for one driver, with its values bound.
macro_rules! bound {
    ($made:expr, $values:expr) => {{
        let mut query = $made;
        for value in $values {
            query = match value {
                Value::Text(text) => query.bind(text),
                Value::Int(number) => query.bind(number),
                Value::Bytes(bytes) => query.bind(bytes),
                Value::Bool(truth) => query.bind(truth),
            };
        }
        query
    }};
}

/// Runs the rows' query by `$method`, wherever it belongs.
macro_rules! rows {
    ($query:expr, $row:ty, $method:ident) => {{
        let Query { on, sql, values } = $query;
        match on {
            On::Sqlite(pool) => bound!(sqlx::query_as::<Sqlite, $row>(sql), values).$method(pool).await,
            On::SqliteTx(tx) => bound!(sqlx::query_as::<Sqlite, $row>(sql), values).$method(tx).await,
            On::Postgres(pool) => bound!(sqlx::query_as::<Postgres, $row>(sql), values).$method(pool).await,
            On::PostgresTx(tx) => bound!(sqlx::query_as::<Postgres, $row>(sql), values).$method(tx).await,
        }
    }};
}

impl Query<'_> {
    pub(crate) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    pub(crate) async fn all<T: Row>(self) -> Result<Vec<T>, Error> {
        Ok(rows!(self, T, fetch_all)?)
    }

    /// The first row.
    pub(crate) async fn optional<T: Row>(self) -> Result<Option<T>, Error> {
        Ok(rows!(self, T, fetch_optional)?)
    }

    /// How many rows it has changed.
    pub(crate) async fn run(self) -> Result<u64, Error> {
        let Self { on, sql, values } = self;
        let changed = match on {
            On::Sqlite(pool) => {
                bound!(sqlx::query::<Sqlite>(sql), values).execute(pool).await.map(|done| done.rows_affected())
            }
            On::SqliteTx(tx) => {
                bound!(sqlx::query::<Sqlite>(sql), values).execute(tx).await.map(|done| done.rows_affected())
            }
            On::Postgres(pool) => {
                bound!(sqlx::query::<Postgres>(sql), values).execute(pool).await.map(|done| done.rows_affected())
            }
            On::PostgresTx(tx) => {
                bound!(sqlx::query::<Postgres>(sql), values).execute(tx).await.map(|done| done.rows_affected())
            }
        };
        Ok(changed?)
    }
}

/// A transaction; dropped without [`Tx::commit`] it is rolled back.
pub(crate) enum Tx {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

impl Tx {
    pub(crate) fn query(&mut self, sql: &'static str) -> Query<'_> {
        let on = match self {
            Self::Sqlite(tx) => On::SqliteTx(tx),
            Self::Postgres(tx) => On::PostgresTx(tx),
        };
        Query { on, sql, values: Vec::new() }
    }

    pub(crate) async fn commit(self) -> Result<(), Error> {
        Ok(match self {
            Self::Sqlite(tx) => tx.commit().await,
            Self::Postgres(tx) => tx.commit().await,
        }?)
    }
}

impl Database {
    /// A statement that only reads.
    pub(crate) fn read(&self, sql: &'static str) -> Query<'_> {
        let on = match &self.pools {
            Pools::Sqlite { readers, .. } => On::Sqlite(readers),
            Pools::Postgres(pool) => On::Postgres(pool),
        };
        Query { on, sql, values: Vec::new() }
    }

    /// A statement that is a transaction by itself.
    pub(crate) fn write(&self, sql: &'static str) -> Query<'_> {
        let on = match &self.pools {
            Pools::Sqlite { writer, .. } => On::Sqlite(writer),
            Pools::Postgres(pool) => On::Postgres(pool),
        };
        Query { on, sql, values: Vec::new() }
    }

    /// SQLite lets one transaction write at a time. PostgreSQL's are "read committed": what a transaction decides on it
    /// locks by an UPDATE first, several rows in the order of their keys.
    pub(crate) async fn begin(&self) -> Result<Tx, Error> {
        Ok(match &self.pools {
            Pools::Sqlite { writer, .. } => Tx::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?),
            Pools::Postgres(pool) => Tx::Postgres(pool.begin().await?),
        })
    }
}
