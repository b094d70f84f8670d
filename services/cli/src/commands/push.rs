//! `push`.

use clap::Args;

use super::pull::with_tag;
use crate::content_trust::ContentTrust;
use crate::credentials;
use crate::engine::{Engine, escape};
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::progress::{self, Sink};

#[derive(Args, Debug)]
pub struct Push {
    /// Push all tags of an image to the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Suppress verbose output
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    trust: ContentTrust,
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
}

impl Push {
    pub async fn run(self, engine: &Engine) -> Outcome {
        self.trust.check()?;
        let image = with_tag(&self.name, self.all_tags, self.quiet)?;
        if image.digest().is_some() {
            return Err(Failure::new("cannot push a digest reference"));
        }
        let call = engine.post(format!("/images/{}/push", escape(&image.familiar_name()))).maybe("tag", image.tag());
        let response = call.header("x-registry-auth", credentials::auth_header(image.domain())).send().await?;
        let sink = if self.quiet { Sink::Nowhere } else { Sink::Stdout };
        progress::show(response.into_body(), sink, |_| {}).await?;
        if self.quiet {
            output::line(image.to_string());
        }
        Ok(())
    }
}
