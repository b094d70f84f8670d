//! A Boxyard on several machines. The first one, the head, has gateway, NATS, layer store and registry-sync; other
//! machines bring nodes and build workers.
//!
//! ```text
//! head:   cluster init ──▶ authority, certificates        D/cluster
//!         up                                              all speak TLS on the head's address
//!         cluster add node b ──▶ one file, the bundle     NATS and the layer store know the new user
//! other:  cluster join b.bundle ──▶ its own data folder   node b dials the head; it has no inbound port
//! head:   cluster revoke node b                           NATS drops it, the layer store refuses its token
//! head:   cluster renew                                   new certificates of the same authority; all go on
//! ```

mod authority;
mod bundle;
mod head;

use std::path::PathBuf;

use clap::{Args, Subcommand};

pub use bundle::Joined;
use bundle::Seen;
pub use head::{Head, Kind, Member, reload_nats};

use super::config::{self, Plan};
use crate::failure::{Failure, Outcome};
use crate::output;

#[derive(Subcommand, Debug)]
pub enum Cluster {
    /// Make this machine the head of a cluster: authority, certificates, addresses
    Init(Init),
    /// Let a node or a build worker in: write the file that it joins with
    Add(Add),
    /// Start the nodes and workers of these files on this machine
    Join(Join),
    /// Put a node or a build worker out
    Revoke(Revoke),
    /// Make the head's certificates anew, of the same authority: members need nothing, no process is restarted
    Renew(Renew),
    /// List the nodes and build workers that were let in
    Ls(Ls),
}

#[derive(Args, Debug)]
pub struct Init {
    /// Folder of the head's Boxyard
    #[arg(long, env = "BOXYARD_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// The head's address as other machines reach it, IP[:PORT]; three ports from PORT on are used [default port: 7420]
    #[arg(long, value_name = "IP[:PORT]")]
    address: String,
    /// Listen there instead of at the address alone: 0.0.0.0 is all of this machine
    #[arg(long, value_name = "IP")]
    listen: Option<std::net::IpAddr>,
    /// A further name or address of the head that its certificates hold (may be repeated)
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
}

