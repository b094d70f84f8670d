//! `build`: the classic API (`POST /build`, version 1).

mod source;

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use self::source::Source;
use crate::content_trust::ContentTrust;
use crate::create::values;
use crate::credentials;
use crate::engine::Engine;
use crate::failure::{Failure, Outcome};
use crate::progress::{self, Sink};
use crate::{output, units};

#[derive(Args, Debug)]
pub struct Build {
    /// Add a custom host-to-IP mapping ("host:ip")
    #[arg(long)]
    add_host: Vec<String>,
    /// Set build-time variables
    #[arg(long)]
    build_arg: Vec<String>,
    /// Images to consider as cache sources
    #[arg(long, value_delimiter = ',')]
    cache_from: Vec<String>,
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
    #[command(flatten)]
    trust: ContentTrust,
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
    /// Memory limit
    #[arg(short, long)]
    memory: Option<String>,
    /// Swap limit equal to memory plus swap: -1 to enable unlimited swap
    #[arg(long, allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Set the networking mode for the RUN instructions during build
    #[arg(long, default_value = "default")]
    network: String,
    /// Do not use cache when building the image
    #[arg(long)]
    no_cache: bool,
    /// Set platform if server is multi-platform capable
    #[arg(long)]
    platform: Option<String>,
    /// Always attempt to pull a newer version of the image
    #[arg(long)]
    pull: bool,
    /// Suppress the build output and print image ID on success
    #[arg(short, long)]
    quiet: bool,
    /// Remove intermediate containers after a successful build
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    rm: bool,
    /// Security options
    #[arg(long)]
    security_opt: Vec<String>,
    /// Size of "/dev/shm"
    #[arg(long)]
    shm_size: Option<String>,
    /// Squash newly built layers into a single new layer
    #[arg(long)]
    squash: bool,
    /// Name and optionally a tag in the "name:tag" format
    #[arg(short, long)]
    tag: Vec<String>,
    /// Set the target build stage to build.
    #[arg(long)]
    target: Option<String>,
    /// Ulimit options
    #[arg(long)]
    ulimit: Vec<String>,
    #[arg(value_name = "PATH | URL | -")]
    context: String,
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
        let source = self.source()?;
        let call = self.query(engine, &source)?;
        let call = call
            .header("content-type", "application/x-tar")
            .header("x-registry-config", credentials::build_header())
            .body(source.body);
        let response = match call.send().await {
            Ok(response) => response,
            Err(failure) => {
                // The reason may be that the context could not be read.
                if let Some(Ok(Err(e))) =
                    futures::future::OptionFuture::from(source.producer.filter(|p| p.is_finished())).await
                {
                    return Err(Failure::new(format!("error reading the build context: {e}")));
                }
                return Err(failure);
            }
        };
        let mut id = None;
        let sink = if self.quiet { Sink::Nowhere } else { Sink::Stdout };
        let said = progress::show(response.into_body(), sink, |aux| {
            if let Some(found) = aux["ID"].as_str() {
                id = Some(found.to_owned());
            }
        })
        .await?;
        if self.quiet {
            // A quiet daemon says the id only, as text or beside it.
            let text = Some(said.trim().to_owned()).filter(|t| t.starts_with("sha256:"));
            id = text.or(id);
            id.iter().for_each(output::line);
        }
        if let Some(path) = &self.iidfile {
            let id = id.ok_or_else(|| Failure::new("server did not provide an image ID. Cannot write to file"))?;
            std::fs::write(path, id)?;
        }
        Ok(())
    }

    fn query<'a>(&self, engine: &'a Engine, source: &Source) -> Outcome<crate::engine::Call<'a>> {
        let bytes = |v: &Option<String>| match v.as_deref() {
            None => Ok(0),
            Some("-1") => Ok(-1),
            Some(text) => units::parse_bytes(text).map_err(Failure::new),
        };
        let args: Value = self
            .build_arg
            .iter()
            .map(|text| match text.split_once('=') {
                Some((name, value)) => (name.to_owned(), Value::from(value)),
                None => (text.clone(), std::env::var(text).map_or(Value::Null, Value::from)),
            })
            .collect::<serde_json::Map<_, _>>()
            .into();
        let mut call = engine.post("/build").query("version", 1);
        for tag in &self.tag {
            call = call.query("t", tag);
        }
        for host in values::extra_hosts(&self.add_host)? {
            call = call.query("extrahosts", host);
        }
        for option in &self.security_opt {
            call = call.query("securityopt", option);
        }
        let quota = self.cpus.map(|c| (c * 100_000.0) as i64).or(self.cpu_quota).unwrap_or(0);
        let period = self.cpus.map(|_| 100_000).or(self.cpu_period).unwrap_or(0);
        Ok(call
            .maybe("remote", source.remote.as_deref())
            .flag("q", self.quiet)
            .flag("nocache", self.no_cache)
            .query("rm", if self.rm { "1" } else { "0" })
            .flag("forcerm", self.force_rm)
            .flag("pull", self.pull)
            .flag("squash", self.squash)
            .query("cpusetcpus", self.cpuset_cpus.as_deref().unwrap_or_default())
            .query("cpusetmems", self.cpuset_mems.as_deref().unwrap_or_default())
            .query("networkmode", &self.network)
            .query("cpushares", self.cpu_shares.unwrap_or(0))
            .query("cpuquota", quota)
            .query("cpuperiod", period)
            .query("memory", bytes(&self.memory)?)
            .query("memswap", bytes(&self.memory_swap)?)
            .query("cgroupparent", self.cgroup_parent.as_deref().unwrap_or_default())
            .query("shmsize", bytes(&self.shm_size)?)
            .query("dockerfile", &source.dockerfile)
            .query("target", self.target.as_deref().unwrap_or_default())
            .query("ulimits", values::ulimits(&self.ulimit)?)
            .query("buildargs", args)
            .query("labels", values::pairs(&self.label))
            .query("cachefrom", json!(self.cache_from))
            .maybe("platform", self.platform.as_deref()))
    }
}
