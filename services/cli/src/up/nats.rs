//! The NATS server: where it is, whether it is new enough, and its configuration with one
//! user for each process.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cluster::Kind;
use super::config::Plan;
use crate::failure::{Failure, Outcome};

const HINT: &str = "Get one with `make setup`, put it on PATH, or name it in BOXYARD_NATS_SERVER.";

/// A server of 2.11 or newer, and its version.
pub fn find(beside: &Path) -> Outcome<(PathBuf, String)> {
    let mut candidates: Vec<PathBuf> = Vec::new();
    if let Some(named) = std::env::var_os("BOXYARD_NATS_SERVER").filter(|n| !n.is_empty()) {
        candidates.push(named.into());
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        candidates.extend(std::env::split_paths(&path).map(|p| p.join("nats-server")));
        candidates.push(beside.join("nats-server"));
        if let Some(home) = std::env::var_os("HOME").map(PathBuf::from) {
            candidates.push(home.join(".cache/boxyard/bin/nats-server"));
            candidates.push(home.join(".cache/boxyard/nats-server"));
        }
    }
    let mut too_old = None;
    for candidate in candidates.into_iter().filter(|c| c.is_file()) {
        match version(&candidate) {
            Some(version) if is_new_enough(&version) => return Ok((candidate, version)),
            found => too_old = Some((candidate, found.unwrap_or_else(|| "of unknown version".into()))),
        }
    }
    Err(match too_old {
        Some((path, version)) => {
            Failure::new(format!("{} is {version}; Boxyard needs nats-server 2.11 or newer", path.display()))
        }
        None => Failure::new("no nats-server was found"),
    }
    .hint(HINT))
}

fn version(binary: &Path) -> Option<String> {
    let output = Command::new(binary).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text
        .split_whitespace()
        .find_map(|w| w.strip_prefix('v').filter(|v| v.starts_with(|c: char| c.is_ascii_digit())));
    version.map(str::to_owned)
}

