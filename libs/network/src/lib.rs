//! The bridge network of one machine: a bridge, a network namespace and an address for each container, masquerading.
//!
//! Entry point: [`Network`]. Several processes of a machine (node, build workers) use one state folder. Records are written,
//! renamed and removed under its file lock: who looks for a free address would else miss one that gets another name
//! meanwhile, and give it, with the namespace that is in use, to a second container. Must not know containers beyond their ids. Everything global carries the instance's six hex digits:
//! bridge `by<id>`, veth ends `bv<id>…`, nftables table `by<id>`.
//!
//! ```text
//! subnet            the chosen one
//! addresses/<id>    address of a container, and the path of its network namespace
//! addresses/+<n>    the same of an endpoint that is wired ahead; a container takes it by a rename
//! addresses/~<n>    one that is being wired, by the holder of spares.lock
//! netns/<address>   a network namespace, bind mounted
//! ```

mod error;
mod link;
mod subnet;

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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

/// Endpoints that are wired ahead; a refill takes about as long as a short container runs.
const SPARES: usize = 3;
/// So long another process of the machine is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is looked at, which grows: most have a lock for less than a millisecond.
const PAUSES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_millis(50);
/// No container's id begins so.
const SPARE: char = '+';
const DRAFT: char = '~';
/// File system of a bind mounted namespace (linux/magic.h).
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// What a record holds.
#[derive(Debug)]
struct Place {
    ip: Ipv4Addr,
    netns: PathBuf,
}

impl Place {
    /// `None` where there is no record, or only the begin of one.
    fn read(path: &Path) -> Result<Option<Self>, Error> {
        let text = match fs::read_to_string(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(Error::io("reading", path))?,
        };
        let place = text.split_once('\n').and_then(|(ip, netns)| Some((ip.parse().ok()?, PathBuf::from(netns))));
        Ok(place.map(|(ip, netns)| Self { ip, netns }))
    }

    fn is_wired(&self) -> bool {
        nix::sys::statfs::statfs(&self.netns).is_ok_and(|fs| fs.filesystem_type().0 == NSFS_MAGIC)
    }
}

#[derive(Clone, Debug)]
pub struct Network {
    instance: String,
    state_dir: PathBuf,
    subnet: subnet::Subnet,
    /// After [`Network::cleanup`] nothing is wired ahead any more.
    closed: Arc<AtomicBool>,
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
            let network = Self { instance, state_dir, subnet, closed: Arc::default() };
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

