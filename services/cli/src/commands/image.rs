//! What changes images: rmi, tag, prune, and the pull that `run` leans on.

use clap::Args;
use serde_json::Value;

use super::confirm;
use crate::engine::{Engine, escape};
use crate::failure::{Failure, Outcome};
use crate::filters::Filters;
use crate::{output, reference, units};

#[derive(Args, Debug)]
pub struct RemoveImage {
    /// Force removal of the image
    #[arg(short, long)]
    force: bool,
    /// Do not delete untagged parents
    #[arg(long)]
    no_prune: bool,
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl RemoveImage {
    pub async fn run(self, engine: &Engine) -> Outcome {
        let mut failed = false;
        for image in &self.images {
            let call = engine.call(http::Method::DELETE, format!("/images/{}", escape(image)));
            match call.flag("force", self.force).flag("noprune", self.no_prune).value().await {
                Ok(done) => print_removed(&done, "Deleted", "Untagged"),
                Err(failure) => {
                    // With -f an image that is not there is a warning, not a failure.
                    failed |= !(self.force && failure.is_not_found());
                    eprintln!("{failure}");
                }
            }
        }
        if failed { Err(Failure::exit(1)) } else { Ok(()) }
    }
}

/// One line for each image; prune writes the words in lower case.
pub fn print_removed(list: &Value, deleted: &str, untagged: &str) {
    for item in list.as_array().into_iter().flatten() {
        match (item["Deleted"].as_str().filter(|d| !d.is_empty()), item["Untagged"].as_str()) {
            (Some(id), _) => output::line(format!("{deleted}: {id}")),
            (None, Some(name)) => output::line(format!("{untagged}: {name}")),
            (None, None) => {}
        }
    }
}

#[derive(Args, Debug)]
pub struct Tag {
    #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
    source: String,
    #[arg(value_name = "TARGET_IMAGE[:TAG]")]
    target: String,
}

impl Tag {
    pub async fn run(self, engine: &Engine) -> Outcome {
        if self.target.contains('@') {
            return Err(Failure::new("refusing to create a tag with a digest reference"));
        }
        let (repository, tag) = reference::split(&self.target);
        let call = engine.post(format!("/images/{}/tag", escape(&self.source)));
        call.query("repo", repository).query("tag", tag).send().await?;
        Ok(())
    }
}

#[derive(Args, Debug)]
pub struct Prune {
    /// Remove all unused images, not just dangling ones
    #[arg(short, long)]
    pub all: bool,
    /// Provide filter values (e.g. "until=<timestamp>")
    #[arg(long)]
    pub filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    pub force: bool,
}

impl Prune {
    pub async fn images(self, engine: &Engine) -> Outcome {
        let warning = match self.all {
            true => "WARNING! This will remove all images without at least one container associated to them.",
            false => "WARNING! This will remove all dangling images.",
        };
        if !self.force && !confirm(warning)? {
            return Ok(());
        }
        let freed = prune_images(engine, self.all, &self.filter).await?;
        output::line(format!("Total reclaimed space: {}", units::size(freed)));
        Ok(())
    }

    pub async fn containers(self, engine: &Engine) -> Outcome {
        if !self.force && !confirm("WARNING! This will remove all stopped containers.")? {
            return Ok(());
        }
        let filters = Filters::parse(&self.filter)?;
        let freed =
            prune_list(engine, "/containers/prune", filters, "ContainersDeleted", "Deleted Containers:").await?;
        output::line(format!("Total reclaimed space: {}", units::size(freed)));
        Ok(())
    }

    pub async fn volumes(self, engine: &Engine) -> Outcome {
        let kind = if self.all { "local volumes" } else { "anonymous local volumes" };
        if !self.force && !confirm(&format!("WARNING! This will remove {kind} not used by at least one container."))? {
            return Ok(());
        }
        let mut filters = Filters::parse(&self.filter)?;
        if self.all && engine.speaks(42).await? {
            filters.add("all", "true");
        }
        let freed = prune_list(engine, "/volumes/prune", filters, "VolumesDeleted", "Deleted Volumes:").await?;
        output::line(format!("Total reclaimed space: {}", units::size(freed)));
        Ok(())
    }
}

/// Prints what went and gives the bytes.
pub async fn prune_images(engine: &Engine, all: bool, filter: &[String]) -> Outcome<f64> {
    let mut filters = Filters::parse(filter)?;
    filters.add("dangling", if all { "false" } else { "true" });
    let report = engine.post("/images/prune").maybe("filters", filters.query()).value().await?;
    if report["ImagesDeleted"].as_array().is_some_and(|d| !d.is_empty()) {
        output::line("Deleted Images:");
        print_removed(&report["ImagesDeleted"], "deleted", "untagged");
        output::line("");
    }
    Ok(report["SpaceReclaimed"].as_f64().unwrap_or(0.0))
}

pub async fn prune_list(engine: &Engine, path: &str, filters: Filters, field: &str, head: &str) -> Outcome<f64> {
    let report = engine.post(path).maybe("filters", filters.query()).value().await?;
    let gone: Vec<_> = report[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !gone.is_empty() {
        output::line(format!("{head}\n{}\n", gone.join("\n")));
    }
    Ok(report["SpaceReclaimed"].as_f64().unwrap_or(0.0))
}
