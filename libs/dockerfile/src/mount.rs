//! `RUN --mount`: the field's keys, defaults and complaints (Dockerfile reference, "RUN --mount").
//!
//! The flag is read once the variables are known, but for `from`, which decides which stages are needed and so takes none.

use crate::csv;
use crate::error::Error;
use crate::expand::{Lexer, Lookup};
use crate::quote::quote;
use crate::suggest;

const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const SHARING: [&str; 3] = ["shared", "private", "locked"];
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];
const CACHE_MODE: u32 = 0o755;
const SECRET_MODE: u32 = 0o400;
const SSH_MODE: u32 = 0o600;

/// A `--mount` flag as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountFlag {
    /// What stands after `--mount=`.
    pub text: String,
    /// The stage or image whose files are mounted.
    pub from: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountType {
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

/// Whether a cache mount may be used by several steps at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    Shared,
    /// Each step at a time has its own.
    Private,
    /// Steps wait for one another.
    Locked,
}

/// A mount with its variables replaced and its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub kind: MountType,
    /// The stage or image whose files are mounted. None: for a bind the build's context, for a cache nothing.
    pub from: Option<String>,
    /// Path in `from`, absolute.
    pub source: String,
    /// Absolute; empty for a secret that is only a variable, and for an agent at its usual place.
    pub target: String,
    pub read_only: bool,
    /// Of a tmpfs, 0: no limit of its own.
    pub size_bytes: u64,
    /// Of a cache, a secret or an agent.
    pub id: String,
    pub sharing: Sharing,
    /// Of a secret or an agent: the step fails where the client has none.
    pub required: bool,
    /// The variable that a secret is given as.
    pub env: Option<String>,
    /// Of a cache's folder, a secret's file or an agent's socket.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// What the keys say, before defaults.
#[derive(Default)]
struct Fields {
    kind: Option<MountType>,
    from: String,
    source: String,
    target: String,
    read_only: Option<bool>,
    size_bytes: u64,
    id: String,
    sharing: Option<Sharing>,
    required: bool,
    env: Option<String>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

impl MountFlag {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut from = None;
        for field in fields(text)? {
            let Some((key, value)) = field.split_once('=') else { continue };
            if !key.eq_ignore_ascii_case("from") {
                continue;
            }
            if value.find('$').is_some_and(|at| at + 1 < value.len()) {
                return Err("'from' doesn't support variable expansion, define alias stage instead".to_owned());
            }
            from = Some(value.to_owned()).filter(|from| !from.is_empty());
        }
        Ok(Self { text: text.to_owned(), from })
    }

    /// The mount once variables are known. `cwd` is the working directory that a relative target starts from.
    pub fn expanded(&self, lexer: &Lexer, lookup: &Lookup, cwd: &str) -> Result<Mount, Error> {
        self.read(lexer, lookup)?.mount(cwd).map_err(Error::meaning)
    }

    fn read(&self, lexer: &Lexer, lookup: &Lookup) -> Result<Fields, Error> {
        let mut read = Fields::default();
        for field in fields(&self.text).map_err(Error::meaning)? {
            match field.split_once('=') {
                Some((key, value)) => {
                    let value = lexer.expand(value, lookup)?;
                    read.set(&key.to_lowercase(), &value, &field).map_err(Error::meaning)?;
                }
                None => read.set_bare(&field).map_err(Error::meaning)?,
            }
        }
        Ok(read)
    }
}

fn fields(text: &str) -> Result<Vec<String>, String> {
    csv::fields(text).map_err(|error| format!("failed to parse csv mounts: {error}"))
}

impl Fields {
    fn kind(&self) -> MountType {
        self.kind.unwrap_or(MountType::Bind)
    }

