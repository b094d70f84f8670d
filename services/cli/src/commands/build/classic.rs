//! The classic builder's API (`POST /build`, version 1).

use serde_json::json;

use super::Build;
use super::source::Source;
use crate::create::values;
use crate::engine::Engine;
use crate::failure::{Failure, Outcome};
use crate::progress::{self, Sink};
use crate::{credentials, output, units};

impl Build {
    pub(super) async fn run_classic(self, engine: &Engine) -> Outcome {
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
            .query("buildargs", self.build_args())
            .query("labels", values::pairs(&self.label))
            .query("cachefrom", json!(self.cache_from.iter().flat_map(|list| list.split(',')).collect::<Vec<_>>()))
            .maybe("platform", self.platform.first()))
    }
}
