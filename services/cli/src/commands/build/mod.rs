//! `build`: by a session, which the daemon asks for what it lacks (`session`), or as the classic builder's client.

mod caches;
mod calls;
mod classic;
mod options;
mod outputs;
mod session;
mod source;

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value};

use self::calls::Call;
use super::builds::shell::is_terminal;
use crate::content_trust::ContentTrust;
use crate::engine::Engine;
use crate::failure::{Failure, Outcome};
use crate::solve::Mode;

#[derive(Args, Debug)]
pub struct Build {
    /// Add a custom host-to-IP mapping ("host:ip")
    #[arg(long)]
    add_host: Vec<String>,
    /// Allow extra privileged entitlement ("network.host", "security.insecure")
    #[arg(long)]
    allow: Vec<String>,
    /// Set build-time variables
    #[arg(long)]
    build_arg: Vec<String>,
    /// Additional build contexts ("name=path")
    #[arg(long)]
    build_context: Vec<String>,
    /// External cache sources ("user/app:cache", "type=local,src=path/to/dir")
    #[arg(long)]
    cache_from: Vec<String>,
    /// Cache export destinations ("user/app:cache", "type=local,dest=path/to/dir")
    #[arg(long)]
    cache_to: Vec<String>,
    /// Set method for evaluating build ("check", "outline", "targets")
    #[arg(long, value_enum, default_value = "build")]
    call: Call,
    /// Shorthand for "--call=check"
    #[arg(long)]
    check: bool,
    /// Build with the classic builder (also: DOCKER_BUILDKIT=0)
    #[arg(long)]
    classic: bool,
    /// Set the parent cgroup for the "RUN" instructions during build
    #[arg(long)]
    cgroup_parent: Option<String>,
    /// Compress the build context using gzip
    #[arg(long)]
    compress: bool,
    /// Limit the CPU CFS (Completely Fair Scheduler) period
    #[arg(long)]
    cpu_period: Option<i64>,
    /// Limit the CPU CFS (Completely Fair Scheduler) quota
    #[arg(long)]
    cpu_quota: Option<i64>,
    /// Number of CPUs
    #[arg(long)]
    cpus: Option<f64>,
    /// CPU shares (relative weight)
    #[arg(short = 'c', long)]
    cpu_shares: Option<i64>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// MEMs in which to allow execution (0-3, 0,1)
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// Print the build's id and do not wait for its end
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    trust: ContentTrust,
    /// Say for each step that ran why it was not found in the cache
    #[arg(long)]
    explain: bool,
    /// Name of the Dockerfile (Default is "PATH/Dockerfile")
    #[arg(short, long)]
    file: Option<String>,
    /// Always remove intermediate containers
    #[arg(long)]
    force_rm: bool,
    /// Write the image ID to the file
    #[arg(long)]
    iidfile: Option<PathBuf>,
    /// Set metadata for an image
    #[arg(long)]
    label: Vec<String>,
    /// Shorthand for "--output=type=docker"
    #[arg(long)]
    load: bool,
    /// Memory limit
    #[arg(short, long)]
    memory: Option<String>,
    /// Swap limit equal to memory plus swap: -1 to enable unlimited swap
    #[arg(long, allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Write build result metadata to a file
    #[arg(long)]
    metadata_file: Option<PathBuf>,
    /// Set the networking mode for the RUN instructions during build
    #[arg(long, default_value = "default")]
    network: String,
    /// Do not use cache when building the image
    #[arg(long)]
    no_cache: bool,
    /// Do not cache specified stages
    #[arg(long, value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// What to do when a command fails ("shell": open a shell in its file system)
    #[arg(long, value_enum, default_value = "fail")]
    on_error: OnError,
    /// Output destination ("type=local,dest=path")
    #[arg(short, long)]
    output: Vec<String>,
    /// Set target platforms for build
    #[arg(long, value_delimiter = ',')]
    platform: Vec<String>,
    /// Builds of a higher priority begin first
    #[arg(long, default_value_t = 0, allow_hyphen_values = true)]
    priority: i32,
    /// Set type of progress output
    #[arg(long, value_enum, default_value = "auto")]
    progress: Mode,
    /// Shorthand for "--output=type=registry"
    #[arg(long)]
    push: bool,
    /// Always attempt to pull a newer version of the image
    #[arg(long)]
    pull: bool,
    /// Suppress the build output and print image ID on success
    #[arg(short, long)]
    quiet: bool,
    /// Remove intermediate containers after a successful build
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    rm: bool,
    /// Secret to expose to the build ("id=mysecret[,src=/local/secret]")
    #[arg(long)]
    secret: Vec<String>,
    /// Security options
    #[arg(long)]
    security_opt: Vec<String>,
    /// Size of "/dev/shm"
    #[arg(long)]
    shm_size: Option<String>,
    /// Squash newly built layers into a single new layer
    #[arg(long)]
    squash: bool,
    /// SSH agent socket or keys to expose to the build ("default|<id>[=<socket>|<key>[,<key>]]")
    #[arg(long)]
    ssh: Vec<String>,
    /// Name and optionally a tag in the "name:tag" format
    #[arg(short, long)]
    tag: Vec<String>,
    /// Set the target build stage to build.
    #[arg(long)]
    target: Option<String>,
    /// Ulimit options
    #[arg(long)]
    ulimit: Vec<String>,
    /// Build only on workers with this label ("key=value")
    #[arg(long)]
    worker_label: Vec<String>,
    #[arg(value_name = "PATH | URL | -")]
    context: String,
}

/// `--on-error`
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OnError {
    Fail,
    Shell,
}

impl Build {
    pub async fn run(self, engine: &Engine) -> Outcome {
        self.trust.check()?;
        if self.context == "-" && self.file.as_deref() == Some("-") {
            return Err(Failure::new("invalid argument: can't use stdin for both build context and dockerfile"));
        }
        if let Some(path) = &self.iidfile {
            let _ = std::fs::remove_file(path);
        }
        let is_classic = self.classic || std::env::var("DOCKER_BUILDKIT").is_ok_and(|on| on == "0");
        self.check_shell(is_classic)?;
        if is_classic {
            return self.run_classic(engine).await;
        }
        self.run_session(engine).await
    }

    fn check_shell(&self, is_classic: bool) -> Outcome {
        let why = match self.on_error {
            OnError::Fail => return Ok(()),
            OnError::Shell if is_classic => "is not for the classic builder, whose failed containers stay behind",
            OnError::Shell if self.detach => "does not go with --detach",
            OnError::Shell if !is_terminal() => "needs a terminal",
            OnError::Shell => return Ok(()),
        };
        Err(Failure::new(format!("ERROR: --on-error=shell {why}")))
    }

    /// `--build-arg`; a name alone has the variable's value, null where there is none.
    fn build_args(&self) -> Value {
        let pair = |text: &String| match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), Value::from(value)),
            None => (text.clone(), std::env::var(text).map_or(Value::Null, Value::from)),
        };
        self.build_arg.iter().map(pair).collect::<Map<_, _>>().into()
    }
}
