//! Starts real engines for tests: a whole Boxyard from `target/release`, or one of Debian's dockerds as its peer.
//!
//! Each engine has its own folders, socket and bridge, so that tests may run side by side. A Boxyard is
//! stopped with a check that nothing of it is left. A test of Docker's own behaviour is written once with
//! [`on_both!`] and runs on both engines: the run on dockerd proves the test. The kit knows the command
//! lines and the HTTP API only, and of BuildKit's session what a client answers; it uses no crate of the product.

mod binfmt;
mod boxyard;
mod browser;
mod bus;
mod cluster;
mod compose;
mod disk;
mod dockerd;
mod engine;
pub mod farm;
mod gateway;
mod http;
mod images;
mod leftovers;
mod network;
mod output;
mod postgres;
mod registry;
mod remote;
mod server;
pub mod session;

pub use binfmt::{Binfmt, arm64_uname};
pub use boxyard::{Boxyard, Options, SERVICES, cache_dir, program};
pub use browser::Browser;
pub use bus::{BusUser, Fields};
pub use cluster::Cluster;
pub use compose::Compose;
pub use disk::LoopDisk;
pub use dockerd::{Dockerd, Release};
pub use engine::{Engine, Kind, boxyard_client, client, client26, run_command, session_client};
pub use gateway::Gateway;
pub use http::{Answer, Client, free_port};
pub use images::{Archive, busybox, debian_root, sha256};
pub use leftovers::{has_ended, mounts_under, processes_naming, wait_until};
pub use output::Output;
pub use postgres::{PASSWORD as POSTGRES_PASSWORD, Postgres};
pub use registry::{REGISTRY_PASSWORD, REGISTRY_PASSWORD_BCRYPT, REGISTRY_USER, Registry, Throttle};
pub use remote::{serve_files, serve_git};
pub use server::{Reply, Request, Server};

/// Runs one flow on a fresh engine of this kind, with the busybox image loaded, and stops it with all checks.
pub fn run(kind: Kind, flow: fn(&Engine)) {
    let engine = Engine::start(kind);
    engine.load_busybox();
    flow(&engine);
    engine.stop();
}

/// Declares flows that run on a Boxyard and on a dockerd, as `NAME::boxyard` and `NAME::dockerd`.
#[macro_export]
macro_rules! on_both {
    ($($(#[$meta:meta])* fn $name:ident($engine:ident: &Engine) $body:block)*) => {
        $(
            $(#[$meta])*
            mod $name {
                #[allow(unused_imports)]
                use super::*;

                pub(super) fn flow($engine: &$crate::Engine) $body

                #[test]
                fn boxyard() {
                    $crate::run($crate::Kind::Boxyard, flow);
                }

                #[test]
                fn dockerd() {
                    $crate::run($crate::Kind::Dockerd, flow);
                }
            }
        )*
    };
}

/// Declares flows that run on a Boxyard and on Debian 13's dockerd, as `NAME::boxyard` and `NAME::docker26`: of what
/// BuildKit has learned since Debian 12, and for clients that are as new (`Engine::docker26`).
#[macro_export]
macro_rules! on_docker26_too {
    ($($(#[$meta:meta])* fn $name:ident($engine:ident: &Engine) $body:block)*) => {
        $(
            $(#[$meta])*
            mod $name {
                #[allow(unused_imports)]
                use super::*;

                fn flow($engine: &$crate::Engine) $body

                #[test]
                fn boxyard() {
                    $crate::run($crate::Kind::Boxyard, flow);
                }

                #[test]
                fn docker26() {
                    $crate::run($crate::Kind::Docker26, flow);
                }
            }
        )*
    };
}

/// The same flow on a Boxyard that keeps its records in a PostgreSQL of its own.
pub fn run_on_postgres(flow: fn(&Engine)) {
    let postgres = Postgres::start();
    let engine = Engine::start_on(&postgres);
    engine.load_busybox();
    flow(&engine);
    engine.stop();
}

/// Declares these flows of [`on_both!`] on a Boxyard with PostgreSQL, too, as `postgres::NAME`.
#[macro_export]
macro_rules! on_postgres_too {
    ($($name:ident),* $(,)?) => {
        mod postgres {
            $(
                #[test]
                fn $name() {
                    $crate::run_on_postgres(super::$name::flow);
                }
            )*
        }
    };
}
