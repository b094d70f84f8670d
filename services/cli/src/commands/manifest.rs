//! `manifest inspect`: what a daemon's registry lookup says of a name.

use clap::Args;
use serde_json::Value;

use crate::engine::{Engine, escape};
use crate::failure::Outcome;
use crate::format::json::indent;
use crate::output;

#[derive(Args, Debug)]
pub struct ManifestInspect {
    /// Allow communication with an insecure registry
    #[arg(long)]
    insecure: bool,
    /// Output additional info including layers and platform
    #[arg(short, long)]
    verbose: bool,
    #[arg(value_name = "MANIFEST")]
    name: String,
}

impl ManifestInspect {
    pub async fn run(self, engine: &Engine) -> Outcome {
        let mut found: Value = engine.get(format!("/distribution/{}/json", escape(&self.name))).value().await?;
        if !self.verbose {
            found = found["Descriptor"].take();
        }
        output::line(indent(found.to_string().as_bytes(), "\t"));
        Ok(())
    }
}
