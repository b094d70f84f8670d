//! The command tree: Docker's names and aliases.

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use super::{
    archive, attach, build, builds, cache, cp, create, df, exec, image, images, inspect, lifecycle, login, logs, look,
    manifest, ps, pull, push, run, search, stats, system, version, volume, why_kept, worker,
};
use crate::engine::Engine;
use crate::failure::Outcome;
use crate::tls::Flags;
use crate::up;

#[derive(Parser, Debug)]
#[command(
    name = "boxyard",
    about = "Images and containers, served by Boxyard",
    disable_version_flag = true,
    subcommand_required = true
)]
pub struct Cli {
    /// Daemon socket to connect to (else BOXYARD_HOST, DOCKER_HOST, the default socket)
    #[arg(short = 'H', long)]
    pub host: Option<String>,
    #[command(flatten)]
    pub tls: Flags,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Create and run a new container from an image
    Run(Box<run::Run>),
    /// Execute a command in a running container
    Exec(exec::Exec),
    /// List containers
    Ps(ps::Ps),
    /// Build an image from a Dockerfile, or look at builds
    Build(builds::BuildCommand),
    /// Download an image from a registry
    Pull(pull::Pull),
    /// Upload an image to a registry
    Push(push::Push),
    /// List images
    Images(images::Images),
    /// Authenticate to a registry
    Login(login::Login),
    /// Log out from a registry
    Logout(login::Logout),
    /// Search for images in a registry
    Search(search::Search),
    /// Attach local standard input, output, and error streams to a running container
    Attach(attach::Attach),
    /// Create a new image from a container's changes
    Commit(archive::Commit),
    /// Copy files/folders between a container and the local filesystem
    Cp(cp::Copy),
    /// Create a new container
    Create(Box<create::Create>),
    /// Inspect changes to files or directories on a container's filesystem
    Diff(look::Diff),
    /// Get real time events from the server
    Events(system::Events),
    /// Export a container's filesystem as a tar archive
    Export(archive::Export),
    /// Show the history of an image
    History(images::History),
    /// Import the contents from a tarball to create a filesystem image
    Import(archive::Import),
    /// Display system-wide information
    Info(version::Info),
    /// Return low-level information on objects
    Inspect(inspect::Inspect),
    /// Kill one or more running containers
    Kill(lifecycle::Kill),
    /// Load an image from a tar archive or STDIN
    Load(archive::Load),
    /// Fetch the logs of a container
    Logs(logs::Logs),
    /// Pause all processes within one or more containers
    Pause(lifecycle::Containers),
    /// List port mappings or a specific mapping for the container
    Port(look::Port),
    /// Rename a container
    Rename(lifecycle::Rename),
    /// Restart one or more containers
    Restart(lifecycle::Stop),
    /// Remove one or more containers
    Rm(lifecycle::Remove),
    /// Remove one or more images
    Rmi(image::RemoveImage),
    /// Save one or more images to a tar archive (streamed to STDOUT by default)
    Save(archive::Save),
    /// Start one or more stopped containers
    Start(attach::Start),
    /// Display a live stream of container(s) resource usage statistics
    Stats(stats::Stats),
    /// Stop one or more running containers
    Stop(lifecycle::Stop),
    /// Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE
    Tag(image::Tag),
    /// Display the running processes of a container
    Top(look::Top),
    /// Unpause all processes within one or more containers
    Unpause(lifecycle::Containers),
    /// Show the Boxyard version information
    Version(version::Version),
    /// Block until one or more containers stop, then print their exit codes
    Wait(lifecycle::Containers),
    /// Manage containers
    #[command(subcommand)]
    Container(Container),
    /// Manage images
    #[command(subcommand)]
    Image(Image),
    /// Manage image manifests and manifest lists
    #[command(subcommand)]
    Manifest(Manifest),
    /// Manage networks
    #[command(subcommand)]
    Network(Network),
    /// Manage the system
    #[command(subcommand)]
    System(System),
    /// Manage volumes
    #[command(subcommand)]
    Volume(Volume),
    /// Manage what RUN --mount=type=cache keeps
    #[command(subcommand)]
    Cache(cache::Cache),
    /// Show what the layer store and the machines keep
    Df(df::Df),
    /// Show what keeps a blob, a layer or an image
    WhyKept(why_kept::WhyKept),
    /// Manage build workers
    #[command(subcommand)]
    Worker(worker::Worker),
    /// Start a whole Boxyard on this machine
    Up(up::Up),
    /// Stop the Boxyard of a data folder
    Down(up::Down),
    /// Run a Boxyard on several machines
    #[command(subcommand)]
    Cluster(up::Cluster),
    /// Show each service of a Boxyard
    Status(up::Status),
    /// Print the completion script for a shell
    Completion(Completion),
}

