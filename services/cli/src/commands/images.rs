//! `images` (`image ls`) and `history`.

use clap::Args;
use serde_json::Value;

use super::ps::ellipsis;
use crate::engine::{Engine, escape};
use crate::failure::Outcome;
use crate::filters::Filters;
use crate::format::table::{Listing, row};
use crate::reference::short_id;
use crate::{output, units};

#[derive(Args, Debug)]
pub struct Images {
    /// Show all images (default hides intermediate images)
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Filter output based on conditions provided
    #[arg(short, long)]
    filter: Vec<String>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long)]
    format: Option<String>,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only show image IDs
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "REPOSITORY[:TAG]")]
    repository: Option<String>,
}

const IMAGE_HEADERS: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("VirtualSize", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
];

/// One line of the list.
struct Named {
    repository: String,
    tag: String,
    digest: String,
}

impl Images {
    pub async fn run(self, engine: &Engine) -> Outcome {
        let mut filters = Filters::parse(&self.filter)?;
        if let Some(repository) = &self.repository {
            filters.add("reference", repository);
        }
        let call = engine.get("/images/json").flag("all", self.all);
        let images = call.maybe("filters", filters.query()).value().await?;
        let images = images.as_array().cloned().unwrap_or_default();
        let digests = self.digests || self.format.as_deref().is_some_and(|f| f.contains(".Digest"));
        let mut rows = Vec::new();
        for image in &images {
            for named in names(image, digests) {
                rows.push(image_row(image, &named, !self.no_trunc));
            }
        }
        if self.quiet && self.format.is_none() {
            rows.iter().filter_map(|r| r["ID"].as_str()).for_each(output::line);
            return Ok(());
        }
        let digest = if self.digests { "{{.Digest}}\t" } else { "" };
        let default =
            format!("{{{{.Repository}}}}\t{{{{.Tag}}}}\t{digest}{{{{.ID}}}}\t{{{{.CreatedSince}}}}\t{{{{.Size}}}}");
        Listing { kind: "ImageContext", default, headers: IMAGE_HEADERS, rows }.print(self.format.as_deref())
    }
}

/// Docker's lines of one image: one for each tag, with the repository's digests if wanted.
fn names(image: &Value, with_digests: bool) -> Vec<Named> {
    const NONE: &str = "<none>";
    let list = |field: &str| -> Vec<String> {
        let items = image[field].as_array().cloned().unwrap_or_default();
        items.iter().filter_map(Value::as_str).filter(|t| !t.starts_with(NONE)).map(str::to_owned).collect()
    };
    let tags: Vec<_> =
        list("RepoTags").iter().filter_map(|t| t.rsplit_once(':').map(|(r, t)| (r.to_owned(), t.to_owned()))).collect();
    let digests: Vec<_> = list("RepoDigests")
        .iter()
        .filter_map(|d| d.split_once('@').map(|(r, d)| (r.to_owned(), d.to_owned())))
        .collect();
    let named = |repository: &str, tag: &str, digest: &str| Named {
        repository: repository.into(),
        tag: tag.into(),
        digest: digest.into(),
    };
    let mut lines = Vec::new();
    let mut repositories: Vec<&String> = tags.iter().map(|(r, _)| r).collect();
    repositories.dedup();
    for repository in repositories {
        let own: Vec<_> = digests.iter().filter(|(r, _)| r == repository).collect();
        for (_, tag) in tags.iter().filter(|(r, _)| r == repository) {
            match own.is_empty() || !with_digests {
                true => lines.push(named(repository, tag, NONE)),
                false => lines.extend(own.iter().map(|(_, d)| named(repository, tag, d))),
            }
        }
    }
    for (repository, digest) in digests.iter().filter(|(r, _)| !tags.iter().any(|(t, _)| t == r)) {
        if with_digests || lines.is_empty() {
            lines.push(named(repository, NONE, if with_digests { digest } else { NONE }));
        }
    }
    if lines.is_empty() {
        lines.push(named(NONE, NONE, NONE));
    }
    lines
}