#[derive(Args, Debug)]
pub struct Add {
    /// What joins
    kind: Kind,
    /// Its name, unique in the cluster: letters, digits and hyphens
    name: String,
    /// Folder of the head's Boxyard
    #[arg(long, env = "BOXYARD_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// How this one reaches the head, where its address is another there: a name or an IP that the certificates hold
    #[arg(long, value_name = "HOST")]
    address: Option<String>,
    /// Write the bundle there [default: NAME.bundle]
    #[arg(short, long)]
    output: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct Join {
    /// Files that `boxyard cluster add` has written
    #[arg(required = true, value_name = "BUNDLE")]
    bundles: Vec<PathBuf>,
    /// Folder for everything that this machine keeps
    #[arg(long, env = "BOXYARD_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Return when everything is ready
    #[arg(short, long)]
    detach: bool,
}

#[derive(Args, Debug)]
pub struct Revoke {
    /// What is put out
    kind: Kind,
    /// Its name
    name: String,
    /// Folder of the head's Boxyard
    #[arg(long, env = "BOXYARD_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct Renew {
    /// Folder of the head's Boxyard
    #[arg(long, env = "BOXYARD_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// A further name or address of the head that its certificates are to hold from now on (may be repeated)
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
}

#[derive(Args, Debug)]
pub struct Ls {
    /// Folder of the head's Boxyard
    #[arg(long, env = "BOXYARD_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

impl Cluster {
    pub async fn run(self) -> Outcome {
        match self {
            Self::Init(command) => command.run(),
            Self::Add(command) => command.run(),
            Self::Join(command) => command.run().await,
            Self::Revoke(command) => command.run(),
            Self::Renew(command) => command.run(),
            Self::Ls(command) => command.run(),
        }
    }
}

impl Init {
    fn run(self) -> Outcome {
        let data_dir = config::data_dir(self.data_dir)?;
        let head = Head { names: self.names, listen: self.listen, ..Head::new(&self.address)? };
        if Head::read(&data_dir)?.is_some() {
            return Err(Failure::new(format!("{} is the head of a cluster already", data_dir.display())));
        }
        if Joined::read(&data_dir)?.is_some() {
            return Err(Failure::new(format!("{} has joined a cluster already", data_dir.display())));
        }
        authority::create(&data_dir.join("cluster"), &head.all_names())?;
        head.write(&data_dir)?;
        let mut plan = Plan::kept(&data_dir)?;
        if plan.kept.instance.is_empty() {
            plan.found()?;
        }
        let shown = data_dir.display();
        output::line(format!(
            "The cluster's authority and certificates are in {shown}/cluster; it listens on {}, ports {} to {}.\n\
             Start it:            boxyard up --data-dir {shown}\n\
             Let a node in:       boxyard cluster add node NAME --data-dir {shown}\n\
             Clients over TCP:    up --host tcp://{}:2376, then DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH={shown}/cluster/client",
            head.address,
            head.port,
            head.port + 2,
            head.address,
        ));
        Ok(())
    }
}

impl Add {
    fn run(self) -> Outcome {
        let data_dir = config::data_dir(self.data_dir)?;
        let mut head = Head::require(&data_dir)?;
        let member = Member::new(self.kind, &self.name)?;
        if head.members.contains(&member) {
            return Err(Failure::new(format!("there is a {} {} already", member.kind, member.name))
                .hint("Put it out with 'boxyard cluster revoke' first, or choose another name."));
        }
        if let Some(host) = self.address.as_ref().filter(|host| !head.all_names().contains(host)) {
            return Err(Failure::new(format!("the head's certificates don't hold {host}"))
                .hint(format!("Put it in with 'boxyard cluster renew --name {host}'.")));
        }
        head.members.push(member.clone());
        head.write(&data_dir)?;
        let plan = Plan::kept(&data_dir)?;
        plan.write_users()?;
        head::reload_nats(&data_dir);
        let path = self.output.unwrap_or_else(|| format!("{}.bundle", member.name).into());
        bundle::write(&path, &plan, Seen { head: &head, host: self.address.as_deref() }, &member)?;
        output::line(format!(
            "{} holds the credentials of {} {}: bring it to its machine over a safe way, and there\n\
             boxyard cluster join {} --data-dir D",
            path.display(),
            member.kind,
            member.name,
            path.file_name().unwrap_or_default().to_string_lossy(),
        ));
        Ok(())
    }
}

impl Join {
    async fn run(self) -> Outcome {
        let data_dir = config::data_dir(self.data_dir)?;
        bundle::unpack(&self.bundles, &data_dir)?;
        super::Up::of(data_dir, self.detach).run().await
    }
}

impl Revoke {
    fn run(self) -> Outcome {
        let data_dir = config::data_dir(self.data_dir)?;
        let mut head = Head::require(&data_dir)?;
        let member = Member::new(self.kind, &self.name)?;
        if !head.members.contains(&member) {
            return Err(Failure::new(format!("there is no {} {} in this cluster", member.kind, member.name)));
        }
        head.members.retain(|other| other != &member);
        head.write(&data_dir)?;
        let plan = Plan::kept(&data_dir)?;
        // The next one of this name gets new secrets.
        for secret in [member.user(), member.token()] {
            let _ = std::fs::remove_file(data_dir.join("secrets").join(secret));
        }
        plan.write_users()?;
        head::reload_nats(&data_dir);
        output::line(format!("{} {} is out", member.kind, member.name));
        Ok(())
    }
}

impl Renew {
    fn run(self) -> Outcome {
        let data_dir = config::data_dir(self.data_dir)?;
        let mut head = Head::require(&data_dir)?;
        for name in self.names {
            if !head.all_names().contains(&name) {
                head.names.push(name);
            }
        }
        authority::renew(&data_dir.join("cluster"), &head.all_names())?;
        head.write(&data_dir)?;
        // The other servers look at their files at each handshake.
        head::reload_nats(&data_dir);
        output::line(format!(
            "The certificates of {} are new and last about {} years; cluster/client has a new one for the docker command.",
            head.all_names().join(", "),
            authority::LIFE_YEARS,
        ));
        Ok(())
    }
}

impl Ls {
    fn run(self) -> Outcome {
        let head = Head::require(&config::data_dir(self.data_dir)?)?;
        let rows: String = head.members.iter().map(|m| format!("{}\t{}\n", m.kind, m.name)).collect();
        output::write(crate::format::table::aligned(&format!("KIND\tNAME\n{rows}"), 10)?.as_bytes());
        Ok(())
    }
}
