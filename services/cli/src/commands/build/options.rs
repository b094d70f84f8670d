//! What the daemon is told of a build (`options` of `POST /boxyard/v1/builds`), and what it may ask us for.

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _, stdin};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::caches::{Caches, Written};
use super::outputs::{Output, Typed, outputs};
use super::source::{is_archive, is_remote, named_dockerfile, read_dockerfile};
use super::{Build, OnError};
use crate::attachables::{Agents, Attachables, Contents, Folder, Outputs, Secrets};
use crate::create::values;
use crate::failure::{Failure, Outcome};
use crate::solve::Excerpt;
use crate::{layout, regular, units};

/// A build as it is asked for.
pub struct Asked {
    pub options: Value,
    pub attachables: Attachables,
    /// The Dockerfile, where this machine has it.
    pub excerpt: Excerpt,
    /// Files that were made for this build.
    pub made: Vec<tempfile::TempDir>,
    /// Caches that it leaves on this machine.
    pub caches: Written,
}

/// Where the context and the Dockerfile are.
#[derive(Default)]
struct Places {
    remote: Option<String>,
    folders: BTreeMap<String, Folder>,
    /// In its folder, or in the remote context.
    dockerfile: String,
    /// What this machine calls the context.
    source: String,
    excerpt: Excerpt,
    made: Vec<tempfile::TempDir>,
}

impl Build {
    /// `head` is what has been read of stdin.
    pub(super) fn asked(&self, head: Vec<u8>) -> Outcome<Asked> {
        let mut places = self.places(head)?;
        let mut caches = Caches::parse(&self.cache_from, &self.cache_to)?;
        let contexts = self.named_contexts(&mut places.folders, &mut caches.contents)?;
        let outputs = outputs(&self.output, &self.tag, self.push, self.load)?;
        let options = self.options(&places, (contexts, &caches), &outputs)?;
        let to_us = (0..).zip(&outputs).filter_map(|(number, (_, to))| Some((number, to.clone()?))).collect();
        let attachables = Attachables {
            folders: places.folders,
            secrets: Secrets::parse(&self.secret)?,
            agents: Agents::parse(&self.ssh)?,
            outputs: Outputs::new(to_us),
            contents: Contents(caches.contents),
            shared_key: hex::encode(Sha256::digest(places.source.as_bytes())),
        };
        Ok(Asked { options, attachables, excerpt: places.excerpt, made: places.made, caches: caches.written })
    }

