use model::ErrorKind;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("another gateway has the database in {0} open")]
    Locked(String),
    #[error("bringing the database to this version: {0}")]
    Migrate(String),
    #[error("a row of the database makes no sense: {0}")]
    Row(String),
    #[error("database: {0}")]
    Sql(#[from] sqlx::Error),
    #[error("database: {0}")]
    Io(#[from] std::io::Error),
    /// A unique name that another row has.
    #[error("the name {0} is taken")]
    Taken(String),
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Locked(_) | Self::Taken(_) => ErrorKind::Conflict,
            Self::Row(_) => ErrorKind::Corrupt,
            Self::Migrate(_) | Self::Sql(_) | Self::Io(_) => ErrorKind::Internal,
        }
    }
}
