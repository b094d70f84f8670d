//! Docker's config.json, as far as credentials go. What else is in it stays as it is.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::Credentials;
use crate::commands::os_words;
use crate::failure::{Failure, Outcome};
use crate::format::json::indent;

pub struct ConfigFile {
    path: PathBuf,
    content: Map<String, Value>,
}

/// BOXYARD_CONFIG, DOCKER_CONFIG, then `~/.docker`.
pub fn folder() -> PathBuf {
    let from_env = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = || from_env("HOME").unwrap_or_else(|| "/".into()).join(".docker");
    from_env("BOXYARD_CONFIG").or_else(|| from_env("DOCKER_CONFIG")).unwrap_or_else(home)
}

impl ConfigFile {
    /// Reads it; a file that is not there is empty.
    pub fn open() -> Outcome<Self> {
        Self::at(folder().join("config.json"))
    }

    pub fn empty() -> Self {
        Self { path: folder().join("config.json"), content: Map::new() }
    }

    fn at(path: PathBuf) -> Outcome<Self> {
        let failed = |why: String| Failure::new(format!("Error loading config file: {}: {why}", path.display()));
        let content = match fs::read(&path) {
            Ok(bytes) if bytes.trim_ascii().is_empty() => Map::new(),
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| failed(e.to_string()))?,
            Err(e) if e.kind() == ErrorKind::NotFound => Map::new(),
            Err(e) => return Err(failed(os_words(&e))),
        };
        Ok(Self { path, content })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The helper that keeps a server's credentials: its own, else the one for all.
    pub fn helper_of(&self, server: &str) -> Option<&str> {
        let own = self.content.get("credHelpers").and_then(|helpers| helpers[server].as_str());
        own.or_else(|| self.helper_of_all()).filter(|name| !name.is_empty())
    }

    pub fn helper_of_all(&self) -> Option<&str> {
        self.content.get("credsStore").and_then(Value::as_str).filter(|name| !name.is_empty())
    }

    /// Servers with a helper of their own.
    pub fn servers_with_helpers(&self) -> Vec<String> {
        let helpers = self.content.get("credHelpers").and_then(Value::as_object);
        helpers.into_iter().flat_map(Map::keys).cloned().collect()
    }

    pub fn servers(&self) -> Vec<String> {
        self.auths().into_iter().flat_map(Map::keys).cloned().collect()
    }

    fn auths(&self) -> Option<&Map<String, Value>> {
        self.content.get("auths").and_then(Value::as_object)
    }

    /// What the file itself keeps of a server: by its key, else by a key of the same host.
    pub fn get(&self, server: &str) -> Outcome<Option<Credentials>> {
        let Some(auths) = self.auths() else { return Ok(None) };
        let same_host = || auths.iter().find(|(key, _)| model::registry_host(key) == server);
        let Some((key, entry)) = auths.get_key_value(server).or_else(same_host) else { return Ok(None) };
        self.decode(key, entry).map(Some)
    }

    fn decode(&self, key: &str, entry: &Value) -> Outcome<Credentials> {
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let mut found = Credentials {
            username: text("username"),
            password: text("password"),
            identity_token: text("identitytoken"),
            registry_token: text("registrytoken"),
            server: key.to_owned(),
        };
        let packed = text("auth");
        if !packed.is_empty() {
            let broken =
                || Failure::new(format!("{}: the auth of {key} is not base64 of user:password", self.path.display()));
            let bytes = STANDARD.decode(packed.trim()).map_err(|_| broken())?;
            let plain = String::from_utf8(bytes).map_err(|_| broken())?;
            let (username, password) = plain.split_once(':').ok_or_else(broken)?;
            username.clone_into(&mut found.username);
            password.trim_end_matches('\0').clone_into(&mut found.password);
        }
        Ok(found)
    }

    /// Keeps these; the file is replaced at once.
    pub fn put(&mut self, server: &str, credentials: &Credentials) -> Outcome {
        let Credentials { username, password, identity_token, registry_token, server: _ } = credentials;
        let mut entry = Map::new();
        if !username.is_empty() || !password.is_empty() {
            entry.insert("auth".into(), STANDARD.encode(format!("{username}:{password}")).into());
        }
        for (name, token) in [("identitytoken", identity_token), ("registrytoken", registry_token)] {
            if !token.is_empty() {
                entry.insert(name.into(), token.as_str().into());
            }
        }
        let auths = self.content.entry("auths").or_insert_with(|| Value::Object(Map::new()));
        if !auths.is_object() {
            *auths = Value::Object(Map::new());
        }
        auths[server] = Value::Object(entry);
        self.save()
    }

