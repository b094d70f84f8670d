//! `system df`, `system prune` and `events`.

use clap::Args;
use serde_json::Value;

use super::confirm;
use super::image::{prune_images, prune_list};
use crate::engine::{Engine, next_chunk};
use crate::failure::{Failure, Outcome};
use crate::filters::Filters;
use crate::format::table::{Listing, row};
use crate::format::template::{Template, no_entry};
use crate::{output, units};

#[derive(Args, Debug)]
pub struct DiskUsage {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long)]
    format: Option<String>,
    /// Show detailed information on space usage
    #[arg(short, long)]
    verbose: bool,
}

const HEADERS: &[(&str, &str)] = &[
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];

/// One kind of object.
struct Usage {
    kind: &'static str,
    total: usize,
    active: usize,
    size: f64,
    reclaimable: f64,
    /// Containers and build cache are shown without a share.
    share: bool,
}

impl DiskUsage {
    pub async fn run(self, engine: &Engine) -> Outcome {
        let usage = engine.get("/system/df").value().await?;
        if self.verbose && self.format.is_none() {
            return super::usage::print(&usage);
        }
        let rows = usages(&usage).iter().map(Usage::row).collect();
        let default = "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}".to_owned();
        Listing { kind: "diskUsageContext", default, headers: HEADERS, rows }.print(self.format.as_deref())
    }
}

impl Usage {
    fn row(&self) -> Value {
        let mut reclaimable = units::size(self.reclaimable);
        if self.share && self.size > 0.0 {
            reclaimable += &format!(" ({:.0}%)", (self.reclaimable * 100.0 / self.size).floor());
        }
        row(
            &[
                ("Type", self.kind.into()),
                ("TotalCount", self.total.to_string().into()),
                ("Active", self.active.to_string().into()),
                ("Size", units::size(self.size).into()),
                ("Reclaimable", reclaimable.into()),
            ],
            None,
        )
    }
}

fn usages(usage: &Value) -> Vec<Usage> {
    let list = |name: &str| usage[name].as_array().cloned().unwrap_or_default();
    let number = |value: &Value| value.as_f64().unwrap_or(0.0).max(0.0);
    let images = list("Images");
    let layers = number(&usage["LayersSize"]);
    let used: f64 = images
        .iter()
        .filter(|i| number(&i["Containers"]) > 0.0)
        .map(|i| number(&i["Size"]) - number(&i["SharedSize"]))
        .sum();
    let containers = list("Containers");
    let running = |c: &&Value| matches!(c["State"].as_str(), Some("running" | "paused" | "restarting"));
    let volumes = list("Volumes");
    let links = |v: &Value| number(&v["UsageData"]["RefCount"]);
    let cache = list("BuildCache");
    let sum = |items: Vec<&Value>, pointer: &str| {
        items.iter().map(|i| number(i.pointer(pointer).unwrap_or(&Value::Null))).sum::<f64>()
    };
    vec![
        Usage {
            kind: "Images",
            total: images.len(),
            active: images.iter().filter(|i| number(&i["Containers"]) > 0.0).count(),
            size: layers,
            reclaimable: (layers - used).max(0.0),
            share: true,
        },
        Usage {
            kind: "Containers",
            total: containers.len(),
            active: containers.iter().filter(running).count(),
            size: sum(containers.iter().collect(), "/SizeRw"),
            reclaimable: sum(containers.iter().filter(|c| !running(c)).collect(), "/SizeRw"),
            share: true,
        },
        Usage {
            kind: "Local Volumes",
            total: volumes.len(),
            active: volumes.iter().filter(|v| links(v) > 0.0).count(),
            size: sum(volumes.iter().collect(), "/UsageData/Size"),
            reclaimable: sum(volumes.iter().filter(|v| links(v) == 0.0).collect(), "/UsageData/Size"),
            share: true,
        },
        Usage {
            kind: "Build Cache",
            total: cache.len(),
            active: cache.iter().filter(|c| c["InUse"] == true).count(),
            size: sum(cache.iter().filter(|c| c["Shared"] != true).collect(), "/Size"),
            reclaimable: sum(cache.iter().filter(|c| c["Shared"] != true && c["InUse"] != true).collect(), "/Size"),
            share: false,
        },
    ]
}

#[derive(Args, Debug)]
pub struct SystemPrune {
    /// Remove all unused images not just dangling ones
    #[arg(short, long)]
    all: bool,
    /// Provide filter values (e.g. "label=<key>=<value>")
    #[arg(long)]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
    /// Prune anonymous volumes
    #[arg(long)]
    volumes: bool,
}

