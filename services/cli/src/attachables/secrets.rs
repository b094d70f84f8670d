//! `--secret id=NAME[,src=FILE|,env=VARIABLE]`: given only to the steps that ask for it, never stored.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::Secrets as Service;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use tonic::{Request, Response, Status};

use crate::failure::{Failure, Outcome};

/// BuildKit's limit of one secret.
const MAX_BYTES: u64 = 500 << 10;

#[derive(Debug, Default)]
pub struct Secrets(BTreeMap<String, Source>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Variable(String),
}

impl Secrets {
    /// Reads the flags; each file must be there.
    pub fn parse(flags: &[String]) -> Outcome<Self> {
        let mut secrets = BTreeMap::new();
        for flag in flags {
            let (id, source) = one(flag).map_err(|why| Failure::new(format!("could not parse secrets: {why}")))?;
            if let Source::File(path) = &source {
                let told = |e: std::io::Error| {
                    let why = crate::commands::os_words(&e);
                    Failure::new(format!("could not parse secrets: failed to stat {}: {why}", path.display()))
                };
                let size = std::fs::metadata(path).map_err(told)?.len();
                if size > MAX_BYTES {
                    return Err(Failure::new(format!(
                        "could not parse secrets: invalid secret size {size} from {}: must be at most {MAX_BYTES} bytes",
                        path.display()
                    )));
                }
            }
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
            Source::File(path) => tokio::fs::read(path).await.map_err(|e| Status::internal(e.to_string()))?,
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
