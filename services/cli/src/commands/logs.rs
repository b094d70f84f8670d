//! `logs`.

use clap::Args;
use tokio::io::AsyncReadExt;

use crate::engine::{Engine, escape, next_chunk};
use crate::failure::{Failure, Outcome};
use crate::{output, session, units};

#[derive(Args, Debug)]
pub struct Logs {
    /// Show extra details provided to logs
    #[arg(long)]
    details: bool,
    /// Follow log output
    #[arg(short, long)]
    follow: bool,
    /// Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
    #[arg(long)]
    since: Option<String>,
    /// Number of lines to show from the end of the logs
    #[arg(short = 'n', long, default_value = "all", allow_hyphen_values = true)]
    tail: String,
    /// Show timestamps
    #[arg(short, long)]
    timestamps: bool,
    /// Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
    #[arg(long)]
    until: Option<String>,
    container: String,
}

impl Logs {
    pub async fn run(self, engine: &Engine) -> Outcome {
        let time = |text: &Option<String>, name: &str| {
            let parsed = text.as_deref().map(units::timestamp).transpose();
            parsed.map_err(|e| Failure::new(format!("invalid value for \"{name}\": {e}")))
        };
        let container = engine.get(format!("/containers/{}/json", escape(&self.container))).value().await?;
        let id = container["Id"].as_str().unwrap_or_default();
        let call = engine.get(format!("/containers/{id}/logs")).query("stdout", 1).query("stderr", 1);
        let call = call.maybe("since", time(&self.since, "since")?).maybe("until", time(&self.until, "until")?);
        let call = call.flag("timestamps", self.timestamps).flag("follow", self.follow).flag("details", self.details);
        let mut body = call.query("tail", &self.tail).send().await?.into_body();
        if container["Config"]["Tty"] == true {
            while let Some(chunk) = next_chunk(&mut body).await? {
                output::write(&chunk);
            }
            return Ok(());
        }
        let (mut writer, mut reader) = tokio::io::duplex(64 * 1024);
        let feed = async move {
            while let Some(chunk) = next_chunk(&mut body).await? {
                if tokio::io::AsyncWriteExt::write_all(&mut writer, &chunk).await.is_err() {
                    break;
                }
            }
            Outcome::Ok(())
        };
        let (fed, shown) = tokio::join!(feed, async {
            let shown = session::demultiplex(&mut reader).await;
            // A reader that gave up must not leave the feeder waiting.
            let _ = reader.read(&mut [0; 1]).await;
            shown
        });
        fed.and(shown)
    }
}
