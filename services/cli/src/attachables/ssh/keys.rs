//! Private keys that are read from files, and what they sign (RFC 4253 and 8332 for RSA, 5656 for ECDSA, 8709 for Ed25519).

use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use num_bigint::BigUint;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use ssh_key::private::{EcdsaKeypair, KeypairData, RsaKeypair};

use super::wire::Writer;

/// No private key is longer, in bytes.
const MAX_BYTES: u64 = 100 * 1024;
/// Flags of a request to sign with an RSA key.
const RSA_SHA2_256: u32 = 2;
const RSA_SHA2_512: u32 = 4;
const OPENSSH: &str = "OPENSSH PRIVATE KEY";
const PKCS1: &str = "RSA PRIVATE KEY";
const PKCS8: &str = "PRIVATE KEY";

/// What a private key cannot be read for, in the words of Go's ssh package.
const NO_KEY: &str = "ssh: no key found";
const ENCRYPTED: &str = "ssh: this private key is passphrase protected";

pub struct Key {
    /// The public key, as SSH writes it.
    public: Vec<u8>,
    comment: String,
    secret: Secret,
}

enum Secret {
    Ed25519(Ed25519KeyPair),
    Rsa(Box<RsaKeyPair>),
    /// With the curve's name.
    Ecdsa(&'static str, EcdsaKeyPair),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("comment", &self.comment).finish_non_exhaustive()
    }
}

/// Reads a key's file, as far as a key may be long.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    crate::regular::read(path, MAX_BYTES)
}

impl Key {
    /// Reads a private key in OpenSSH's own format, or PKCS#1 and PKCS#8 in PEM.
    ///
    /// # Errors
    /// In words that stand behind the file's name.
    pub fn parse(content: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(content).map_err(|_| NO_KEY.to_owned())?;
        let (label, body) = armour(text).ok_or_else(|| NO_KEY.to_owned())?;
        if label.contains("ENCRYPTED") || body.contains("ENCRYPTED") {
            return Err(ENCRYPTED.to_owned());
        }
        if label == OPENSSH {
            return of_openssh(text);
        }
        let der = STANDARD.decode(body.split_whitespace().collect::<String>()).map_err(|_| NO_KEY.to_owned())?;
        let secret = match label {
            PKCS1 => RsaKeyPair::from_der(&der).map(|pair| Secret::Rsa(Box::new(pair))).map_err(|e| e.to_string())?,
            PKCS8 => of_pkcs8(&der)?,
            other => return Err(format!("ssh: unsupported key type {other:?}")),
        };
        Ok(Self::new(secret, String::new()))
    }

    fn new(secret: Secret, comment: String) -> Self {
        Self { public: secret.public(), comment, secret }
    }

    pub fn public(&self) -> &[u8] {
        &self.public
    }

    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// A signature as SSH writes it; `None` for an algorithm that is not to be had: RSA with SHA-1.
    pub fn sign(&self, data: &[u8], flags: u32) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        let (name, signature) = match &self.secret {
            Secret::Ed25519(pair) => ("ssh-ed25519".to_owned(), pair.sign(data).as_ref().to_vec()),
            Secret::Ecdsa(curve, pair) => {
                let fixed = pair.sign(&random, data).ok()?;
                let (r, s) = fixed.as_ref().split_at(fixed.as_ref().len() / 2);
                (format!("ecdsa-sha2-{curve}"), Writer::default().mpint(r).mpint(s).done())
            }
            Secret::Rsa(pair) => {
                let (name, how): (_, &dyn signature::RsaEncoding) = match flags {
                    flags if flags & RSA_SHA2_512 != 0 => ("rsa-sha2-512", &signature::RSA_PKCS1_SHA512),
                    flags if flags & RSA_SHA2_256 != 0 => ("rsa-sha2-256", &signature::RSA_PKCS1_SHA256),
                    _ => return None,
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(how, &random, data, &mut signature).ok()?;
                (name.to_owned(), signature)
            }
        };
        Some(Writer::default().string(name.as_bytes()).string(&signature).done())
    }
}

impl Secret {
    fn public(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(pair) => Writer::default().string(b"ssh-ed25519").string(pair.public_key().as_ref()).done(),
            Self::Rsa(pair) => {
                let public: PublicKeyComponents<Vec<u8>> = pair.public().into();
                Writer::default().string(b"ssh-rsa").mpint(&public.e).mpint(&public.n).done()
            }
            Self::Ecdsa(curve, pair) => Writer::default()
                .string(format!("ecdsa-sha2-{curve}").as_bytes())
                .string(curve.as_bytes())
                .string(pair.public_key().as_ref())
                .done(),
        }
    }
}

/// The kind of what stands between the first two lines of dashes, and its text.
fn armour(text: &str) -> Option<(&str, &str)> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    Some((label, body))
}

fn of_openssh(text: &str) -> Result<Key, String> {
    let key = ssh_key::PrivateKey::from_openssh(text).map_err(|error| format!("ssh: {error}"))?;
    if key.is_encrypted() {
        return Err(ENCRYPTED.to_owned());
    }
    let secret = match key.key_data() {
        KeypairData::Ed25519(pair) => {
            let made = Ed25519KeyPair::from_seed_and_public_key(pair.private.as_ref(), pair.public.as_ref());
            Secret::Ed25519(made.map_err(|error| error.to_string())?)
        }
        KeypairData::Rsa(pair) => of_rsa(pair)?,
        KeypairData::Ecdsa(EcdsaKeypair::NistP256 { public, private }) => {
            ecdsa("nistp256", private.as_slice(), public.as_bytes())?
        }
        KeypairData::Ecdsa(EcdsaKeypair::NistP384 { public, private }) => {
            ecdsa("nistp384", private.as_slice(), public.as_bytes())?
        }
        _ => return Err(format!("ssh: unsupported key type {:?}", key.algorithm().as_str())),
    };
    Ok(Key::new(secret, key.comment().to_owned()))
}

