//! `build prune`: results of build steps.

use clap::Args;
use serde_json::Value;

use crate::commands::confirm;
use crate::engine::Engine;
use crate::failure::{Failure, Outcome};
use crate::filters::Filters;
use crate::{output, units};

#[derive(Args, Debug)]
pub struct Prune {
    /// Also remove results that images share
    #[arg(short, long)]
    all: bool,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Provide filter values (e.g. "until=24h", "id=...", "description=...", "shared=true")
    #[arg(long)]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
    /// Remove only until no more than this is left
    #[arg(long, value_name = "SIZE")]
    keep_storage: Option<String>,
}

impl Prune {
    pub async fn run(self, engine: &Engine) -> Outcome {
        let warning = match self.all {
            true => "WARNING! This will remove all results of build steps that no running build uses.",
            false => "WARNING! This will remove the results of build steps that neither images nor running builds use.",
        };
        if !self.force && !self.dry_run && !confirm(warning)? {
            return Ok(());
        }
        let filters = Filters::parse(&self.filter)?;
        let keep = self.keep_storage.as_deref().map(units::parse_bytes).transpose().map_err(Failure::new)?;
        let call = engine.post("/build/prune").flag("all", self.all).flag("dry-run", self.dry_run);
        let report = call.maybe("keep-storage", keep).maybe("filters", filters.query()).value().await?;
        for key in report["CachesDeleted"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            output::line(key);
        }
        let head = if self.dry_run { "Total that would be reclaimed:" } else { "Total:" };
        output::line(format!("{head} {}", units::size(report["SpaceReclaimed"].as_f64().unwrap_or(0.0))));
        Ok(())
    }
}