    fn options(
        &self,
        places: &Places,
        (contexts, caches): (Vec<Value>, &Caches),
        outputs: &[Output],
    ) -> Outcome<Value> {
        let flag = |text: &String| match text.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), Value::from(value))),
            None => Err(Failure::new(format!("ERROR: {text:?} is no label: write key=value"))),
        };
        let typed = |caches: &[Typed]| caches.iter().map(Typed::json).collect::<Vec<_>>();
        // A name without a value anywhere is not given.
        let args: Map<String, Value> = match self.build_args() {
            Value::Object(args) => args.into_iter().filter(|(_, value)| !value.is_null()).collect(),
            _ => Map::new(),
        };
        let check = if self.check { super::Call::Check } else { self.call };
        let options = json!({
            "dockerfile": places.dockerfile,
            "remote": places.remote.as_deref().unwrap_or_default(),
            "session_dockerfile": places.remote.is_some() && places.folders.contains_key("dockerfile"),
            "tags": self.tag,
            "build_args": args,
            "labels": values::pairs(&self.label),
            "target": self.target.as_deref().unwrap_or_default(),
            "network_mode": self.network,
            "no_cache": self.no_cache,
            "no_cache_stages": self.no_cache_filter,
            "pull": self.pull,
            "squash": self.squash,
            "extra_hosts": values::extra_hosts(&self.add_host)?,
            "shm_bytes": bytes(&self.shm_size)?,
            "ulimits": self.ulimit,
            "resources": self.resources()?,
            "contexts": contexts,
            "outputs": outputs.iter().map(|(typed, _)| typed.json()).collect::<Vec<_>>(),
            "cache_imports": typed(&caches.imports),
            "cache_exports": typed(&caches.exports),
            "platforms": self.platform,
            "entitlements": self.allow,
            "check": check.name(),
            "worker_labels": self.worker_label.iter().map(flag).collect::<Outcome<Map<_, _>>>()?,
            "priority": self.priority,
            "source": places.source,
            "keep_failed": self.on_error == OnError::Shell,
        });
        Ok(filled(options))
    }

    fn resources(&self) -> Outcome<Value> {
        let quota = self.cpus.map(|cpus| (cpus * 100_000.0) as i64).or(self.cpu_quota).unwrap_or(0);
        let period = self.cpus.map(|_| 100_000).or(self.cpu_period).unwrap_or(0);
        Ok(filled(json!({
            "memory_bytes": bytes(&self.memory)?,
            "memory_swap_bytes": bytes(&self.memory_swap)?,
            "cpu_shares": self.cpu_shares.unwrap_or(0),
            "cpu_period_us": period,
            "cpu_quota_us": quota,
            "cpuset_cpus": self.cpuset_cpus.as_deref().unwrap_or_default(),
            "cpuset_mems": self.cpuset_mems.as_deref().unwrap_or_default(),
            "cgroup_parent": self.cgroup_parent.as_deref().unwrap_or_default(),
        })))
    }

    fn places(&self, head: Vec<u8>) -> Outcome<Places> {
        if self.context == "-" && is_archive(&head) {
            return Ok(Places { dockerfile: self.file.clone().unwrap_or_default(), ..Places::default() });
        }
        if self.context == "-" {
            let content = read_dockerfile(Cursor::new(head).chain(stdin().lock()))?;
            let empty = tempfile::tempdir()?;
            let context = Folder { root: empty.path().to_owned(), is_lasting: false };
            let mut places = self.of_stdin(content)?;
            places.folders.insert("context".to_owned(), context);
            places.made.push(empty);
            return Ok(places);
        }
        if !Path::new(&self.context).is_dir() && is_remote(&self.context) {
            return self.of_remote();
        }
        let root = folder(&self.context)?;
        let mut places = match self.file.as_deref() {
            Some("-") => self.of_stdin(read_dockerfile(stdin().lock())?)?,
            given => {
                let path = given.map_or_else(|| root.join("Dockerfile"), PathBuf::from);
                self.of_path(&path)?
            }
        };
        places.source = source_of(&root);
        places.folders.insert("context".to_owned(), Folder { root, is_lasting: true });
        Ok(places)
    }

    /// The Dockerfile lies in the remote context, unless it comes from stdin or is named by an absolute path.
    fn of_remote(&self) -> Outcome<Places> {
        let places = match self.file.as_deref() {
            Some("-") => self.of_stdin(read_dockerfile(stdin().lock())?)?,
            Some(path) if Path::new(path).is_absolute() => self.of_path(Path::new(path))?,
            given => Places { dockerfile: given.unwrap_or_default().to_owned(), ..Places::default() },
        };
        Ok(Places { remote: Some(self.context.clone()), source: self.context.clone(), ..places })
    }

    /// What a pipe holds is there once: it is as if it came from stdin.
    fn of_path(&self, path: &Path) -> Outcome<Places> {
        match regular::is_pipe(path) {
            true => self.of_stdin(named_dockerfile(path)?),
            false => of_file(path),
        }
    }

    /// A Dockerfile that was read from stdin lies in a folder of its own.
    fn of_stdin(&self, content: Vec<u8>) -> Outcome<Places> {
        let made = tempfile::tempdir()?;
        std::fs::write(made.path().join("Dockerfile"), &content)?;
        let folder = Folder { root: made.path().to_owned(), is_lasting: false };
        Ok(Places {
            remote: None,
            folders: BTreeMap::from([("dockerfile".to_owned(), folder)]),
            dockerfile: "Dockerfile".to_owned(),
            source: String::new(),
            excerpt: Excerpt { name: "Dockerfile".to_owned(), text: String::from_utf8_lossy(&content).into_owned() },
            made: vec![made],
        })
    }

    /// `--build-context name=…`: folders and layouts are sent by us, everything else the daemon finds itself.
    fn named_contexts(
        &self,
        folders: &mut BTreeMap<String, Folder>,
        layouts: &mut BTreeMap<String, PathBuf>,
    ) -> Outcome<Vec<Value>> {
        let mut contexts = Vec::new();
        for flag in &self.build_context {
            let Some((name, value)) = flag.split_once('=') else {
                return Err(Failure::new(format!("ERROR: invalid context value: {flag}, expected key=value")));
            };
            let known = ["docker-image://", "target:"];
            let source = if let Some(place) = value.strip_prefix("oci-layout://") {
                let place = layout::Place::parse(place);
                let told = |failure: Failure| Failure::new(format!("ERROR: invalid OCI layout {}", failure.message));
                let digest = place.digest().map_err(told)?;
                let store = hex::encode(rand::random::<[u8; 12]>());
                let source = format!("oci-layout://{store}@{digest}");
                layouts.insert(format!("oci:{store}"), place.folder);
                source
            } else if known.iter().any(|kind| value.starts_with(kind)) || is_remote(value) {
                value.to_owned()
            } else {
                let root = folder(value).map_err(|failure| {
                    Failure::new(format!("ERROR: failed to find local context {value:?}: {}", failure.message))
                })?;
                // A context may be called as the build's own are.
                let mut served = name.to_owned();
                while folders.contains_key(&served) {
                    served.insert(0, '_');
                }
                let source = format!("session:{served}");
                folders.insert(served, Folder { root, is_lasting: true });
                source
            };
            contexts.push(json!({"name": name, "source": source}));
        }
        Ok(contexts)
    }
}