    /// What the names of the host's ends begin with.
    fn pairs(&self) -> String {
        format!("bv{}", self.instance)
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
        let place = blocking(move || {
            network.take_down(&id)?;
            match network.claim_spare(&id)? {
                Some(place) => Ok(place),
                None => network.wire(&id),
            }
        })
        .await?;
        let network = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = network.fill_spares() {
                // The next start makes its own and says what is wrong.
                tracing::debug!(%error, "no endpoint could be wired ahead");
            }
        });
        let Place { netns, ip } = place;
        let mac = mac(ip).map(|byte| format!("{byte:02x}")).join(":");
        Ok(Endpoint { netns_path: netns, ip, prefix: self.subnet.prefix(), gateway: self.gateway(), mac })
    }

    /// Another hardware address than the one that goes with the IP address.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn set_mac(&self, endpoint: &mut Endpoint, mac: [u8; 6]) -> Result<(), Error> {
        let netns = endpoint.netns_path.clone();
        blocking(move || link::set_mac(&netns, mac)).await?;
        endpoint.mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        Ok(())
    }

    /// Wires endpoints ahead, so that a start does not wait for the kernel to make a namespace and a pair.
    fn fill_spares(&self) -> Result<(), Error> {
        // Who else holds it fills them.
        let Some(_filling) = lock_within(&self.state_dir.join("spares.lock"), Duration::ZERO)? else { return Ok(()) };
        for number in 0..SPARES {
            let (draft, spare) = (format!("{DRAFT}{number}"), self.record(&format!("{SPARE}{number}")));
            if self.closed.load(Ordering::SeqCst) {
                return Ok(());
            }
            if !spare.exists() {
                self.take_down(&draft)?;
                self.wire(&draft)?;
                let _lock = lock(&self.state_dir)?;
                fs::rename(self.record(&draft), &spare).map_err(Error::io("keeping", &spare))?;
            }
        }
        Ok(())
    }

    /// A spare becomes the container's by one rename, so that two processes never take the same.
    fn claim_spare(&self, id: &str) -> Result<Option<Place>, Error> {
        for number in 0..SPARES {
            let (spare, own) = (self.record(&format!("{SPARE}{number}")), self.record(id));
            let claimed = {
                let _lock = lock(&self.state_dir)?;
                fs::rename(&spare, &own)
            };
            match claimed {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                claimed => claimed.map_err(Error::io("claiming", &spare))?,
            }
            match Place::read(&own)? {
                Some(place) if place.is_wired() => return Ok(Some(place)),
                // Half made by a process that died, or from before a reboot.
                _ => self.take_down(id)?,
            }
        }
        Ok(None)
    }

    /// A namespace with a pair to the bridge, under the name `id`.
    fn wire(&self, id: &str) -> Result<Place, Error> {
        let place = self.reserve(id)?;
        let plan = link::Plan {
            host: format!("{}{:04x}", self.pairs(), u32::from(place.ip) & 0xffff),
            bridge: self.bridge(),
            netns: place.netns.clone(),
            ip: place.ip,
            prefix: self.subnet.prefix(),
            gateway: self.gateway(),
            mac: mac(place.ip),
        };
        if let Err(error) = plan.wire() {
            // The namespace, and the veth pair with it, must not outlive a failed start.
            let _ = self.take_down(id);
            return Err(error);
        }
        Ok(place)
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
            network.closed.store(true, Ordering::SeqCst);
            let _filling = wait_for(&network.state_dir.join("spares.lock"))?;
            let folder = network.state_dir.join("netns");
            for entry in fs::read_dir(&folder).map_err(Error::io("reading", &folder))?.flatten() {
                unbind(&entry.path())?;
            }
            let records = network.state_dir.join("addresses");
            for entry in fs::read_dir(&records).map_err(Error::io("reading", &records))?.flatten() {
                remove_file(&entry.path())?;
            }
            let _ = nft(&format!("delete table ip {}\n", network.bridge()));
            link::remove(&network.bridge(), &network.pairs())
        })
        .await
    }

    fn record(&self, id: &str) -> PathBuf {
        self.state_dir.join("addresses").join(id)
    }

    fn take_down(&self, id: &str) -> Result<(), Error> {
        let record = self.record(id);
        // Most who ask have nothing to take down, and need not wait.
        if !record.exists() {
            return Ok(());
        }
        let _lock = lock(&self.state_dir)?;
        let Some(place) = Place::read(&record)? else { return Ok(()) };
        unbind(&place.netns)?;
        remove_file(&record)
    }

    fn reserve(&self, id: &str) -> Result<Place, Error> {
        let _lock = lock(&self.state_dir)?;
        let folder = self.state_dir.join("addresses");
        let taken: std::collections::HashSet<Ipv4Addr> = fs::read_dir(&folder)
            .map_err(Error::io("reading", &folder))?
            .flatten()
            .filter_map(|entry| Some(Place::read(&entry.path()).ok()??.ip))
            .collect();
        let ip = self.subnet.hosts().find(|ip| !taken.contains(ip)).ok_or(Error::Exhausted)?;
        let place = Place { ip, netns: self.state_dir.join("netns").join(ip.to_string()) };
        // What a process that died left under this address.
        unbind(&place.netns)?;
        let path = self.record(id);
        fs::write(&path, format!("{ip}\n{}", place.netns.display())).map_err(Error::io("writing", &path))?;
        Ok(place)
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

fn mac(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [0x02, 0x42, a, b, c, d]
}

/// With its last reference a namespace goes, and both ends of its pair.
fn unbind(netns: &Path) -> Result<(), Error> {
    while umount2(netns, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).is_ok() {}
    remove_file(netns)
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("removing", path)(e)),
        _ => Ok(()),
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
    wait_for(&state_dir.join("lock"))
}

/// Waits for a lock, but not without end: another process may be stopped while it has it.
fn wait_for(path: &Path) -> Result<File, Error> {
    lock_within(path, PATIENCE)?.ok_or_else(|| Error::Locked(path.to_owned(), PATIENCE))
}

/// `None` when another process or task has had it for so long.
fn lock_within(path: &Path, patience: Duration) -> Result<Option<File>, Error> {
    let file = File::create(path).map_err(Error::io("making", path))?;
    let (begin, mut pause) = (Instant::now(), *PAUSES.start());
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(fs::TryLockError::Error(e)) => return Err(Error::io("locking", path)(e)),
            Err(fs::TryLockError::WouldBlock) if begin.elapsed() >= patience => return Ok(None),
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(*PAUSES.end());
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::Netlink(e.to_string()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_waited_for_and_not_without_end() {
        let temp = tempfile::tempdir().expect("a folder");
        let path = temp.path().join("lock");
        let held = lock_within(&path, Duration::ZERO).expect("asked").expect("free");
        assert!(lock_within(&path, Duration::from_millis(5)).expect("asked").is_none());
        let waiting = std::thread::spawn({
            let path = path.clone();
            move || lock_within(&path, PATIENCE)
        });
        drop(held);
        assert!(waiting.join().expect("it ends").expect("asked").is_some());
        let error = Error::Locked(path, PATIENCE);
        assert_eq!(error.kind(), model::ErrorKind::Unavailable);
    }
}