impl SystemPrune {
    pub async fn run(self, engine: &Engine) -> Outcome {
        if self.volumes && Filters::parse(&self.filter)?.has("until") {
            return Err(Failure::new("ERROR: The \"until\" filter is not supported with \"--volumes\""));
        }
        if !self.force && !confirm(&self.warning())? {
            return Ok(());
        }
        let filters = || Filters::parse(&self.filter);
        let mut freed =
            prune_list(engine, "/containers/prune", filters()?, "ContainersDeleted", "Deleted Containers:").await?;
        freed += prune_list(engine, "/networks/prune", filters()?, "NetworksDeleted", "Deleted Networks:")
            .await
            .or_else(not_served)?;
        if self.volumes {
            freed += prune_list(engine, "/volumes/prune", filters()?, "VolumesDeleted", "Deleted Volumes:").await?;
        }
        freed += prune_images(engine, self.all, &self.filter).await?;
        freed += prune_list(engine, "/build/prune", filters()?, "CachesDeleted", "Deleted build cache objects:")
            .await
            .or_else(not_served)?;
        output::line(format!("Total reclaimed space: {}", units::size(freed)));
        Ok(())
    }

    fn warning(&self) -> String {
        let mut lines = vec!["WARNING! This will remove:".to_owned()];
        lines.push("  - all stopped containers".into());
        lines.push("  - all networks not used by at least one container".into());
        if self.volumes {
            lines.push("  - all anonymous volumes not used by at least one container".into());
        }
        let images =
            if self.all { "images without at least one container associated to them" } else { "dangling images" };
        lines.push(format!("  - all {images}"));
        lines.push(format!("  - {} build cache", if self.all { "all" } else { "unused" }));
        lines.join("\n") + "\n"
    }
}

/// A daemon that does not have a kind of object has nothing of it to remove.
fn not_served(failure: Failure) -> Outcome<f64> {
    if failure.status == Some(501) { Ok(0.0) } else { Err(failure) }
}

#[derive(Args, Debug)]
pub struct Events {
    /// Filter output based on conditions provided
    #[arg(short, long)]
    filter: Vec<String>,
    /// Format output using a custom template: 'json' or 'TEMPLATE'
    #[arg(long)]
    format: Option<String>,
    /// Show all events created since timestamp
    #[arg(long)]
    since: Option<String>,
    /// Stream events until this timestamp
    #[arg(long)]
    until: Option<String>,
}

impl Events {
    pub async fn run(self, engine: &Engine) -> Outcome {
        let time = |text: &Option<String>| text.as_deref().map(units::timestamp).transpose().map_err(Failure::new);
        let format = self.format.as_deref().map(|f| if f == "json" { "{{json .}}" } else { f });
        let template = format.map(Template::parse).transpose();
        let template = template.map_err(|e| Failure::new(format!("Error parsing format: {e}")).code(64))?;
        let filters = Filters::parse(&self.filter)?;
        let call = engine.get("/events").maybe("since", time(&self.since)?).maybe("until", time(&self.until)?);
        let mut body = call.maybe("filters", filters.query()).send().await?.into_body();
        let mut pending = Vec::new();
        while let Some(chunk) = next_chunk(&mut body).await? {
            pending.extend_from_slice(&chunk);
            let mut used = 0;
            let mut values = serde_json::Deserializer::from_slice(&pending).into_iter::<Value>();
            while let Some(Ok(event)) = values.next() {
                used = values.byte_offset();
                match &template {
                    None => output::line(event_text(&event)),
                    Some(template) => {
                        let text = template.render(&event, no_entry);
                        output::line(text.map_err(|e| Failure::new(format!("template parsing error: {e}")))?);
                    }
                }
            }
            pending.drain(..used);
        }
        Ok(())
    }
}

fn event_text(event: &Value) -> String {
    let nanos = event["timeNano"].as_i64().unwrap_or(0);
    let time =
        jiff::Timestamp::from_nanosecond(nanos.into()).unwrap_or_default().to_zoned(jiff::tz::TimeZone::system());
    let time = time.strftime("%Y-%m-%dT%H:%M:%S.%9f%:z").to_string().replace("+00:00", "Z");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut attributes: Vec<_> = event["Actor"]["Attributes"].as_object().into_iter().flatten().collect();
    attributes.sort_by_key(|(name, _)| *name);
    let attributes: Vec<_> = attributes.iter().map(|(name, value)| format!("{name}={}", text(value))).collect();
    let shown = if attributes.is_empty() { String::new() } else { format!(" ({})", attributes.join(", ")) };
    format!("{time} {} {} {}{shown}", text(&event["Type"]), text(&event["Action"]), text(&event["Actor"]["ID"]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn event_lines() {
        let event = json!({"Type": "image", "Action": "tag", "Actor": {"ID": "x", "Attributes": {"name": "a", "b": "c"}},
            "timeNano": 1_795_498_947_543_131_424i64});
        let text = event_text(&event);
        assert!(text.ends_with(" image tag x (b=c, name=a)"), "{text}");
    }
}