#[derive(Subcommand, Debug)]
pub enum Container {
    Run(Box<run::Run>),
    Exec(exec::Exec),
    #[command(visible_aliases = ["list", "ps"])]
    Ls(ps::Ps),
    Attach(attach::Attach),
    Commit(archive::Commit),
    Cp(cp::Copy),
    Create(Box<create::Create>),
    Diff(look::Diff),
    Export(archive::Export),
    Inspect(inspect::InspectOne),
    Kill(lifecycle::Kill),
    Logs(logs::Logs),
    Pause(lifecycle::Containers),
    Port(look::Port),
    Prune(image::Prune),
    Rename(lifecycle::Rename),
    Restart(lifecycle::Stop),
    #[command(visible_alias = "remove")]
    Rm(lifecycle::Remove),
    Start(attach::Start),
    Stats(stats::Stats),
    Stop(lifecycle::Stop),
    Top(look::Top),
    Unpause(lifecycle::Containers),
    Wait(lifecycle::Containers),
}

#[derive(Subcommand, Debug)]
pub enum Image {
    Build(Box<build::Build>),
    History(images::History),
    Import(archive::Import),
    Inspect(inspect::InspectOne),
    Load(archive::Load),
    #[command(visible_alias = "list")]
    Ls(images::Images),
    Prune(image::Prune),
    Pull(pull::Pull),
    Push(push::Push),
    #[command(visible_alias = "remove")]
    Rm(image::RemoveImage),
    Save(archive::Save),
    Tag(image::Tag),
}

#[derive(Subcommand, Debug)]
pub enum Manifest {
    Inspect(manifest::ManifestInspect),
}

#[derive(Subcommand, Debug)]
pub enum Network {
    #[command(visible_alias = "list")]
    Ls(volume::List),
    Inspect(inspect::InspectOne),
}

#[derive(Subcommand, Debug)]
pub enum System {
    Df(system::DiskUsage),
    Events(system::Events),
    Info(version::Info),
    Prune(system::SystemPrune),
}

#[derive(Subcommand, Debug)]
pub enum Volume {
    Create(volume::CreateVolume),
    Inspect(inspect::InspectOne),
    #[command(visible_alias = "list")]
    Ls(volume::List),
    Prune(image::Prune),
    #[command(visible_alias = "remove")]
    Rm(volume::RemoveVolume),
}

#[derive(Args, Debug)]
pub struct Completion {
    pub shell: Shell,
}

