use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use anyhow::Context as _;
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use model::Digest;
use tokio::sync::Semaphore;

/// bcrypt is made to be slow: so many at one time, the others wait.
const AT_ONCE: usize = 2;
/// Right pairs that are remembered, so that a client computes bcrypt once and not for each request.
const MOST_REMEMBERED: usize = 1024;

/// Users and their bcrypt hashes from a file as `htpasswd -B` writes it. The file is read again when it changes.
pub struct Passwords {
    file: PathBuf,
    /// Makes what is remembered worthless to whoever reads memory later.
    salt: [u8; 32],
    /// What an unknown user's password is compared with, so that the time does not tell who exists.
    nobody: String,
    computing: Semaphore,
    read: Mutex<Read>,
}

#[derive(Default)]
struct Read {
    stamp: Option<(SystemTime, u64)>,
    users: HashMap<String, String>,
    right: HashSet<Digest>,
}

impl Passwords {
    /// # Errors
    /// When the file cannot be read, or has a line that is no user with a bcrypt hash.
    pub fn open(file: PathBuf) -> anyhow::Result<Self> {
        let read = Read { stamp: stamp(&file), users: users(&file)?, right: HashSet::new() };
        let nobody = bcrypt::hash(format!("{:032x}", rand::random::<u128>()), 5).context("computing a hash")?;
        Ok(Self { file, salt: rand::random(), nobody, computing: Semaphore::new(AT_ONCE), read: Mutex::new(read) })
    }

    /// Whether the request carries the name and the password of one of the users.
    pub async fn check(&self, headers: &HeaderMap) -> bool {
        let Some((user, password)) = basic(headers) else { return false };
        let proof = Digest::of(&[self.salt.as_slice(), user.as_bytes(), &[0], password.as_bytes()].concat());
        let hash = {
            let read = self.current();
            if read.right.contains(&proof) {
                return true;
            }
            read.users.get(&user).cloned()
        };
        let is_known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.nobody.clone());
        let Ok(_turn) = self.computing.acquire().await else { return false };
        let (given, compared) = (password, hash.clone());
        let computed = tokio::task::spawn_blocking(move || bcrypt::verify(given, &compared).unwrap_or(false)).await;
        let right = computed.unwrap_or(false) && is_known;
        let mut read = self.lock();
        // The file may have changed while this was computed.
        if right && read.users.get(&user) == Some(&hash) {
            if read.right.len() >= MOST_REMEMBERED {
                read.right.clear();
            }
            read.right.insert(proof);
        }
        right
    }

    fn current(&self) -> MutexGuard<'_, Read> {
        let mut read = self.lock();
        let now = stamp(&self.file);
        if now != read.stamp {
            match users(&self.file) {
                Ok(users) => *read = Read { stamp: now, users, right: HashSet::new() },
                // Half a file, most likely; the former users count until it is whole.
                Err(error) => tracing::warn!(%error, "the file of passwords cannot be used"),
            }
        }
        read
    }

    fn lock(&self) -> MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp(file: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn users(file: &Path) -> anyhow::Result<HashMap<String, String>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let users: HashMap<String, String> = lines
        .map(|(number, line)| {
            let is_bcrypt = |hash: &str| ["$2y$", "$2b$", "$2a$"].iter().any(|kind| hash.starts_with(kind));
            let pair = line.trim().split_once(':').filter(|(user, hash)| !user.is_empty() && is_bcrypt(hash));
            let (user, hash) = pair.with_context(|| {
                format!("{}, line {}: no user with a bcrypt hash (htpasswd -B)", file.display(), number + 1)
            })?;
            Ok((user.to_owned(), hash.to_owned()))
        })
        .collect::<anyhow::Result<_>>()?;
    anyhow::ensure!(!users.is_empty(), "{} names no user", file.display());
    Ok(users)
}

fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let (scheme, rest) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = base64::engine::general_purpose::STANDARD.decode(rest.trim()).ok()?;
    let pair = String::from_utf8(pair).ok()?;
    let (user, password) = pair.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(user: &str, password: &str) -> HeaderMap {
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, format!("Basic {pair}").parse().expect("a header"));
        headers
    }

    fn line(user: &str, password: &str) -> String {
        format!("{user}:{}\n", bcrypt::hash(password, 4).expect("hashes"))
    }

    #[tokio::test]
    async fn passwords_are_those_of_the_file_as_it_is_now() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("htpasswd");
        std::fs::write(&file, format!("# users\n\n{}", line("me", "secret"))).expect("writes");
        let passwords = Passwords::open(file.clone()).expect("opens");
        for (user, password, right) in [
            ("me", "secret", true),
            ("me", "secret", true),
            ("me", "other", false),
            ("you", "secret", false),
            ("", "", false),
        ] {
            assert_eq!(passwords.check(&headers(user, password)).await, right, "{user} {password}");
        }
        assert!(!passwords.check(&HeaderMap::new()).await);
        std::fs::write(&file, format!("{}{}", line("you", "new"), line("they", "too"))).expect("writes");
        assert!(!passwords.check(&headers("me", "secret")).await, "a former user is none, remembered or not");
        assert!(passwords.check(&headers("you", "new")).await);
        std::fs::write(&file, "half a li").expect("writes");
        assert!(passwords.check(&headers("they", "too")).await, "half a file changes nothing");
    }

    #[tokio::test]
    async fn a_hash_of_another_program_is_understood() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("htpasswd");
        // As crypt(3) makes it.
        std::fs::write(&file, "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n").expect("writes");
        let passwords = Passwords::open(file).expect("opens");
        assert!(passwords.check(&headers("me", "secret")).await);
        assert!(!passwords.check(&headers("me", "Secret")).await);
    }

    #[test]
    fn files_without_bcrypt_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("htpasswd");
        assert!(Passwords::open(file.clone()).is_err(), "there is no file");
        for text in ["", "me:secret\n", "me:$apr1$x$y\n", ":$2y$05$x\n"] {
            std::fs::write(&file, text).expect("writes");
            assert!(Passwords::open(file.clone()).is_err(), "{text}");
        }
    }
}
