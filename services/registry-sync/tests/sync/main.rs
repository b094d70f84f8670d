//! A real registry-sync between a real NATS and a real layer store: archives and registries.
//!
//! Needs `nats-server` and `docker-registry` on PATH and a built `boxyard-layer-store` beside the test's registry-sync;
//! `make test` sees to it.

mod archives;
mod engine;
mod platforms;
mod registries;