impl Command {
    pub async fn run(self, engine: &Engine) -> Outcome {
        match self {
            Self::Run(c) => c.run(engine).await,
            Self::Exec(c) => c.run(engine).await,
            Self::Ps(c) => c.run(engine).await,
            Self::Build(c) => c.run(engine).await,
            Self::Images(c) => c.run(engine).await,
            Self::Pull(c) => c.run(engine).await,
            Self::Push(c) => c.run(engine).await,
            Self::Login(c) => c.run(engine).await,
            Self::Logout(c) => c.run().await,
            Self::Search(c) => c.run(engine).await,
            Self::Attach(c) => c.run(engine).await,
            Self::Commit(c) => c.run(engine).await,
            Self::Cp(c) => c.run(engine).await,
            Self::Create(c) => c.run(engine).await,
            Self::Diff(c) => c.run(engine).await,
            Self::Events(c) => c.run(engine).await,
            Self::Export(c) => c.run(engine).await,
            Self::History(c) => c.run(engine).await,
            Self::Import(c) => c.run(engine).await,
            Self::Info(c) => c.run(engine).await,
            Self::Inspect(c) => c.run(engine).await,
            Self::Kill(c) => c.run(engine).await,
            Self::Load(c) => c.run(engine).await,
            Self::Logs(c) => c.run(engine).await,
            Self::Pause(c) => c.post(engine, "pause").await,
            Self::Port(c) => c.run(engine).await,
            Self::Rename(c) => c.run(engine).await,
            Self::Restart(c) => c.restart(engine).await,
            Self::Rm(c) => c.run(engine).await,
            Self::Rmi(c) => c.run(engine).await,
            Self::Save(c) => c.run(engine).await,
            Self::Start(c) => c.run(engine).await,
            Self::Stats(c) => c.run(engine).await,
            Self::Stop(c) => c.run(engine).await,
            Self::Tag(c) => c.run(engine).await,
            Self::Top(c) => c.run(engine).await,
            Self::Unpause(c) => c.post(engine, "unpause").await,
            Self::Version(c) => c.run(engine).await,
            Self::Wait(c) => c.wait(engine).await,
            Self::Container(c) => c.run(engine).await,
            Self::Image(c) => c.run(engine).await,
            Self::Manifest(Manifest::Inspect(c)) => c.run(engine).await,
            Self::Network(Network::Ls(c)) => c.networks(engine).await,
            Self::Network(Network::Inspect(c)) => c.run(engine, "network").await,
            Self::System(System::Df(c)) => c.run(engine).await,
            Self::System(System::Events(c)) => c.run(engine).await,
            Self::System(System::Info(c)) => c.run(engine).await,
            Self::System(System::Prune(c)) => c.run(engine).await,
            Self::Volume(Volume::Create(c)) => c.run(engine).await,
            Self::Volume(Volume::Inspect(c)) => c.run(engine, "volume").await,
            Self::Volume(Volume::Ls(c)) => c.volumes(engine).await,
            Self::Volume(Volume::Prune(c)) => c.volumes(engine).await,
            Self::Volume(Volume::Rm(c)) => c.run(engine).await,
            Self::Cache(c) => c.run(engine).await,
            Self::Df(c) => c.run(engine).await,
            Self::WhyKept(c) => c.run(engine).await,
            Self::Worker(c) => c.run(engine).await,
            Self::Up(c) => c.run().await,
            Self::Down(c) => c.run().await,
            Self::Cluster(c) => c.run().await,
            Self::Status(c) => c.run().await,
            Self::Completion(c) => {
                let mut script = Vec::new();
                clap_complete::generate(c.shell, &mut crate::usage::command(), "boxyard", &mut script);
                crate::output::write(&script);
                Ok(())
            }
        }
    }
}

impl Container {
    async fn run(self, engine: &Engine) -> Outcome {
        match self {
            Self::Run(c) => c.run(engine).await,
            Self::Exec(c) => c.run(engine).await,
            Self::Ls(c) => c.run(engine).await,
            Self::Attach(c) => c.run(engine).await,
            Self::Commit(c) => c.run(engine).await,
            Self::Cp(c) => c.run(engine).await,
            Self::Create(c) => c.run(engine).await,
            Self::Diff(c) => c.run(engine).await,
            Self::Export(c) => c.run(engine).await,
            Self::Inspect(c) => c.run(engine, "container").await,
            Self::Kill(c) => c.run(engine).await,
            Self::Logs(c) => c.run(engine).await,
            Self::Pause(c) => c.post(engine, "pause").await,
            Self::Port(c) => c.run(engine).await,
            Self::Prune(c) => c.containers(engine).await,
            Self::Rename(c) => c.run(engine).await,
            Self::Restart(c) => c.restart(engine).await,
            Self::Rm(c) => c.run(engine).await,
            Self::Start(c) => c.run(engine).await,
            Self::Stats(c) => c.run(engine).await,
            Self::Stop(c) => c.run(engine).await,
            Self::Top(c) => c.run(engine).await,
            Self::Unpause(c) => c.post(engine, "unpause").await,
            Self::Wait(c) => c.wait(engine).await,
        }
    }
}

impl Image {
    async fn run(self, engine: &Engine) -> Outcome {
        match self {
            Self::Build(c) => c.run(engine).await,
            Self::History(c) => c.run(engine).await,
            Self::Import(c) => c.run(engine).await,
            Self::Inspect(c) => c.run(engine, "image").await,
            Self::Load(c) => c.run(engine).await,
            Self::Ls(c) => c.run(engine).await,
            Self::Prune(c) => c.images(engine).await,
            Self::Pull(c) => c.run(engine).await,
            Self::Push(c) => c.run(engine).await,
            Self::Rm(c) => c.run(engine).await,
            Self::Save(c) => c.run(engine).await,
            Self::Tag(c) => c.run(engine).await,
        }
    }
}