    fn set_bare(&mut self, field: &str) -> Result<(), String> {
        let key = field.to_lowercase();
        match key.as_str() {
            "readonly" | "ro" => self.read_only = Some(true),
            "readwrite" | "rw" => self.read_only = Some(false),
            "required" => {
                self.only(&key, &[MountType::Secret, MountType::Ssh])?;
                self.required = true;
            }
            _ => return Err(format!("invalid field '{field}' must be a key=value pair")),
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: &str, field: &str) -> Result<(), String> {
        let flag = || boolean(value).ok_or_else(|| format!("invalid value for {key}: {value}"));
        let number = |radix| u32::from_str_radix(value, radix).map_err(|_| format!("invalid value {value} for {key}"));
        match key {
            "type" => self.kind = Some(MountType::parse(value)?),
            "from" => value.clone_into(&mut self.from),
            "source" | "src" => value.clone_into(&mut self.source),
            "target" | "dst" | "destination" => value.clone_into(&mut self.target),
            "readonly" | "ro" => self.read_only = Some(flag()?),
            "readwrite" | "rw" => self.read_only = Some(!flag()?),
            "required" => {
                self.only(key, &[MountType::Secret, MountType::Ssh])?;
                self.required = flag()?;
            }
            "size" => {
                self.only(key, &[MountType::Tmpfs])?;
                self.size_bytes = bytes(value).ok_or_else(|| format!("invalid value for {key}: {value}"))?;
            }
            "id" => value.clone_into(&mut self.id),
            "sharing" => self.sharing = Some(Sharing::parse(value)?),
            "mode" => self.mode = Some(number(8)?),
            "uid" => self.uid = Some(number(10)?),
            "gid" => self.gid = Some(number(10)?),
            "env" => self.env = Some(value.to_owned()),
            _ => return Err(suggest::exact(format!("unexpected key '{key}' in '{field}'"), key, KEYS)),
        }
        Ok(())
    }

    fn only(&self, key: &str, kinds: &[MountType]) -> Result<(), String> {
        if kinds.contains(&self.kind()) {
            return Ok(());
        }
        Err(format!("unexpected key '{key}' for mount type '{}'", self.kind().name()))
    }

    fn check(&self) -> Result<(), String> {
        let kind = self.kind();
        let owned = matches!(kind, MountType::Secret | MountType::Ssh | MountType::Cache);
        for (key, set) in [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)] {
            if set.is_some() && !owned {
                return Err(format!("{key} not allowed for {:?} type mounts", kind.name()));
            }
        }
        if kind == MountType::Secret {
            let wrong = [
                (!self.from.is_empty(), "secret mount should not have a from"),
                (self.sharing.is_some(), "secret mount should not define sharing"),
                (
                    self.source.is_empty() && self.target.is_empty() && self.id.is_empty(),
                    "invalid secret mount. one of source, target required",
                ),
                (!self.source.is_empty() && !self.id.is_empty(), "both source and id can't be set"),
            ];
            if let Some((_, message)) = wrong.into_iter().find(|(wrong, _)| *wrong) {
                return Err(message.to_owned());
            }
        }
        if self.sharing.is_some() && kind != MountType::Cache {
            return Err(format!("invalid cache sharing set for {} mount", kind.name()));
        }
        Ok(())
    }

    fn mount(self, cwd: &str) -> Result<Mount, String> {
        self.check()?;
        let kind = self.kind();
        let id = self.named();
        let target = self.place(&id, cwd)?;
        let mode = match kind {
            MountType::Cache => CACHE_MODE,
            MountType::Secret => SECRET_MODE,
            MountType::Ssh => SSH_MODE,
            MountType::Bind | MountType::Tmpfs => 0,
        };
        Ok(Mount {
            kind,
            from: Some(self.from).filter(|from| !from.is_empty()),
            source: absolute("/", &self.source),
            target,
            read_only: self.read_only.unwrap_or(!matches!(kind, MountType::Cache | MountType::Tmpfs)),
            size_bytes: self.size_bytes,
            id,
            sharing: self.sharing.unwrap_or(Sharing::Shared),
            required: self.required,
            env: self.env,
            mode: self.mode.unwrap_or(mode),
            uid: self.uid.unwrap_or_default(),
            gid: self.gid.unwrap_or_default(),
        })
    }

    /// A secret is named by its id, its source or its file; an agent is "default"; a cache is named by its path.
    fn named(&self) -> String {
        let written = if self.id.is_empty() { &self.source } else { &self.id };
        match self.kind() {
            MountType::Secret if written.is_empty() => base_name(&self.target),
            MountType::Secret => written.clone(),
            MountType::Ssh if self.id.is_empty() => "default".to_owned(),
            MountType::Cache if self.id.is_empty() => clean(&self.target),
            _ => self.id.clone(),
        }
    }

    fn place(&self, id: &str, cwd: &str) -> Result<String, String> {
        match self.kind() {
            MountType::Ssh if self.target.is_empty() => return Ok(String::new()),
            MountType::Secret if self.target.is_empty() => {
                let file = format!("/run/secrets/{}", base_name(id));
                return Ok(if self.env.is_some() { String::new() } else { file });
            }
            _ => {}
        }
        match absolute(cwd, &self.target).as_str() {
            "/" => Err(format!("invalid mount target {:?}", "/")),
            target => Ok(target.to_owned()),
        }
    }
}

impl MountType {
    pub fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }

    fn parse(value: &str) -> Result<Self, String> {
        Ok(match value.to_lowercase().as_str() {
            "bind" => Self::Bind,
            "cache" => Self::Cache,
            "tmpfs" => Self::Tmpfs,
            "secret" => Self::Secret,
            "ssh" => Self::Ssh,
            _ => return Err(suggest::exact(format!("unsupported mount type {}", quote(value)), value, TYPES)),
        })
    }
}

