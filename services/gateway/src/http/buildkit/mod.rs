//! BuildKit's clients: `POST /build?version=2` (the docker command before 23), and gRPC for buildx, on a connection of
//! `POST /grpc` or straight on the API's socket.
//!
//! Whatever the client, a build is a [`solve::Solve`], turned into the options of the graph builder, and [`run::Build`]
//! brings what the build says of itself in BuildKit's own messages.

mod bridge;
mod cache;
mod control;
pub mod docker;
mod failed;
mod filter;
pub mod grpc;
mod history;
mod results;
mod rounds;
mod run;
mod solve;
mod status;
mod tunnel;

pub use results::Results;