fn is_new_enough(version: &str) -> bool {
    let mut parts = version.split(['.', '-']).map(|p| p.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (2, 11)
}

/// Calls to the gateway that a node makes.
const NODE_CALLS: &[&str] = &["NodeHello"];
/// Calls to the gateway, and to the layer store, that a worker makes.
const WORKER_CALLS: &[&str] = &[
    "BuildNext",
    "BuildRenew",
    "SessionLookup",
    "Workers",
    "ImageResolve",
    "LayoutResolve",
    "StepLookup",
    "StepResult",
    "BuildFinish",
    "BuildExport",
    "CacheImport",
    "StepContainer",
    "ResultLookup",
    "ResultPut",
    "CacheMountGet",
    "CacheMountPut",
];
/// Calls to the one gateway that a build's client is connected to.
const WORKER_SESSION_CALLS: &[&str] = &["ContextSync", "SecretGet", "SshForward", "OutputSend"];
/// Calls to the one gateway that has the session of a client whose content is read or written.
const SYNC_SESSION_CALLS: &[&str] = &["ContentGet", "ContentPut"];
const WORKER_STORE_CALLS: &[&str] = &["LeaseCreate", "LeaseRenew", "LeaseEnd", "BlobsPin"];

/// What one process may say and hear. The last word of a call's subject is its caller, so nobody speaks for another.
struct User {
    name: String,
    serves: Vec<String>,
    publishes: Vec<String>,
}

fn users(plan: &Plan) -> Vec<User> {
    let texts = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let mut users = vec![
        User {
            name: "gateway".into(),
            serves: texts(&["rpc.gateway.*.*", "gone.gateway", "rpc.gateway-at.*.*.*", "gone.gateway-at.*"]),
            publishes: texts(&[">"]),
        },
        User {
            name: "store".into(),
            serves: texts(&["rpc.store.*.*"]),
            publishes: texts(&["rpc.gateway.*.store", "$KV.alive.>"]),
        },
        User {
            name: "sync".into(),
            serves: texts(&["rpc.sync.*.*", "gone.sync"]),
            publishes: [
                texts(&["rpc.gateway.*.sync", "rpc.store.*.sync", "gone.gateway-at.*", "$KV.alive.>"]),
                calls("gateway-at.*", SYNC_SESSION_CALLS, "sync"),
            ]
            .concat(),
        },
    ];
    for member in plan.members() {
        let (name, id) = (member.user(), &member.name);
        let publishes = match member.kind {
            Kind::Node => {
                let mut publishes = calls("gateway", NODE_CALLS, &name);
                publishes.extend([format!("event.node.{id}"), format!("$KV.alive.node.{id}")]);
                publishes
            }
            Kind::Worker => {
                let mut publishes = calls("gateway", WORKER_CALLS, &name);
                publishes.extend(calls("gateway-at.*", WORKER_SESSION_CALLS, &name));
                publishes.extend(calls("store", WORKER_STORE_CALLS, &name));
                publishes.extend([
                    format!("buildlog.*.{name}"),
                    "gone.gateway".to_owned(),
                    "gone.gateway-at.*".to_owned(),
                    // A step that another worker runs is followed there, and a step may be handed to another worker.
                    format!("rpc.worker.*.StepFollow.{name}"),
                    format!("rpc.worker.*.StepRun.{name}"),
                    "gone.worker.*".to_owned(),
                    "$KV.claims.>".to_owned(),
                    "$JS.API.DIRECT.GET.KV_claims.$KV.claims.>".to_owned(),
                    format!("$KV.alive.build-worker.{id}"),
                ]);
                publishes
            }
        };
        let mut serves = vec![format!("rpc.{}.{id}.*.*", member.kind)];
        if member.kind == Kind::Worker {
            serves.push(format!("gone.worker.{id}"));
        }
        users.push(User { serves, publishes, name });
    }
    users
}

fn calls(service: &str, names: &[&str], user: &str) -> Vec<String> {
    names.iter().map(|name| format!("rpc.{service}.{name}.{user}")).collect()
}

/// The server's configuration file.
pub fn config(plan: &Plan) -> Outcome<String> {
    let quote = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let list = |subjects: &[String]| subjects.iter().map(|s| quote(s)).collect::<Vec<_>>().join(", ");
    let folder = plan.data_dir.join("nats");
    let mut text = format!(
        "listen: \"{}\"\nserver_name: \"boxyard-{}\"\nmax_payload: 1MB\njetstream {{\n  store_dir: {}\n  max_memory_store: 16MB\n  max_file_store: 4GB\n}}\nauthorization {{\n  users = [\n",
        plan.nats_listens(),
        plan.kept.instance,
        quote(&folder.display().to_string()),
    );
    if plan.head.is_some() {
        let file = |name: &str| quote(&plan.data_dir.join("cluster").join(name).display().to_string());
        let tls =
            format!("tls {{\n  cert_file: {}\n  key_file: {}\n  timeout: 10\n}}\n", file("nats.pem"), file("nats.key"));
        text.insert_str(0, &tls);
    }
    for user in users(plan) {
        let password = plan.secret(&user.name)?;
        let mut hears = vec![format!("_INBOX.{}.>", user.name)];
        hears.extend(user.serves);
        // A long call is answered with many heartbeats, hence the high limits.
        let _ = writeln!(
            text,
            "    {{ user: {}, password: {}, permissions: {{ publish: {{ allow: [{}] }}, subscribe: {{ allow: [{}] }}, allow_responses: {{ max: 1000000, expires: \"24h\" }} }} }}",
            quote(&user.name),
            quote(&password),
            list(&user.publishes),
            list(&hears),
        );
    }
    text.push_str("  ]\n}\n");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (version, fine) in
            [("2.9.10", false), ("2.10.20", false), ("2.11.0", true), ("2.15.1-rc", true), ("3.0", true), ("x", false)]
        {
            assert_eq!(is_new_enough(version), fine, "{version}");
        }
    }
}
