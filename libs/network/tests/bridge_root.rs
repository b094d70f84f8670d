//! The real kernel; needs root.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use network::Network;

/// Containers that come and go at once, and rounds of each.
const AT_ONCE: usize = 8;
const ROUNDS: usize = 60;
/// File system of a bind mounted namespace (linux/magic.h).
const NSFS_MAGIC: i64 = 0x6e73_6673;

#[tokio::test]
async fn a_container_gets_a_wired_namespace_and_gives_it_back() {
    assert!(nix::unistd::geteuid().is_root(), "bridges and namespaces need root");
    let state = tempfile::tempdir().expect("a folder");
    let instance = format!("{:06x}", std::process::id() & 0xff_ffff);
    let network = Network::open(&instance, state.path()).await.expect("a network");
    let first = network.attach("one").await.expect("an endpoint");
    let second = network.attach("two").await.expect("an endpoint");
    assert_ne!(first.ip, second.ip);
    assert!(first.netns_path.exists());
    network.detach("one").await.expect("detached");
    assert!(!first.netns_path.exists());
    // Freed addresses and those wired ahead are used again: the subnet does not run away.
    for round in 0..20 {
        let id = format!("round{round}");
        let end = network.attach(&id).await.expect("an endpoint");
        assert!(end.ip.octets()[3] < 20, "round {round} got {}", end.ip);
        network.detach(&id).await.expect("detached");
    }
    // A namespace that something still holds does not keep the host's end of its pair alive.
    let _held = std::fs::File::open(&second.netns_path).expect("a namespace");
    network.cleanup().await.expect("clean");
    let links = std::fs::read_dir("/sys/class/net").expect("a folder").flatten().map(|link| link.file_name());
    let left: Vec<_> = links.filter(|name| name.to_string_lossy().contains(&instance)).collect();
    assert!(left.is_empty(), "links are left: {left:?}");
    assert_eq!(std::fs::read_dir(state.path().join("netns")).expect("a folder").count(), 0, "no namespace is left");
    assert!(!std::path::Path::new(&format!("/sys/class/net/{}", network.bridge())).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn containers_that_come_and_go_at_once_share_no_address_and_lose_no_namespace() {
    assert!(nix::unistd::geteuid().is_root(), "bridges and namespaces need root");
    let state = tempfile::tempdir().expect("a folder");
    let instance = format!("{:06x}", std::process::id() & 0xff_ffff);
    let network = Network::open(&instance, state.path()).await.expect("a network");
    let held = Arc::new(Mutex::new(HashSet::<Ipv4Addr>::new()));
    let containers = (0..AT_ONCE).map(|number| {
        // As each process of a machine has its own.
        let (instance, folder, held) = (instance.clone(), state.path().to_owned(), held.clone());
        tokio::spawn(async move {
            let network = Network::open(&instance, &folder).await.expect("a network");
            let mut faults = Vec::new();
            for round in 0..ROUNDS {
                let id = format!("c{number}-{round}");
                let end = network.attach(&id).await.expect("an endpoint");
                if !held.lock().expect("no holder panics").insert(end.ip) {
                    faults.push(format!("{id}: {} is another's, too", end.ip));
                }
                tokio::time::sleep(std::time::Duration::from_millis(3)).await;
                if !is_namespace(&end.netns_path) {
                    faults.push(format!("{id}: {} has lost its namespace", end.ip));
                }
                held.lock().expect("no holder panics").remove(&end.ip);
                network.detach(&id).await.expect("detached");
            }
            faults
        })
    });
    let faults = futures::future::join_all(containers).await;
    network.cleanup().await.expect("clean");
    let faults: Vec<String> = faults.into_iter().flat_map(|faults| faults.expect("no panic")).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

fn is_namespace(path: &Path) -> bool {
    nix::sys::statfs::statfs(path).is_ok_and(|fs| fs.filesystem_type().0 == NSFS_MAGIC)
}
