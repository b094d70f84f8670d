//! The arrows between crates, and who alone may name a dependency: `cargo metadata` against these tables, so
//! that a new arrow is a visible line in a diff. The tables are those of DESIGN and ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Each crate, its level, and the crates of ours that it may name. Arrows go to a lower level only.
const CRATES: &[(&str, u8, &[&str])] = &[
    ("model", 0, &[]),
    ("dockerfile", 0, &[]),
    ("trust", 0, &[]),
    ("service", 0, &["model", "trust"]),
    ("proto", 0, &[]),
    ("engine-api", 1, &["model"]),
    ("oci", 1, &["model"]),
    ("metadata", 1, &["model"]),
    ("blobs", 1, &["model"]),
    ("contexts", 1, &["model", "proto"]),
    ("snapshots", 1, &["model"]),
    ("network", 1, &["model"]),
    ("runtime", 1, &["model"]),
    ("bus", 1, &["model", "proto", "service", "trust"]),
    ("streams", 1, &["model", "trust"]),
    ("distribution", 2, &["model", "oci", "trust"]),
    (
        "gateway",
        3,
        &[
            "model",
            "service",
            "trust",
            "proto",
            "engine-api",
            "oci",
            "metadata",
            "contexts",
            "bus",
            "streams",
            "distribution",
        ],
    ),
    ("cli", 3, &["model", "trust", "dockerfile", "contexts", "distribution", "engine-api"]),
    ("registry-sync", 3, &["model", "service", "proto", "oci", "bus", "streams", "distribution"]),
    ("layer-store", 3, &["model", "service", "trust", "proto", "oci", "blobs", "bus"]),
    (
        "build-worker",
        3,
        &[
            "model",
            "dockerfile",
            "service",
            "proto",
            "oci",
            "contexts",
            "snapshots",
            "network",
            "runtime",
            "bus",
            "streams",
            "distribution",
        ],
    ),
    (
        "node-runtime",
        3,
        &["model", "service", "proto", "oci", "snapshots", "network", "runtime", "bus", "streams", "distribution"],
    ),
    ("shim", 3, &["runtime"]),
    ("kit", 0, &[]),
    ("e2e", 1, &["kit"]),
    ("compare", 1, &["kit"]),
    ("bench", 1, &["kit"]),
];

/// A dependency from outside, and the only crates of the product that may name it.
const OWNERS: &[(&str, &[&str])] = &[
    ("sqlx", &["metadata"]),
    ("async-nats", &["bus"]),
    ("tokio-rustls", &["trust"]),
    ("rcgen", &["cli"]),
    // BuildKit's messages: clients' sessions and what is said in them.
    ("bollard-buildkit-proto", &["contexts", "gateway", "cli"]),
    ("tonic", &["gateway", "cli"]),
    ("tonic-prost", &["gateway", "cli"]),
    ("rtnetlink", &["network"]),
    ("nftables", &["network"]),
    ("bollard-stubs", &["engine-api"]),
    ("object_store", &["blobs"]),
    ("oci-spec", &["oci", "runtime"]),
    ("axum", &["gateway", "layer-store"]),
    // The two that also fetch a plain URL for a user: ADD and build contexts, and import.
    ("reqwest", &["distribution", "build-worker", "registry-sync"]),
    ("http-auth", &["distribution"]),
    ("tar", &["contexts", "snapshots", "registry-sync", "build-worker", "node-runtime", "cli"]),
    ("clap", &["cli", "gateway", "registry-sync", "layer-store", "build-worker", "node-runtime", "service"]),
];

/// The tests' own crates, which stand beside the product.
const TESTS: &[&str] = &["kit", "e2e", "compare", "bench"];

/// Crate name to the names of its dependencies that ship (no dev-dependencies, no build-dependencies).
fn workspace() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let needs = package["dependencies"].as_array().expect("dependencies");
            let shipped = needs.iter().filter(|need| need["kind"].is_null());
            let names = shipped.filter_map(|need| need["name"].as_str()).map(str::to_owned).collect();
            (package["name"].as_str().expect("a name").to_owned(), names)
        })
        .collect()
}

#[test]
fn arrows_are_those_of_the_table() {
    let found = workspace();
    let level = |name: &str| CRATES.iter().find(|row| row.0 == name).map(|row| row.1);
    let mut wrong = Vec::new();
    for (name, needs) in &found {
        let Some((_, own_level, allowed)) = CRATES.iter().find(|row| row.0 == name) else {
            wrong.push(format!("crate {name} is not in the table"));
            continue;
        };
        for need in needs.iter().filter(|need| found.contains_key(*need)) {
            if !allowed.contains(&need.as_str()) {
                wrong.push(format!("{name} names {need}, which the table does not allow"));
            }
            let sibling = *own_level == 0 && ["model", "trust"].contains(&need.as_str());
            let bus = name == "bus" && need == "proto";
            if level(need) >= Some(*own_level) && !sibling && !bus {
                wrong.push(format!("{name} (level {own_level}) names {need}, which is not below it"));
            }
        }
    }
    for (name, ..) in CRATES {
        if !found.contains_key(*name) {
            wrong.push(format!("the table has {name}, the workspace has not"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn single_owners_hold() {
    let mut wrong = Vec::new();
    for (name, needs) in workspace().iter().filter(|(name, _)| !TESTS.contains(&name.as_str())) {
        for (dependency, owners) in OWNERS {
            if needs.contains(*dependency) && !owners.contains(&name.as_str()) {
                wrong.push(format!("{name} names {dependency}; only {owners:?} may"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_published_and_lints_are_shared() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    for package in metadata["packages"].as_array().expect("packages") {
        let name = &package["name"];
        assert_eq!(package["publish"], serde_json::json!([]), "{name} could be published");
        assert_eq!(package["license"], "Apache-2.0", "{name}");
        let manifest = std::fs::read_to_string(package["manifest_path"].as_str().expect("a path")).expect("a manifest");
        assert!(manifest.contains("[lints]\nworkspace = true"), "{name} does not take the workspace's lints");
    }
}
