//! What changes a container's state: stop, kill, restart, pause, unpause, rename, wait, rm.

use clap::Args;

use crate::engine::{Engine, escape};
use crate::failure::{Failure, Outcome, for_each};
use crate::output;

#[derive(Args, Debug)]
pub struct Stop {
    /// Signal to send to the container
    #[arg(short, long)]
    signal: Option<String>,
    /// Seconds to wait before killing the container
    #[arg(short = 't', long = "timeout", visible_alias = "time", allow_hyphen_values = true)]
    timeout: Option<i64>,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Stop {
    pub async fn run(self, engine: &Engine) -> Outcome {
        self.send(engine, "stop").await
    }

    pub async fn restart(self, engine: &Engine) -> Outcome {
        self.send(engine, "restart").await
    }

    async fn send(&self, engine: &Engine, action: &str) -> Outcome {
        for_each(&self.containers, async |name| {
            let call = engine.post(format!("/containers/{}/{action}", escape(&name)));
            call.maybe("t", self.timeout).maybe("signal", self.signal.as_deref()).send().await?;
            output::line(name);
            Ok(())
        })
        .await
    }
}

#[derive(Args, Debug)]
pub struct Kill {
    /// Signal to send to the container
    #[arg(short, long)]
    signal: Option<String>,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Kill {
    pub async fn run(self, engine: &Engine) -> Outcome {
        for_each(&self.containers, async |name| {
            let call = engine.post(format!("/containers/{}/kill", escape(&name)));
            call.maybe("signal", self.signal.as_deref()).send().await?;
            output::line(name);
            Ok(())
        })
        .await
    }
}

#[derive(Args, Debug)]
pub struct Containers {
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Containers {
    /// `pause` and `unpause`.
    pub async fn post(self, engine: &Engine, action: &str) -> Outcome {
        for_each(&self.containers, async |name| {
            engine.post(format!("/containers/{}/{action}", escape(&name))).send().await?;
            output::line(name);
            Ok(())
        })
        .await
    }

    pub async fn wait(self, engine: &Engine) -> Outcome {
        for_each(&self.containers, async |name| {
            let ended = engine.post(format!("/containers/{}/wait", escape(&name))).value().await?;
            output::line(ended["StatusCode"].to_string());
            Ok(())
        })
        .await
    }
}

#[derive(Args, Debug)]
pub struct Rename {
    container: String,
    new_name: String,
}

impl Rename {
    pub async fn run(self, engine: &Engine) -> Outcome {
        let (old, new) = (self.container.trim(), self.new_name.trim());
        if old.is_empty() || new.is_empty() {
            return Err(Failure::new("Error: Neither old nor new names may be empty"));
        }
        let renamed = engine.post(format!("/containers/{}/rename", escape(old))).query("name", new).send().await;
        renamed.map(drop).map_err(|f| f.hint(format!("Error: failed to rename container named {old}")))
    }
}

#[derive(Args, Debug)]
pub struct Remove {
    /// Force the removal of a running container (uses SIGKILL)
    #[arg(short, long)]
    force: bool,
    /// Remove the specified link
    #[arg(short, long)]
    link: bool,
    /// Remove anonymous volumes associated with the container
    #[arg(short, long)]
    volumes: bool,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Remove {
    pub async fn run(self, engine: &Engine) -> Outcome {
        for_each(&self.containers, async |name| {
            let call = engine.call(http::Method::DELETE, format!("/containers/{}", escape(name.trim_matches('/'))));
            let call = call.flag("v", self.volumes).flag("link", self.link).flag("force", self.force);
            match call.send().await {
                // What is not there is removed already; it is said, but it is no failure.
                Err(failure) if self.force && failure.is_not_found() => eprintln!("{failure}"),
                other => {
                    other?;
                    output::line(name);
                }
            }
            Ok(())
        })
        .await
    }
}
