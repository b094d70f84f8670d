//! `--secret id=NAME[,src=FILE|,env=VARIABLE]`: given only to the steps that ask for it, never stored.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::PathBuf;

use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::Secrets as Service;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use tonic::{Request, Response, Status};

use crate::commands::os_words;
use crate::failure::{Failure, Outcome};
use crate::regular;

/// BuildKit's limit of one secret.
const MAX_BYTES: u64 = 500 << 10;

#[derive(Debug, Default)]
pub struct Secrets(BTreeMap<String, Source>);

#[derive(Clone, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Variable(String),
    /// What a pipe held.
    Value(Vec<u8>),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Variable(name) => f.debug_tuple("Variable").field(name).finish(),
            Self::Value(_) => f.write_str("Value"),
        }
    }
}

impl Source {
    /// A file is to be there, and may be read; a pipe is read now, since that goes only once.
    fn checked(self) -> Result<Self, String> {
        let Self::File(path) = self else { return Ok(self) };
        let told = |doing: &str, e: &io::Error| format!("failed to {doing} {}: {}", path.display(), os_words(e));
        let size = std::fs::metadata(&path).map_err(|e| told("stat", &e))?.len();
        let too_large =
            |size| format!("invalid secret size {size} from {}: must be at most {MAX_BYTES} bytes", path.display());
        if regular::is_pipe(&path) {
            let value = regular::read(&path, MAX_BYTES).map_err(|e| told("read", &e))?;
            return if value.len() as u64 > MAX_BYTES {
                Err(too_large(value.len() as u64))
            } else {
                Ok(Self::Value(value))
            };
        }
        regular::open(&path).map_err(|e| told("open", &e))?;
        if size > MAX_BYTES { Err(too_large(size)) } else { Ok(Self::File(path)) }
    }
}

impl Secrets {
    /// Reads the flags; each file must be there.
    pub fn parse(flags: &[String]) -> Outcome<Self> {
        let mut secrets = BTreeMap::new();
        for flag in flags {
            let parsed = one(flag).and_then(|(id, source)| Ok((id, source.checked()?)));
            let (id, source) = parsed.map_err(|why| Failure::new(format!("could not parse secrets: {why}")))?;
            secrets.insert(id, source);
        }
        Ok(Self(secrets))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn one(flag: &str) -> Result<(String, Source), String> {
    let fields = dockerfile::csv::fields(flag).map_err(|error| format!("failed to parse csv secret: {error}"))?;
    let (mut id, mut file, mut variable, mut kind) = (String::new(), String::new(), String::new(), String::new());
    for field in &fields {
        let Some((key, value)) = field.split_once('=') else {
            return Err(format!("invalid field '{field}' must be a key=value pair"));
        };
        match key.to_lowercase().as_str() {
            "type" if ["file", "env"].contains(&value) => value.clone_into(&mut kind),
            "type" => return Err(format!("unsupported secret type {value:?}")),
            "id" => value.clone_into(&mut id),
            "source" | "src" => value.clone_into(&mut file),
            "env" => value.clone_into(&mut variable),
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if id.is_empty() {
        return Err("secret missing 'id'".to_owned());
    }
    if kind == "env" && variable.is_empty() {
        variable = std::mem::take(&mut file);
    }
    let source = match (file.is_empty(), variable.is_empty()) {
        (false, _) => Source::File(PathBuf::from(file)),
        (true, false) => Source::Variable(variable),
        // A name alone is that of a variable, if there is one.
        (true, true) if std::env::var_os(&id).is_some() => Source::Variable(id.clone()),
        (true, true) => Source::File(PathBuf::from(&id)),
    };
    Ok((id, source))
}

#[tonic::async_trait]
impl Service for Secrets {
    async fn get_secret(&self, asked: Request<GetSecretRequest>) -> Result<Response<GetSecretResponse>, Status> {
        let id = asked.into_inner().id;
        let missing = || Status::not_found(format!("secret {id}: not found"));
        let data = match self.0.get(&id).ok_or_else(missing)? {
            Source::Value(value) => value.clone(),
            Source::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || {
                    let mut value = Vec::new();
                    // The daemon says that one byte more is too much.
                    regular::open(&path)?.take(MAX_BYTES + 1).read_to_end(&mut value)?;
                    Ok::<_, io::Error>(value)
                });
                let read = read.await.map_err(|e| Status::internal(e.to_string()))?;
                read.map_err(|e| Status::internal(format!("secret {id}: {}", os_words(&e))))?
            }
            Source::Variable(name) => {
                use std::os::unix::ffi::OsStringExt as _;
                std::env::var_os(name).ok_or_else(missing)?.into_vec()
            }
        };
        Ok(Response::new(GetSecretResponse { data }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags() {
        assert_eq!(one("id=a,src=/b"), Ok(("a".into(), Source::File("/b".into()))));
        assert_eq!(one("id=a,env=B"), Ok(("a".into(), Source::Variable("B".into()))));
        assert_eq!(one("type=env,id=a,src=B"), Ok(("a".into(), Source::Variable("B".into()))));
        assert_eq!(
            one("id=no-such-variable"),
            Ok(("no-such-variable".into(), Source::File("no-such-variable".into())))
        );
        assert_eq!(one("src=/b"), Err("secret missing 'id'".to_owned()));
        assert_eq!(one("id=a,x=y"), Err("unexpected key 'x' in 'x=y'".to_owned()));
        assert_eq!(one("id"), Err("invalid field 'id' must be a key=value pair".to_owned()));
    }
}
