//! The name in a certificate, as far as it is needed: X.690 DER, RFC 5280 section 4.1.

use rustls::pki_types::CertificateDer;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// Context-specific 0: the version, which may be left out.
const VERSION: u8 = 0xa0;
const UTF8: u8 = 0x0c;
const PRINTABLE: u8 = 0x13;
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// The common name of a certificate's subject: the last one, where there are several.
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (whole, _) = take(certificate.as_ref(), SEQUENCE)?;
    let (mut rest, _) = take(whole, SEQUENCE)?;
    if let Some((_, after)) = take(rest, VERSION) {
        rest = after;
    }
    // Serial number, signature algorithm, issuer, validity.
    for _ in 0..4 {
        (_, _, rest) = element(rest)?;
    }
    let (mut subject, _) = take(rest, SEQUENCE)?;
    let mut name = None;
    while let Some((mut attributes, after)) = take(subject, SET) {
        subject = after;
        while let Some((attribute, after)) = take(attributes, SEQUENCE) {
            attributes = after;
            let (_, kind, value) = element(attribute)?;
            if kind == COMMON_NAME {
                name = text(value);
            }
        }
    }
    name
}

fn text(value: &[u8]) -> Option<String> {
    let (tag, bytes, _) = element(value)?;
    matches!(tag, UTF8 | PRINTABLE).then(|| String::from_utf8(bytes.to_vec()).ok()).flatten()
}

/// The content of the first element, where it has this tag, and what follows it.
fn take(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(bytes)?;
    (found == tag).then_some((content, rest))
}

/// Tag, content and what follows of the first element.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, bytes) = bytes.split_first()?;
    let (first, mut bytes) = bytes.split_first()?;
    let mut length = usize::from(*first);
    if length >= 0x80 {
        // So many bytes of length follow; a certificate has no more than 16 MiB.
        let (digits, rest) = bytes.split_at_checked(length - 0x80).filter(|(digits, _)| digits.len() <= 3)?;
        length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
        bytes = rest;
    }
    let (content, rest) = bytes.split_at_checked(length)?;
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str]) -> CertificateDer<'static> {
        let mut parameters = rcgen::CertificateParams::new(vec!["host.example".to_owned()]).expect("parameters");
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(rcgen::DnType::OrganizationName, "an organization");
        for name in names {
            parameters.distinguished_name.push(rcgen::DnType::CommonName, *name);
        }
        let key = rcgen::KeyPair::generate().expect("a key");
        parameters.self_signed(&key).expect("signed").der().clone()
    }

    #[test]
    fn names_of_certificates() {
        for (names, found) in [(&["anna"][..], Some("anna")), (&["Jürgen"], Some("Jürgen")), (&[], None)] {
            assert_eq!(common_name(&certificate(names)).as_deref(), found, "{names:?}");
        }
    }

    #[test]
    fn what_is_cut_or_spoilt_has_no_name_and_harms_nobody() {
        let whole = certificate(&["anna"]);
        for length in 0..whole.len() {
            // It must only not panic: what is cut behind the subject may still be read.
            common_name(&CertificateDer::from(whole[..length].to_vec()));
            let mut spoilt = whole.to_vec();
            spoilt[length] = 0xff;
            common_name(&CertificateDer::from(spoilt));
        }
        assert_eq!(common_name(&CertificateDer::from(whole[..40].to_vec())), None);
    }
}