fn of_pkcs8(der: &[u8]) -> Result<Secret, String> {
    if let Ok(pair) = RsaKeyPair::from_pkcs8(der) {
        return Ok(Secret::Rsa(Box::new(pair)));
    }
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
        return Ok(Secret::Ed25519(pair));
    }
    for (curve, algorithm) in CURVES {
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(algorithm, der, &SystemRandom::new()) {
            return Ok(Secret::Ecdsa(curve, pair));
        }
    }
    Err("ssh: unsupported key type \"PRIVATE KEY\"".to_owned())
}

const CURVES: [(&str, &signature::EcdsaSigningAlgorithm); 2] = [
    ("nistp256", &signature::ECDSA_P256_SHA256_FIXED_SIGNING),
    ("nistp384", &signature::ECDSA_P384_SHA384_FIXED_SIGNING),
];

fn ecdsa(curve: &str, private: &[u8], public: &[u8]) -> Result<Secret, String> {
    let (curve, algorithm) = CURVES.into_iter().find(|(name, _)| *name == curve).ok_or_else(|| NO_KEY.to_owned())?;
    let random = SystemRandom::new();
    let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, private, public, &random);
    pair.map(|pair| Secret::Ecdsa(curve, pair)).map_err(|error| error.to_string())
}

/// OpenSSH leaves out what can be computed.
fn of_rsa(pair: &RsaKeypair) -> Result<Secret, String> {
    let bytes = |number: &ssh_key::Mpint| number.as_positive_bytes().map(<[u8]>::to_vec).unwrap_or_default();
    let (d, p, q) = (bytes(&pair.private.d), bytes(&pair.private.p), bytes(&pair.private.q));
    let big = |bytes: &[u8]| BigUint::from_bytes_be(bytes);
    let below = |prime: &[u8]| big(&d) % (big(prime).max(BigUint::from(2u8)) - 1u8);
    let components = KeyPairComponents {
        public_key: PublicKeyComponents { n: bytes(&pair.public.n), e: bytes(&pair.public.e) },
        dP: below(&p).to_bytes_be(),
        dQ: below(&q).to_bytes_be(),
        qInv: bytes(&pair.private.iqmp),
        d: d.clone(),
        p: p.clone(),
        q: q.clone(),
    };
    let made = RsaKeyPair::from_components(&components);
    made.map(|pair| Secret::Rsa(Box::new(pair))).map_err(|error| format!("ssh: RSA key: {error}"))
}

#[cfg(test)]
mod tests {
    use super::super::wire::Reader;
    use super::*;

    /// Runs ssh-keygen, which comes with every ssh client.
    fn keygen(folder: &Path, args: &[&str]) {
        let run = std::process::Command::new("ssh-keygen").args(args).current_dir(folder).output().expect("ssh-keygen");
        assert!(run.status.success(), "{args:?}: {}", String::from_utf8_lossy(&run.stderr));
    }

    #[test]
    fn keys_of_each_kind_are_read_and_sign() {
        let folder = tempfile::tempdir().expect("a folder");
        for (kind, more, name) in [
            ("ed25519", &[][..], "ssh-ed25519"),
            ("rsa", &["-b", "2048"], "rsa-sha2-512"),
            ("rsa", &["-b", "3072", "-m", "PEM"], "rsa-sha2-512"),
            ("rsa", &["-b", "2048", "-m", "PKCS8"], "rsa-sha2-512"),
            ("ecdsa", &["-b", "256"], "ecdsa-sha2-nistp256"),
            ("ecdsa", &["-b", "384", "-m", "PKCS8"], "ecdsa-sha2-nistp384"),
        ] {
            let _ = std::fs::remove_file(folder.path().join("key"));
            keygen(folder.path(), &[&["-q", "-N", "", "-C", "me@here", "-f", "key", "-t", kind], more].concat());
            let key = Key::parse(&read(&folder.path().join("key")).expect("read")).expect(kind);
            let public = std::fs::read_to_string(folder.path().join("key.pub")).expect("read");
            assert_eq!(STANDARD.encode(key.public()), public.split(' ').nth(1).expect("a key"), "{kind} {more:?}");
            let signed = key.sign(b"data", RSA_SHA2_512).expect("signed");
            let mut reader = Reader(&signed);
            assert_eq!(reader.string(), Some(name.as_bytes()));
            assert!(!reader.string().expect("a signature").is_empty() && reader.0.is_empty());
            if kind == "rsa" {
                assert_eq!(key.sign(b"data", 0), None, "with SHA-1");
            }
        }
    }

    #[test]
    fn what_is_no_key_or_encrypted_says_so() {
        let folder = tempfile::tempdir().expect("a folder");
        for format in ["RFC4716", "PEM", "PKCS8"] {
            let _ = std::fs::remove_file(folder.path().join("key"));
            keygen(folder.path(), &["-q", "-N", "secret words", "-f", "key", "-t", "rsa", "-b", "2048", "-m", format]);
            let refused = Key::parse(&read(&folder.path().join("key")).expect("read")).expect_err(format);
            assert_eq!(refused, ENCRYPTED, "{format}");
        }
        for content in [&b"nothing"[..], b"\xff", b"-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----\n"] {
            assert_eq!(Key::parse(content).expect_err("refused"), NO_KEY);
        }
        let other = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(Key::parse(other).expect_err("refused"), "ssh: unsupported key type \"CERTIFICATE\"");
    }
}
