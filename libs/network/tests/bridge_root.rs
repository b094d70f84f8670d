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
    let third = network.attach("three").await.expect("an endpoint");
    assert_eq!(third.ip, first.ip, "a freed address is used again");
    network.cleanup().await.expect("clean");
    assert!(!std::path::Path::new(&format!("/sys/class/net/{}", network.bridge())).exists());
}
