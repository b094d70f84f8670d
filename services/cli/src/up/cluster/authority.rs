//! The cluster's authority and the certificates that it signs: made by `cluster init`, signed anew by `cluster renew`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::failure::{Failure, Outcome};
use crate::up::config::write_private;

/// Of every certificate, the authority's too.
pub const LIFE_YEARS: i32 = 20;

/// Writes `ca.pem`, `ca.key`, a certificate with its key for each server, and `client/` as DOCKER_CERT_PATH wants it.
/// `names` are the head's addresses and names.
pub fn create(folder: &Path, names: &[String]) -> Outcome {
    let client = folder.join("client");
    fs::create_dir_all(&client)?;
    for private in [folder, &client] {
        fs::set_permissions(private, fs::Permissions::from_mode(0o700))?;
    }
    let issuer = CertifiedIssuer::self_signed(authority()?, key()?).map_err(failed)?;
    write_private(&folder.join("ca.key"), issuer.key().serialize_pem().as_bytes())?;
    write_private(&folder.join("ca.pem"), issuer.pem().as_bytes())?;
    write_private(&client.join("ca.pem"), issuer.pem().as_bytes())?;
    issue(folder, names, &issuer)
}

/// Replaces every certificate and key but the authority's.
pub fn renew(folder: &Path, names: &[String]) -> Outcome {
    let path = folder.join("ca.key");
    let text = fs::read_to_string(&path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
    let key = KeyPair::from_pem(&text).map_err(failed)?;
    issue(folder, names, &Issuer::new(authority()?, key))
}

/// What the authority's own certificate says; its name and key make it the issuer of others.
fn authority() -> Outcome<CertificateParams> {
    let mut params = params("Boxyard cluster", &[])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn issue(folder: &Path, names: &[String], issuer: &Issuer<'_, KeyPair>) -> Outcome {
    let client = folder.join("client");
    let own: Vec<String> = names.iter().cloned().chain(["localhost".into(), "127.0.0.1".into()]).collect();
    let server = |name: &str, names: &[String]| -> Outcome {
        sign(issuer, name, names, ExtendedKeyUsagePurpose::ServerAuth, &folder.join(name))
    };
    server("nats", names)?;
    server("store", names)?;
    server("streams", names)?;
    server("api", &own)?;
    sign(issuer, "client", &[], ExtendedKeyUsagePurpose::ClientAuth, &client.join("cert"))?;
    // Docker's name for it.
    fs::rename(client.join("cert.key"), client.join("key.pem"))?;
    Ok(())
}

/// Writes `<path>.pem` and `<path>.key`.
fn sign(
    issuer: &Issuer<'_, KeyPair>,
    common_name: &str,
    names: &[String],
    purpose: ExtendedKeyUsagePurpose,
    path: &Path,
) -> Outcome {
    let mut params = params(common_name, names)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    params.use_authority_key_identifier_extension = true;
    let key = key()?;
    let certificate = params.signed_by(&key, issuer).map_err(failed)?;
    write_private(&path.with_extension("pem"), certificate.pem().as_bytes())?;
    write_private(&path.with_extension("key"), key.serialize_pem().as_bytes())
}

fn params(common_name: &str, names: &[String]) -> Outcome<CertificateParams> {
    let mut params = CertificateParams::new(names.to_vec()).map_err(failed)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    // From the day before, for a machine whose clock is behind.
    let from = jiff::Zoned::now().date().yesterday().map_err(failed)?;
    params.not_before = date_time_ymd(from.year().into(), from.month().unsigned_abs(), from.day().unsigned_abs());
    params.not_after = date_time_ymd(i32::from(from.year()) + LIFE_YEARS, 1, 1);
    Ok(params)
}

fn key() -> Outcome<KeyPair> {
    KeyPair::generate().map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(format!("making the cluster's certificates: {error}"))
}