impl Sharing {
    pub fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Private => "private",
            Self::Locked => "locked",
        }
    }

    fn parse(value: &str) -> Result<Self, String> {
        Ok(match value.to_lowercase().as_str() {
            "shared" => Self::Shared,
            "private" => Self::Private,
            "locked" => Self::Locked,
            _ => return Err(suggest::exact(format!("unsupported sharing value {}", quote(value)), value, SHARING)),
        })
    }
}

/// As Go's `strconv.ParseBool`.
pub(crate) fn boolean(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// `512m`, `1.5GiB`: bytes, binary.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim_start().to_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let power = match unit.strip_suffix('i').unwrap_or(unit) {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    // A size of more than 2^53 bytes is rounded, as in Docker.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Some((number * 1024_f64.powi(power)) as u64)
}

/// A path below a folder, cleaned; `..` does not leave the root.
pub(crate) fn absolute(cwd: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("/{cwd}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// As Go's `path.Clean`.
fn clean(path: &str) -> String {
    if path.starts_with('/') {
        return absolute("/", path);
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    if parts.is_empty() { ".".to_owned() } else { parts.join("/") }
}

fn base_name(path: &str) -> String {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(text: &str) -> Result<Mount, String> {
        let lookup = |name: &str| (name == "DIR").then(|| "/var/x".to_owned());
        let flag = MountFlag::parse(text)?;
        flag.expanded(&Lexer::new('\\'), &lookup, "/work").map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_of_each_type() {
        let bind = mount("target=sub,source=a/../b").expect("bind");
        assert_eq!((bind.kind, bind.source.as_str(), bind.target.as_str()), (MountType::Bind, "/b", "/work/sub"));
        assert!(bind.read_only);
        let cache = mount("type=cache,target=$DIR/c,sharing=locked,mode=0700,uid=5").expect("cache");
        assert_eq!((cache.id.as_str(), cache.sharing), ("/var/x/c", Sharing::Locked));
        assert_eq!((cache.mode, cache.uid, cache.gid, cache.read_only), (0o700, 5, 0, false));
        let tmpfs = mount("type=tmpfs,target=/t,size=1.5k").expect("tmpfs");
        assert_eq!((tmpfs.size_bytes, tmpfs.read_only), (1536, false));
        let secret = mount("type=secret,id=a/token").expect("secret");
        assert_eq!((secret.id.as_str(), secret.target.as_str(), secret.mode), ("a/token", "/run/secrets/token", 0o400));
        let variable = mount("type=secret,id=t,env=TOKEN,required").expect("variable");
        assert_eq!((variable.target.as_str(), variable.env.as_deref()), ("", Some("TOKEN")));
        assert!(variable.required);
        let ssh = mount("type=ssh").expect("ssh");
        assert_eq!((ssh.id.as_str(), ssh.target.as_str(), ssh.mode), ("default", "", 0o600));
        assert_eq!(mount("type=secret,dst=/x/y").expect("secret").id, "y");
        assert_eq!(mount("\"target=/a,b\",rw").expect("quoted").target, "/a,b");
    }

    #[test]
    fn complaints() {
        for (text, message) in [
            ("type=bnd,target=/x", "unsupported mount type \"bnd\" (did you mean bind?)"),
            ("tpe=bind", "unexpected key 'tpe' in 'tpe=bind' (did you mean type?)"),
            ("target=/x,foo", "invalid field 'foo' must be a key=value pair"),
            ("target=/x,required", "unexpected key 'required' for mount type 'bind'"),
            ("target=/x,from=$A", "'from' doesn't support variable expansion, define alias stage instead"),
            ("type=cache,target=/x,sharing=all", "unsupported sharing value \"all\""),
            ("target=/x,sharing=locked", "invalid cache sharing set for bind mount"),
            ("target=/x,uid=0", "uid not allowed for \"bind\" type mounts"),
            ("type=cache,target=/x,mode=9", "invalid value 9 for mode"),
            ("type=cache,target=/x,size=1", "unexpected key 'size' for mount type 'cache'"),
            ("type=secret", "invalid secret mount. one of source, target required"),
            ("type=secret,id=a,src=b", "both source and id can't be set"),
            ("type=secret,id=a,from=b", "secret mount should not have a from"),
            ("target=/x,ro=maybe", "invalid value for ro: maybe"),
            ("target=/", "invalid mount target \"/\""),
            ("target=${X:?no}", "failed to process \"${X:?no}\": X: no"),
        ] {
            assert_eq!(mount(text).expect_err(text), message, "{text}");
        }
    }
}
