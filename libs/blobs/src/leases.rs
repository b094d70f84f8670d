use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::Digest;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Every lease, in memory and in its folder: `<id>.json` says until when, `<id>.pins` lists digests, one a line.
/// A crash may cut the last line; a half line is no digest and pins nothing.
pub(crate) struct Leases {
    folder: PathBuf,
    held: HashMap<String, Lease>,
    /// What leases pinned that are over: nobody may want it any more.
    released: HashSet<Digest>,
}

struct Lease {
    record: Record,
    pins: HashSet<Digest>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Record {
    owner: String,
    ends_at_ms: u64,
}

impl Leases {
    pub(crate) fn open(folder: PathBuf) -> Result<Self, Error> {
        fs::create_dir_all(&folder).map_err(Error::io("creating the folder of leases"))?;
        let mut held = HashMap::new();
        for entry in fs::read_dir(&folder).map_err(Error::io("listing the leases"))? {
            let path = entry.map_err(Error::io("listing the leases"))?.path();
            let Some(id) = id_of(&path) else { continue };
            let bytes = fs::read(&path).map_err(Error::io("reading a lease"))?;
            // A record is renamed in place complete: one that cannot be read is what a crash of the machine has left of it.
            let Ok(record) = serde_json::from_slice(&bytes) else {
                let _ = fs::remove_file(path.with_extension("pins"));
                let _ = fs::remove_file(path);
                continue;
            };
            let pins = fs::read_to_string(path.with_extension("pins")).unwrap_or_default();
            held.insert(id, Lease { record, pins: pins.lines().filter_map(|line| line.parse().ok()).collect() });
        }
        let mut leases = Self { folder, held, released: HashSet::new() };
        leases.sweep();
        Ok(leases)
    }

    pub(crate) fn create(&mut self, owner: &str, ttl: Duration) -> Result<String, Error> {
        let id = hex::encode(rand::random::<[u8; 16]>());
        let record = Record { owner: owner.to_owned(), ends_at_ms: ends_at(ttl) };
        self.save(&id, &record)?;
        self.held.insert(id.clone(), Lease { record, pins: HashSet::new() });
        Ok(id)
    }

    pub(crate) fn renew(&mut self, id: &str, ttl: Duration) -> Result<(), Error> {
        let mut record = self.living(id)?.record.clone();
        record.ends_at_ms = ends_at(ttl);
        self.save(id, &record)?;
        self.living(id)?.record = record;
        Ok(())
    }

    /// May be repeated; a lease that is not there is ended.
    pub(crate) fn end(&mut self, id: &str) {
        if let Some(lease) = self.held.remove(id) {
            self.released.extend(lease.pins);
            let _ = fs::remove_file(self.file(id, "json"));
            let _ = fs::remove_file(self.file(id, "pins"));
        }
    }

    pub(crate) fn pin(&mut self, id: &str, digest: &Digest) -> Result<(), Error> {
        if self.living(id)?.pins.contains(digest) {
            return Ok(());
        }
        let mut list = fs::File::options()
            .create(true)
            .append(true)
            .open(self.file(id, "pins"))
            .map_err(Error::io("opening a lease's pins"))?;
        list.write_all(format!("{digest}\n").as_bytes()).map_err(Error::io("writing a lease's pins"))?;
        self.living(id)?.pins.insert(digest.clone());
        Ok(())
    }

    fn living_now(&self) -> impl Iterator<Item = &Lease> {
        let now = now_ms();
        self.held.values().filter(move |lease| lease.record.ends_at_ms > now)
    }

    pub(crate) fn is_pinned(&self, digest: &Digest) -> bool {
        self.living_now().any(|lease| lease.pins.contains(digest))
    }

    /// All that living leases pin.
    pub(crate) fn pinned(&self) -> HashSet<Digest> {
        self.living_now().flat_map(|lease| lease.pins.iter().cloned()).collect()
    }

    /// Owners of the living leases that pin a blob, and when those end, in milliseconds since 1970.
    pub(crate) fn holders(&self, digest: &Digest) -> Vec<(String, u64)> {
        let living = self.living_now().filter(|lease| lease.pins.contains(digest));
        let mut holders: Vec<(String, u64)> =
            living.map(|lease| (lease.record.owner.clone(), lease.record.ends_at_ms)).collect();
        holders.sort();
        holders
    }

    /// Forgets leases whose time is over.
    pub(crate) fn sweep(&mut self) {
        let now = now_ms();
        let over: Vec<String> =
            self.held.iter().filter(|(_, lease)| lease.record.ends_at_ms <= now).map(|(id, _)| id.clone()).collect();
        for id in over {
            if let Some(lease) = self.held.get(&id) {
                tracing::info!(lease = id, owner = lease.record.owner, "a lease ran out");
            }
            self.end(&id);
        }
    }

