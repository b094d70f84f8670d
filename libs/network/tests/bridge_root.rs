//! The real kernel; needs root.

use network::Network;

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
