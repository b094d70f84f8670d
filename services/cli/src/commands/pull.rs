//! `pull`, and the pull that `run` and `create` lean on.

use clap::Args;
use model::ImageRef;

use crate::content_trust::ContentTrust;
use crate::credentials;
use crate::engine::Engine;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::progress::{self, Sink};

#[derive(Args, Debug)]
pub struct Pull {
    /// Download all tagged images in the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Suppress verbose output
    #[arg(short, long)]
    quiet: bool,
    /// Set platform if server is multi-platform capable
    #[arg(long, env = "DOCKER_DEFAULT_PLATFORM", hide_env = true)]
    platform: Option<String>,
    #[command(flatten)]
    trust: ContentTrust,
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: String,
}

impl Pull {
    pub async fn run(self, engine: &Engine) -> Outcome {
        self.trust.check()?;
        let image = with_tag(&self.name, self.all_tags, self.quiet)?;
        let sink = if self.quiet { Sink::Nowhere } else { Sink::Stdout };
        pull(engine, &image, self.platform.as_deref(), sink).await?;
        output::line(image.to_string());
        Ok(())
    }
}

/// The reference that is meant: all tags, or one, which is `latest` (and said to be) where none is given.
pub fn with_tag(name: &str, all_tags: bool, quiet: bool) -> Outcome<ImageRef> {
    let image = parse(name)?;
    match (all_tags, image.has_tag_or_digest()) {
        (true, true) => Err(Failure::new("tag can't be used with --all-tags/-a")),
        (true, false) | (false, true) => Ok(image),
        (false, false) => {
            if !quiet {
                output::line("Using default tag: latest");
            }
            Ok(image.or_latest())
        }
    }
}

pub fn parse(name: &str) -> Outcome<ImageRef> {
    name.parse().map_err(|e: model::ReferenceError| Failure::new(e.to_string()))
}

/// Pulls with the person's credentials. Without tag and digest all tags are meant.
pub async fn pull(engine: &Engine, image: &ImageRef, platform: Option<&str>, sink: Sink) -> Outcome {
    let tag = image.digest().map(ToString::to_string).or_else(|| image.tag().map(str::to_owned));
    let call = engine.post("/images/create").query("fromImage", image.familiar_name()).maybe("tag", tag);
    let call = call.maybe("platform", platform.filter(|p| !p.is_empty()));
    let response = call.header("x-registry-auth", credentials::auth_header(image.domain())).send().await?;
    progress::show(response.into_body(), sink, |_| {}).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant() {
        let meant = |name: &str, all| with_tag(name, all, true).map(|i| i.to_string()).map_err(|f| f.message);
        assert_eq!(meant("hello-world", false).as_deref(), Ok("docker.io/library/hello-world:latest"));
        assert_eq!(meant("a/b:1", false).as_deref(), Ok("docker.io/a/b:1"));
        assert_eq!(meant("box:5000/a", true).as_deref(), Ok("box:5000/a"));
        assert_eq!(meant("a:1", true).unwrap_err(), "tag can't be used with --all-tags/-a");
        assert_eq!(
            meant("UPPER", false).unwrap_err(),
            "invalid reference format: repository name (library/UPPER) must be lowercase"
        );
    }
}