    /// Blobs that leases pinned which are over; each is told once.
    pub(crate) fn take_released(&mut self) -> Vec<Digest> {
        self.sweep();
        self.released.drain().collect()
    }

    pub(crate) fn let_go(&mut self, digests: impl IntoIterator<Item = Digest>) {
        self.released.extend(digests);
    }

    fn living(&mut self, id: &str) -> Result<&mut Lease, Error> {
        let now = now_ms();
        self.held.get_mut(id).filter(|lease| lease.record.ends_at_ms > now).ok_or_else(|| Error::NoLease(id.to_owned()))
    }

    fn save(&self, id: &str, record: &Record) -> Result<(), Error> {
        let bytes = serde_json::to_vec(record).map_err(|e| Error::io("encoding a lease")(e.into()))?;
        let mut file = tempfile::NamedTempFile::new_in(&self.folder).map_err(Error::io("creating a lease"))?;
        // It is not forced to the disk, as its pins are not: what a lease guards does not outlive a crash of the machine.
        file.write_all(&bytes).map_err(Error::io("writing a lease"))?;
        file.persist(self.file(id, "json")).map_err(|e| Error::io("storing a lease")(e.error))?;
        Ok(())
    }

    /// Only for ids that are held, which are our own random ones.
    fn file(&self, id: &str, extension: &str) -> PathBuf {
        self.folder.join(id).with_extension(extension)
    }
}

fn id_of(path: &Path) -> Option<String> {
    let id = path.file_stem()?.to_str()?;
    let ours = path.extension()? == "json" && id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    ours.then(|| id.to_owned())
}

fn ends_at(ttl: Duration) -> u64 {
    now_ms().saturating_add(ttl.as_millis() as u64)
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_survive_a_restart_and_run_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let (kept, lost) = (Digest::of(b"kept"), Digest::of(b"lost"));
        let open = || Leases::open(folder.path().join("leases")).expect("opens");
        let mut leases = open();
        let long = leases.create("pull", Duration::from_secs(600)).expect("creates");
        let short = leases.create("pull", Duration::from_millis(50)).expect("creates");
        leases.pin(&long, &kept).expect("pins");
        leases.pin(&short, &lost).expect("pins");
        assert!(leases.is_pinned(&lost));
        assert_eq!(leases.pinned(), HashSet::from([kept.clone(), lost.clone()]));
        assert_eq!(leases.holders(&kept).into_iter().map(|holder| holder.0).collect::<Vec<_>>(), ["pull"]);
        assert_eq!(leases.holders(&Digest::of(b"other")), []);
        std::thread::sleep(Duration::from_millis(60));
        assert!(!leases.is_pinned(&lost));
        assert!(matches!(leases.pin(&short, &kept), Err(Error::NoLease(_))));
        assert_eq!(leases.take_released(), std::slice::from_ref(&lost));
        assert_eq!(leases.take_released(), [], "told once");

        let mut leases = open();
        assert!(leases.is_pinned(&kept), "a lease outlives its process");
        assert!(!folder.path().join("leases").join(&short).with_extension("json").exists());
        leases.renew(&long, Duration::from_secs(600)).expect("renews");
        leases.end(&long);
        assert!(!leases.is_pinned(&kept));
        assert_eq!(leases.take_released(), std::slice::from_ref(&kept));
        assert!(!open().is_pinned(&kept));
    }

    #[test]
    fn what_a_crash_of_the_machine_has_left_of_a_lease_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let id = Leases::open(folder.path().to_owned()).and_then(|mut leases| {
            let id = leases.create("pull", Duration::from_secs(600))?;
            leases.pin(&id, &Digest::of(b"kept"))?;
            Ok(id)
        });
        let record = folder.path().join(id.expect("creates")).with_extension("json");
        std::fs::write(record, "").expect("writes");
        let leases = Leases::open(folder.path().to_owned()).expect("opens");
        assert!(!leases.is_pinned(&Digest::of(b"kept")));
        assert_eq!(std::fs::read_dir(folder.path()).expect("reads").count(), 0);
    }

    #[test]
    fn unknown_and_hostile_ids_touch_no_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut leases = Leases::open(folder.path().join("leases")).expect("opens");
        std::fs::write(folder.path().join("x.json"), "outside").expect("writes");
        for id in ["", "../x", "/etc/passwd", "00000000000000000000000000000000"] {
            leases.end(id);
            assert!(matches!(leases.renew(id, Duration::from_secs(1)), Err(Error::NoLease(_))), "{id}");
            assert!(matches!(leases.pin(id, &Digest::of(b"")), Err(Error::NoLease(_))), "{id}");
        }
        assert!(folder.path().join("x.json").exists());
    }
}
