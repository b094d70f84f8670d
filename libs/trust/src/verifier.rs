use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::config::provider;

/// Takes whoever answers for the server. Only where a person has said so.
pub fn anybody() -> Arc<dyn ServerCertVerifier> {
    Arc::new(Verifier { provider: provider(), trust: Trust::Anybody })
}

/// Takes servers that an authority of `roots` or of `pinned` has signed.
///
/// # Errors
/// Why one of `pinned` cannot be an authority.
pub fn known(
    mut roots: RootCertStore,
    pinned: Vec<CertificateDer<'static>>,
) -> Result<Arc<dyn ServerCertVerifier>, rustls::Error> {
    for certificate in &pinned {
        roots.add(certificate.clone())?;
    }
    let provider = provider();
    let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().ok();
    Ok(Arc::new(Verifier { provider, trust: Trust::Known { webpki, pinned } }))
}

/// Whose certificate is taken. Signatures are checked in any case.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    trust: Trust,
}

#[derive(Debug)]
enum Trust {
    Anybody,
    /// Authorities. A certificate that signed itself is often both authority and server, which webpki refuses; where a
    /// person has put it in as an authority it is meant so, and Docker takes it.
    Known {
        /// None where nothing at all is trusted.
        webpki: Option<Arc<WebPkiServerVerifier>>,
        pinned: Vec<CertificateDer<'static>>,
    },
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (webpki, pinned) = match &self.trust {
            Trust::Anybody => return Ok(ServerCertVerified::assertion()),
            Trust::Known { webpki, pinned } => (webpki, pinned),
        };
        let Some(webpki) = webpki else {
            return Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer));
        };
        match webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // Its time was checked before its use.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(_)))
                if pinned.iter().any(|pinned| pinned.as_ref() == end_entity.as_ref()) =>
            {
                let parsed = ParsedCertificate::try_from(end_entity)?;
                rustls::client::verify_server_name(&parsed, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            // Another's certificate that signed itself: nobody that is known did.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(_))) => {
                Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))
            }
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
