use model::ErrorKind;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("another gateway has the database in {0} open")]
    Locked(String),
    #[error("bringing the database to this version: {0}")]
    Migrate(String),
    #[error("a row of the database makes no sense: {0}")]
    Row(String),
    #[error("{0}")]
    Url(String),
    #[error("the database does not answer: {0}")]
    Unavailable(String),
    #[error("database: {0}")]
    Sql(sqlx::Error),
    #[error("database: {0}")]
    Io(#[from] std::io::Error),
    /// A unique name that another row has.
    #[error("the name {0} is taken")]
    Taken(String),
    /// The image that the row would stand on has gone.
    #[error("No such image: {0}")]
    NoImage(String),
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Locked(_) | Self::Taken(_) => ErrorKind::Conflict,
            Self::NoImage(_) => ErrorKind::NotFound,
            Self::Url(_) => ErrorKind::InvalidArgument,
            Self::Unavailable(_) => ErrorKind::Unavailable,
            Self::Row(_) => ErrorKind::Corrupt,
            Self::Migrate(_) | Self::Sql(_) | Self::Io(_) => ErrorKind::Internal,
        }
    }

    /// A row with this key is there already.
    pub(crate) fn is_unique_violation(&self) -> bool {
        matches!(self, Self::Sql(sqlx::Error::Database(error)) if error.is_unique_violation())
    }

    /// A row that this one names is gone, or one that goes is named still.
    pub(crate) fn is_foreign_key_violation(&self) -> bool {
        matches!(self, Self::Sql(sqlx::Error::Database(error)) if error.is_foreign_key_violation())
    }
}

/// Whether a row was written; false when what it names is gone.
pub(crate) fn unless_gone(done: Result<u64, Error>) -> Result<bool, Error> {
    match done {
        Err(error) if error.is_foreign_key_violation() => Ok(false),
        other => other.map(|_| true),
    }
}

impl From<sqlx::Error> for Error {
    /// A server that is gone is told apart from a statement that failed: the same request may be sent again.
    fn from(error: sqlx::Error) -> Self {
        let gone = match &error {
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
                true
            }
            // PostgreSQL, "Error Codes": connections, too many of them, a server that ends, starts or recovers, a deadlock.
            sqlx::Error::Database(error) => error.code().is_some_and(|code| {
                code.len() == 5
                    && (code.starts_with("08")
                        || code.starts_with("57P0")
                        || matches!(code.as_ref(), "53300" | "40P01" | "40001" | "25006"))
            }),
            _ => false,
        };
        if gone { Self::Unavailable(error.to_string()) } else { Self::Sql(error) }
    }
}
