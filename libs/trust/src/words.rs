use std::error::Error as StdError;
use std::io;

use rustls::{AlertDescription, CertificateError};

/// What went wrong in TLS with a server, where this is TLS' own error ([`causes`] finds it in a chain).
pub fn tls_words(cause: &(dyn StdError + 'static), host: &str) -> Option<String> {
    cause.downcast_ref::<rustls::Error>().map(|error| words(error, host))
}

/// In the words of Go's client, which are Docker's.
pub(crate) fn words(error: &rustls::Error, host: &str) -> String {
    match error {
        rustls::Error::InvalidMessage(_) => "http: server gave HTTP response to HTTPS client".to_owned(),
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            // The second is an authority that only has the name of the right one.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "x509: certificate signed by unknown authority".to_owned()
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => {
                "x509: certificate has expired or is not yet valid".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("x509: certificate is not valid for {host}")
            }
            other => format!("x509: {other}"),
        },
        rustls::Error::AlertReceived(alert) => format!("remote error: tls: {}", alert_words(*alert)),
        rustls::Error::InconsistentKeys(_) => "tls: private key does not match public key".to_owned(),
        other => format!("tls: {other}"),
    }
}

/// Go's names of the alerts that a server sends to a client that it does not let in.
fn alert_words(alert: AlertDescription) -> String {
    let known = match alert {
        AlertDescription::AccessDenied => "access denied",
        AlertDescription::BadCertificate => "bad certificate",
        AlertDescription::CertificateExpired => "expired certificate",
        AlertDescription::CertificateRequired => "certificate required",
        AlertDescription::CertificateRevoked => "revoked certificate",
        AlertDescription::CertificateUnknown => "unknown certificate",
        AlertDescription::DecryptError => "error decrypting message",
        AlertDescription::HandshakeFailure => "handshake failure",
        AlertDescription::InternalError => "internal error",
        AlertDescription::ProtocolVersion => "protocol version not supported",
        AlertDescription::UnknownCA => "unknown certificate authority",
        AlertDescription::UnrecognisedName => "unrecognized name",
        AlertDescription::UnsupportedCertificate => "unsupported certificate",
        other => return format!("{other:?}"),
    };
    known.to_owned()
}

/// An error and what lies beneath it; an `io::Error` made of another error, as TLS makes them, hides that one from
/// `source`.
pub fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |cause| beneath(*cause))
}

fn beneath<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(hidden) => Some(hidden as &(dyn StdError + 'static)),
        None => cause.source(),
    }
}
