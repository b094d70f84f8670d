//! The file that a node or a worker joins with, and what its machine keeps of it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::head::{Head, Member, read_json};
use crate::failure::{Failure, Outcome};
use crate::up::config::{Plan, write_private};

/// Form of the file; another one is not understood.
const VERSION: u32 = 1;

/// All that one member needs to reach its head. Who has it is that member.
#[derive(Serialize, Deserialize)]
struct Bundle {
    version: u32,
    member: Member,
    nats_url: String,
    store_url: String,
    #[serde(default)]
    streams_host: Option<String>,
    /// The cluster's authority, PEM.
    authority: String,
    password: String,
    token: String,
}

/// How a member sees the head.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    pub head: &'a Head,
    /// A name or an address in place of the head's own.
    pub host: Option<&'a str>,
}

impl Seen<'_> {
    fn at(&self, own: SocketAddr) -> String {
        match self.host {
            Some(host) if host.contains(':') => format!("[{host}]:{}", own.port()),
            Some(host) => format!("{host}:{}", own.port()),
            None => own.to_string(),
        }
    }
}

/// `cluster/joined.json` of a machine that is not the head.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    pub nats_url: String,
    pub store_url: String,
    /// Host of byte streams, where this machine sees the head under another name than the head's own.
    #[serde(default)]
    pub streams_host: Option<String>,
    pub members: Vec<Member>,
}

impl Joined {
    pub fn read(data_dir: &Path) -> Outcome<Option<Self>> {
        read_json(&data_dir.join("cluster/joined.json"))
    }
}

/// Writes the bundle of a member that the head knows.
pub fn write(path: &Path, plan: &Plan, seen: Seen<'_>, member: &Member) -> Outcome {
    let bundle = Bundle {
        version: VERSION,
        member: member.clone(),
        nats_url: format!("tls://{}", seen.at(seen.head.nats())),
        store_url: format!("https://{}", seen.at(seen.head.store())),
        streams_host: seen.host.map(str::to_owned),
        authority: fs::read_to_string(plan.data_dir.join("cluster/ca.pem"))?,
        password: plan.secret(&member.user())?,
        token: plan.secret(&member.token())?,
    };
    write_private(path, &serde_json::to_vec_pretty(&bundle)?)
}

/// Puts what the bundles hold into the data folder of a machine. All are read before anything is written.
pub fn unpack(paths: &[PathBuf], data_dir: &Path) -> Outcome {
    let bundles: Vec<Bundle> = paths.iter().map(|path| read(path)).collect::<Outcome<_>>()?;
    let is_other = data_dir.join("boxyard.json").exists() || Head::read(data_dir)?.is_some();
    let mut joined = match Joined::read(data_dir)? {
        Some(joined) => joined,
        None if is_other => {
            return Err(Failure::new(format!("{} holds a whole Boxyard already", data_dir.display()))
                .hint("Name another folder with --data-dir."));
        }
        None => Joined {
            nats_url: bundles[0].nats_url.clone(),
            store_url: bundles[0].store_url.clone(),
            streams_host: bundles[0].streams_host.clone(),
            members: Vec::new(),
        },
    };
    for bundle in &bundles {
        if (&bundle.nats_url, &bundle.store_url) != (&joined.nats_url, &joined.store_url) {
            return Err(Failure::new(format!(
                "{} {} is of the cluster at {}, this folder is of {}",
                bundle.member.kind, bundle.member.name, bundle.nats_url, joined.nats_url
            )));
        }
        if !joined.members.contains(&bundle.member) {
            joined.members.push(bundle.member.clone());
        }
    }
    if joined.members.iter().filter(|member| member.kind == super::Kind::Node).count() > 1 {
        return Err(Failure::new("a machine has one node").hint("Join the other one with a data folder of its own."));
    }
    for folder in ["cluster", "secrets"] {
        fs::create_dir_all(data_dir.join(folder))?;
    }
    for bundle in &bundles {
        let secret = |name: String| data_dir.join("secrets").join(name);
        write_private(&secret(bundle.member.user()), bundle.password.as_bytes())?;
        write_private(&secret(bundle.member.token()), bundle.token.as_bytes())?;
        write_private(&data_dir.join("cluster/ca.pem"), bundle.authority.as_bytes())?;
    }
    write_private(&data_dir.join("cluster/joined.json"), &serde_json::to_vec_pretty(&joined)?)
}

fn read(path: &Path) -> Outcome<Bundle> {
    let bundle: Option<Bundle> = read_json(path)?;
    let bundle = bundle.ok_or_else(|| Failure::new(format!("{}: there is no such file", path.display())))?;
    if bundle.version != VERSION {
        return Err(Failure::new(format!("{} is of form {}, not {VERSION}", path.display(), bundle.version)));
    }
    // It becomes a path.
    Member::new(bundle.member.kind, &bundle.member.name)?;
    Ok(bundle)
}
