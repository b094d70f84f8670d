//! The bridge network of one machine: a bridge, a network namespace and an address for each container, masquerading.
//!
//! Entry point: [`Network`]. Several processes of a machine (node, build workers) use one state folder; a file lock
//! orders them. Must not know containers beyond their ids. Everything global carries the instance's six hex digits:
//! bridge `by<id>`, veth ends `bv<id>…`, nftables table `by<id>`.
//!
//! ```text
//! subnet            the chosen one
//! addresses/<id>    address of a container
//! netns/<id>        its network namespace, bind mounted
//! ```

mod error;
mod link;
mod subnet;

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, umount2};

pub use error::Error;

/// A container's place in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub netns_path: PathBuf,
    pub ip: Ipv4Addr,
    pub prefix: u8,
    pub gateway: Ipv4Addr,
    pub mac: String,
}

#[derive(Clone, Debug)]
pub struct Network {
    instance: String,
    state_dir: PathBuf,
    subnet: subnet::Subnet,
}

impl Network {
    /// Makes sure that bridge, masquerading and forwarding are there. May be repeated.
    ///
    /// # Errors
    /// What the kernel or `nft` says; `Exhausted` when no subnet is free.
    pub async fn open(instance: &str, state_dir: &Path) -> Result<Self, Error> {
        let (instance, state_dir) = (instance.to_owned(), state_dir.to_owned());
        blocking(move || {
            for folder in ["addresses", "netns"] {
                let path = state_dir.join(folder);
                fs::create_dir_all(&path).map_err(Error::io("making", &path))?;
            }
            let _lock = lock(&state_dir)?;
            let subnet = subnet::choose(&state_dir.join("subnet"))?;
            let network = Self { instance, state_dir, subnet };
            link::ensure_bridge(&network.bridge(), network.gateway(), subnet.prefix())?;
            network.masquerade()?;
            let path = Path::new("/proc/sys/net/ipv4/ip_forward");
            fs::write(path, "1").map_err(Error::io("writing", path))?;
            Ok(network)
        })
        .await
    }

    pub fn bridge(&self) -> String {
        format!("by{}", self.instance)
    }

    pub fn gateway(&self) -> Ipv4Addr {
        self.subnet.gateway()
    }

    /// `172.18.0.0/16`.
    pub fn subnet(&self) -> String {
        self.subnet.to_string()
    }

    /// Gives a container a network namespace with an address of the bridge. An earlier one of that id is replaced.
    ///
    /// # Errors
    /// `Exhausted` when no address is free; else what the kernel says.
    pub async fn attach(&self, id: &str) -> Result<Endpoint, Error> {
        let (network, id) = (self.clone(), id.to_owned());
        blocking(move || {
            network.take_down(&id)?;
            let ip = network.reserve(&id)?;
            let netns_path = network.state_dir.join("netns").join(&id);
            let [a, b, c, d] = ip.octets();
            let mac = [0x02, 0x42, a, b, c, d];
            let plan = link::Plan {
                host: format!("bv{}{:04x}", network.instance, u32::from(ip) & 0xffff),
                bridge: network.bridge(),
                netns: netns_path.clone(),
                ip,
                prefix: network.subnet.prefix(),
                gateway: network.gateway(),
                mac,
            };
            if let Err(error) = plan.wire() {
                // The namespace, and the veth pair with it, must not outlive a failed start.
                let _ = network.take_down(&id);
                return Err(error);
            }
            let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
            Ok(Endpoint { netns_path, ip, prefix: network.subnet.prefix(), gateway: network.gateway(), mac })
        })
        .await
    }

    /// Takes a container's namespace away and frees its address. May be repeated.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn detach(&self, id: &str) -> Result<(), Error> {
        let (network, id) = (self.clone(), id.to_owned());
        blocking(move || network.take_down(&id)).await
    }

    /// Removes bridge, table and every namespace of this instance.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn cleanup(&self) -> Result<(), Error> {
        let network = self.clone();
        blocking(move || {
            let folder = network.state_dir.join("netns");
            for entry in fs::read_dir(&folder).map_err(Error::io("reading", &folder))?.flatten() {
                network.take_down(&entry.file_name().to_string_lossy())?;
            }
            let _ = nft(&format!("delete table ip {}\n", network.bridge()));
            link::remove(&network.bridge())
        })
        .await
    }

    fn take_down(&self, id: &str) -> Result<(), Error> {
        let netns = self.state_dir.join("netns").join(id);
        // With its last reference the namespace goes, and both ends of the pair.
        while umount2(&netns, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).is_ok() {}
        for path in [netns, self.state_dir.join("addresses").join(id)] {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("removing", &path)(e)),
                _ => {}
            }
        }
        Ok(())
    }

    fn reserve(&self, id: &str) -> Result<Ipv4Addr, Error> {
        let _lock = lock(&self.state_dir)?;
        let folder = self.state_dir.join("addresses");
        let taken: std::collections::HashSet<Ipv4Addr> = fs::read_dir(&folder)
            .map_err(Error::io("reading", &folder))?
            .flatten()
            .filter_map(|entry| fs::read_to_string(entry.path()).ok()?.trim().parse().ok())
            .collect();
        let ip = self.subnet.hosts().find(|ip| !taken.contains(ip)).ok_or(Error::Exhausted)?;
        let path = folder.join(id);
        fs::write(&path, ip.to_string()).map_err(Error::io("writing", &path))?;
        Ok(ip)
    }

    fn masquerade(&self) -> Result<(), Error> {
        let (table, subnet) = (self.bridge(), self.subnet());
        // Declared before it is deleted, so that the deletion cannot fail; all in one transaction.
        nft(&format!(
            "table ip {table}\ndelete table ip {table}\ntable ip {table} {{\n chain postrouting {{\n  \
             type nat hook postrouting priority srcnat;\n  ip saddr {subnet} oifname != \"{table}\" masquerade\n }}\n}}\n"
        ))
    }
}

fn nft(rules: &str) -> Result<(), Error> {
    use std::io::Write as _;
    let failed = |e: std::io::Error| Error::Firewall(e.to_string());
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(rules.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Firewall(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

fn lock(state_dir: &Path) -> Result<File, Error> {
    let path = state_dir.join("lock");
    let file = File::create(&path).map_err(Error::io("making", &path))?;
    file.lock().map_err(Error::io("locking", &path))?;
    Ok(file)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::Netlink(e.to_string()))?
}
