//! BuildKit's clients: `POST /build?version=2` (the docker command before 23), and gRPC for buildx, on a connection of
//! `POST /grpc` or straight on the API's socket.
//!
//! Whatever the client, a build is a [`solve::Solve`], turned into the options of the graph builder, and [`run::Build`]
//! brings what the build says of itself in BuildKit's own messages.

mod bridge;
mod control;
pub mod docker;
pub mod grpc;
mod rounds;
mod run;
mod solve;
mod status;
