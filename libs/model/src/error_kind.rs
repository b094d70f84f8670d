/// Why something failed, as far as a caller may act on it. Closed: every error of every room maps to one of these,
/// whether to retry follows from it, and it crosses two borders only: bus to wire, and kind to HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    NotFound,
    AlreadyExists,
    InvalidArgument,
    Conflict,
    Unauthenticated,
    Denied,
    /// A limit or a disk is full.
    Exhausted,
    /// A process or a peer is not there now; the same call may succeed later.
    Unavailable,
    Timeout,
    Cancelled,
    /// Stored or received bytes are not what their digest or format says.
    Corrupt,
    Internal,
    /// Known by name and not built yet.
    Unimplemented,
    /// Already in the wanted state (Docker's 304).
    NotModified,
}

impl ErrorKind {
    const ALL: [Self; 14] = [
        Self::NotFound,
        Self::AlreadyExists,
        Self::InvalidArgument,
        Self::Conflict,
        Self::Unauthenticated,
        Self::Denied,
        Self::Exhausted,
        Self::Unavailable,
        Self::Timeout,
        Self::Cancelled,
        Self::Corrupt,
        Self::Internal,
        Self::Unimplemented,
        Self::NotModified,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::AlreadyExists => "already-exists",
            Self::InvalidArgument => "invalid-argument",
            Self::Conflict => "conflict",
            Self::Unauthenticated => "unauthenticated",
            Self::Denied => "denied",
            Self::Exhausted => "exhausted",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Corrupt => "corrupt",
            Self::Internal => "internal",
            Self::Unimplemented => "unimplemented",
            Self::NotModified => "not-modified",
        }
    }

    /// Inverse of [`Self::as_str`]; an unknown word is `Internal`, since a newer peer may know more kinds.
    pub fn from_wire(word: &str) -> Self {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word).unwrap_or(Self::Internal)
    }

    /// The same request may be sent again.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::Timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_words_come_back() {
        for kind in ErrorKind::ALL {
            assert_eq!(ErrorKind::from_wire(kind.as_str()), kind);
        }
        assert_eq!(ErrorKind::from_wire("of tomorrow"), ErrorKind::Internal);
    }
}
