//! `create`, and the pull of an image that is missing.

use clap::Args;
use serde_json::Value;

use crate::create::ContainerOptions;
use crate::engine::Engine;
use crate::failure::{Failure, Outcome};
use crate::progress::Sink;
use crate::{output, reference};

#[derive(Args, Debug)]
pub struct Create {
    #[command(flatten)]
    container: ContainerOptions,
}

impl Create {
    pub async fn run(self, engine: &Engine) -> Outcome {
        let body = self.container.body(self.container.streams(false)?)?;
        let id = container_create(engine, &self.container, &body).await?;
        write_cidfile(&self.container, &id)?;
        output::line(id);
        Ok(())
    }
}

/// Creates; pulls first when it is asked for or the image is missing. Gives the id.
pub async fn container_create(engine: &Engine, options: &ContainerOptions, body: &Value) -> Outcome<String> {
    options.trust.check()?;
    let image = options.image();
    if let Some(path) = options.cidfile.as_ref().filter(|p| p.exists()) {
        return Err(Failure::new(format!(
            "container ID file found, make sure the other container isn't running or delete {}",
            path.display()
        )));
    }
    match options.pull.as_str() {
        "always" => pull(engine, options).await?,
        "missing" | "never" => {}
        other => {
            return Err(Failure::new(format!(
                "invalid pull option: '{other}': must be one of \"always\", \"missing\" or \"never\""
            )));
        }
    }
    let create = || {
        let call = engine.post("/containers/create").maybe("name", options.name.as_deref());
        call.maybe("platform", options.platform.as_deref()).json(body).value()
    };
    let created = match create().await {
        Err(failure)
            if failure.is_not_found() && failure.message.contains("No such image") && options.pull == "missing" =>
        {
            if !options.quiet {
                output::error(format!("Unable to find image '{}' locally\n", reference::familiar(image)).as_bytes());
            }
            pull(engine, options).await?;
            create().await?
        }
        other => other?,
    };
    for warning in created["Warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        output::error(format!("WARNING: {warning}\n").as_bytes());
    }
    let id = created["Id"].as_str().ok_or_else(|| Failure::new("the daemon created a container without an id"))?;
    Ok(id.to_owned())
}

async fn pull(engine: &Engine, options: &ContainerOptions) -> Outcome {
    let image = super::pull::parse(options.image())?.or_latest();
    let sink = if options.quiet { Sink::Nowhere } else { Sink::Stderr };
    super::pull::pull(engine, &image, options.platform.as_deref(), sink).await
}

pub fn write_cidfile(options: &ContainerOptions, id: &str) -> Outcome {
    match &options.cidfile {
        Some(path) => std::fs::write(path, id)
            .map_err(|e| Failure::new(format!("failed to write the container ID to {}: {e}", path.display()))),
        None => Ok(()),
    }
}