fn of_file(path: &Path) -> Outcome<Places> {
    let told = |e: std::io::Error| {
        let why = crate::commands::os_words(&e);
        Failure::new(format!("ERROR: resolve : lstat {}: {why}", path.display()))
    };
    let absolute = std::path::absolute(path)?;
    std::fs::symlink_metadata(&absolute).map_err(told)?;
    let content = named_dockerfile(&absolute)?;
    let name = absolute.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| Failure::new(format!("ERROR: {} is no Dockerfile", path.display())))?.to_owned();
    let root = absolute.parent().unwrap_or(Path::new("/")).to_owned();
    Ok(Places {
        remote: None,
        folders: BTreeMap::from([("dockerfile".to_owned(), Folder { root, is_lasting: false })]),
        excerpt: Excerpt { name: name.clone(), text: String::from_utf8_lossy(&content).into_owned() },
        dockerfile: name,
        source: String::new(),
        made: Vec::new(),
    })
}

fn folder(path: &str) -> Outcome<PathBuf> {
    let told = |e: std::io::Error| {
        Failure::new(format!("ERROR: unable to prepare context: path {path:?} not found"))
            .hint(crate::commands::os_words(&e))
    };
    let root = std::fs::canonicalize(path).map_err(told)?;
    match root.is_dir() {
        true => Ok(root),
        false => Err(Failure::new(format!(
            "ERROR: unable to prepare context: context must be a directory: {}",
            root.display()
        ))),
    }
}

/// The folder of this machine: the same one over many builds.
fn source_of(root: &Path) -> String {
    let host = nix::unistd::gethostname().unwrap_or_default();
    format!("{}:{}", host.to_string_lossy(), root.display())
}

fn bytes(text: &Option<String>) -> Outcome<i64> {
    match text.as_deref() {
        None => Ok(0),
        Some("-1") => Ok(-1),
        Some(text) => units::parse_bytes(text).map_err(Failure::new),
    }
}

/// Without what says nothing.
fn filled(value: Value) -> Value {
    let Value::Object(fields) = value else { return value };
    let is_empty = |value: &Value| match value {
        Value::String(text) => text.is_empty(),
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Null => true,
    };
    Value::Object(fields.into_iter().filter(|(_, value)| !is_empty(value)).collect())
}