fn image_row(image: &Value, named: &Named, truncate: bool) -> Value {
    let id = image["Id"].as_str().unwrap_or_default();
    let created = image["Created"].as_i64().unwrap_or(0);
    let count = |field: &str| match image[field].as_i64() {
        Some(n) if n >= 0 => n.to_string(),
        _ => "N/A".into(),
    };
    let size = image["Size"].as_f64().unwrap_or(0.0);
    let shared = image["SharedSize"].as_f64().filter(|s| *s >= 0.0);
    let fields = [
        ("ID", if truncate { short_id(id) } else { id }.into()),
        ("Repository", named.repository.as_str().into()),
        ("Tag", named.tag.as_str().into()),
        ("Digest", named.digest.as_str().into()),
        ("CreatedSince", since(created).into()),
        ("CreatedAt", jiff::Timestamp::from_second(created).map(units::go_time).unwrap_or_default().into()),
        ("Size", units::size3(size).into()),
        ("VirtualSize", units::size(size).into()),
        ("Containers", count("Containers").into()),
        ("SharedSize", shared.map_or("N/A".into(), units::size).into()),
        ("UniqueSize", shared.map_or("N/A".into(), |s| units::size(size - s)).into()),
    ];
    row(&fields, None)
}

/// Go's zero time (the year 1) stands for a time that is not known.
fn since(created: i64) -> String {
    if created < -60_000_000_000 { "N/A".into() } else { units::ago(created) }
}

#[derive(Args, Debug)]
pub struct History {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long)]
    format: Option<String>,
    /// Print sizes and dates in human readable format
    #[arg(short = 'H', long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    human: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Show history for the given platform
    #[arg(long)]
    platform: Option<String>,
    /// Only show image IDs
    #[arg(short, long)]
    quiet: bool,
    image: String,
}

const HISTORY_HEADERS: &[(&str, &str)] = &[
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

impl History {
    pub async fn run(self, engine: &Engine) -> Outcome {
        let call = engine.get(format!("/images/{}/history", escape(&self.image)));
        let layers = call.maybe("platform", self.platform.as_deref()).value().await?;
        let rows: Vec<_> = layers.as_array().into_iter().flatten().map(|l| self.layer_row(l)).collect();
        if self.quiet && self.format.is_none() {
            rows.iter().filter_map(|r| r["ID"].as_str()).for_each(output::line);
            return Ok(());
        }
        let created = if self.human { "CreatedSince" } else { "CreatedAt" };
        let default = format!("{{{{.ID}}}}\t{{{{.{created}}}}}\t{{{{.CreatedBy}}}}\t{{{{.Size}}}}\t{{{{.Comment}}}}");
        Listing { kind: "historyContext", default, headers: HISTORY_HEADERS, rows }.print(self.format.as_deref())
    }

    fn layer_row(&self, layer: &Value) -> Value {
        let id = layer["Id"].as_str().unwrap_or_default();
        let created = layer["Created"].as_i64().unwrap_or(0);
        let size = layer["Size"].as_f64().unwrap_or(0.0);
        let by = layer["CreatedBy"].as_str().unwrap_or_default().replace('\t', " ");
        let id = if self.no_trunc || id == "<missing>" { id } else { short_id(id) };
        let time = jiff::Timestamp::from_second(created).unwrap_or_default().to_zoned(jiff::tz::TimeZone::system());
        let at = time.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string().replace("+00:00", "Z");
        let by = if self.no_trunc { by } else { ellipsis(&by, 45) };
        let size = if self.human { units::size3(size) } else { format!("{size:.0}") };
        row(
            &[
                ("ID", id.into()),
                ("CreatedSince", since(created).into()),
                ("CreatedAt", at.into()),
                ("CreatedBy", by.into()),
                ("Size", size.into()),
                ("Comment", layer["Comment"].clone()),
            ],
            None,
        )
    }
}