    /// Forgets a server; nothing is written where nothing was known.
    pub fn remove(&mut self, server: &str) -> Outcome {
        let auths = self.content.get_mut("auths").and_then(Value::as_object_mut);
        if auths.and_then(|auths| auths.remove(server)).is_none() {
            return Ok(());
        }
        self.save()
    }

    /// Whole or not at all, and for its owner only; a link's target is replaced, not the link.
    fn save(&self) -> Outcome {
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let text = indent(Value::Object(self.content.clone()).to_string().as_bytes(), "\t");
        let temporary = path.with_extension(format!("json{:08x}", rand::random::<u32>()));
        let written = (|| {
            if let Some(parent) = path.parent() {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
            }
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(text.as_bytes())?;
            // Whoever let others read the file before had a reason.
            if let Ok(before) = fs::metadata(&path) {
                file.set_permissions(fs::Permissions::from_mode(before.permissions().mode() & 0o777))?;
            }
            file.sync_all()?;
            fs::rename(&temporary, &path)
        })();
        written.map_err(|e: std::io::Error| {
            let _ = fs::remove_file(&temporary);
            Failure::new(format!("Error saving credentials: {}: {}", path.display(), os_words(&e)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> PathBuf {
        std::env::temp_dir().join(format!("boxyard-config-{:016x}", rand::random::<u64>()))
    }

    #[test]
    fn what_is_put_is_found_and_the_rest_stays() {
        let folder = scratch();
        fs::create_dir(&folder).expect("a folder");
        let path = folder.join("config.json");
        fs::write(&path, r#"{"HttpHeaders":{"A":"b"},"psFormat":"x"}"#).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("its mode");
        let mut file = ConfigFile::at(path.clone()).expect("it reads");
        let me = Credentials { username: "me".into(), password: "a:b".into(), ..Credentials::default() };
        file.put("box:5000", &me).expect("it writes");
        let token = Credentials { username: "t".into(), identity_token: "id".into(), ..Credentials::default() };
        file.put(super::super::HUB, &token).expect("it writes");

        let text = fs::read_to_string(&path).expect("it is there");
        assert!(text.contains("\"psFormat\": \"x\"") && text.contains("\t\t\"A\": \"b\""), "{text}");
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o640);
        let file = ConfigFile::at(path.clone()).expect("it reads");
        let found = file.get("box:5000").expect("it decodes").expect("it is there");
        assert_eq!((found.username.as_str(), found.password.as_str()), ("me", "a:b"));
        let found = file.get("index.docker.io").expect("it decodes").expect("by its host");
        assert_eq!((found.password.as_str(), found.identity_token.as_str()), ("", "id"));
        assert_eq!(file.get("other").expect("nothing broken"), None);

        let mut file = file;
        file.remove("box:5000").expect("it writes");
        assert_eq!(ConfigFile::at(path).expect("it reads").servers(), [super::super::HUB]);
        fs::remove_dir_all(folder).expect("clean up");
    }

    #[test]
    fn a_new_file_is_its_owners() {
        let folder = scratch();
        let path = folder.join("deep/config.json");
        let mut file = ConfigFile::at(path.clone()).expect("a missing file is empty");
        file.put("box", &Credentials::default()).expect("it writes");
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "{\n\t\"auths\": {\n\t\t\"box\": {}\n\t}\n}");
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
        fs::remove_dir_all(folder).expect("clean up");
    }

    #[test]
    fn broken_files_are_told() {
        let path = scratch();
        fs::write(&path, "{").expect("a file");
        assert!(ConfigFile::at(path.clone()).is_err());
        fs::write(&path, r#"{"auths":{"a":{"auth":"%"},"b":{"auth":"bm8="}}}"#).expect("a file");
        let file = ConfigFile::at(path.clone()).expect("it reads");
        assert!(file.get("a").is_err() && file.get("b").is_err());
        fs::remove_file(path).expect("clean up");
    }
}
