//! `build ls`, `inspect`, `cancel` and `rm`.

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use crate::engine::{Engine, escape};
use crate::failure::Failure;
use crate::failure::{Outcome, for_each};
use crate::filters::Filters;
use crate::format::json::indent;
use crate::format::table::{Listing, row};
use crate::format::template::{Template, no_entry};
use crate::{output, units};

/// Rows that are asked for at once.
const PAGE: usize = 500;
/// An id is cut to so many characters.
const SHORT: usize = 12;

#[derive(Args, Debug)]
pub struct List {
    /// Filter output based on conditions provided (e.g. "status=failed", "tag=app", "worker=ID", "user=NAME", "since=24h")
    #[arg(short, long)]
    filter: Vec<String>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long)]
    format: Option<String>,
    /// Show so many builds, the newest first (0: all)
    #[arg(short = 'n', long, default_value_t = 50)]
    last: usize,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only show ids
    #[arg(short, long)]
    quiet: bool,
}

const HEADERS: &[(&str, &str)] = &[
    ("ID", "BUILD ID"),
    ("Name", "NAME"),
    ("State", "STATE"),
    ("Builder", "BUILDER"),
    ("Worker", "WORKER"),
    ("User", "USER"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Duration", "DURATION"),
    ("Image", "IMAGE ID"),
    ("Error", "ERROR"),
];

impl List {
    pub async fn run(self, engine: &Engine) -> Outcome {
        let filters = Filters::parse(&self.filter)?;
        let builds = builds(engine, &filters, if self.last == 0 { usize::MAX } else { self.last }).await?;
        let rows: Vec<Value> = builds.iter().map(|build| build_row(build, !self.no_trunc)).collect();
        if self.quiet && self.format.is_none() {
            rows.iter().filter_map(|row| row["ID"].as_str()).for_each(output::line);
            return Ok(());
        }
        let default = "{{.ID}}\t{{.Name}}\t{{.State}}\t{{.Worker}}\t{{.CreatedSince}}\t{{.Duration}}".to_owned();
        Listing { kind: "BuildContext", default, headers: HEADERS, rows }.print(self.format.as_deref())
    }
}

/// The newest builds, page by page.
async fn builds(engine: &Engine, filters: &Filters, most: usize) -> Outcome<Vec<Value>> {
    let mut builds = Vec::new();
    let mut after: Option<String> = None;
    while builds.len() < most {
        let limit = PAGE.min(most - builds.len());
        let call = engine.get("/boxyard/v1/builds").query("limit", limit).maybe("after", after.as_deref());
        let page = call.maybe("filters", filters.query()).value().await?;
        builds.extend(page["items"].as_array().cloned().unwrap_or_default());
        after = page["next"].as_str().map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    Ok(builds)
}

fn build_row(build: &Value, truncate: bool) -> Value {
    let text = |name: &str| build[name].as_str().unwrap_or_default().to_owned();
    let cut = |text: String| if truncate { text.chars().take(SHORT).collect() } else { text };
    let time = |name: &str| build[name].as_str().and_then(|time| time.parse::<jiff::Timestamp>().ok());
    let created = time("created_at").unwrap_or_default();
    let lasted = time("started_at").map(|started| {
        let ended = time("ended_at").unwrap_or_else(jiff::Timestamp::now);
        seconds((ended.as_millisecond() - started.as_millisecond()).max(0) as f64 / 1000.0)
    });
    let image = text("image_id");
    let fields = [
        ("ID", cut(text("id")).into()),
        ("Name", name(build).into()),
        ("State", text("state").into()),
        ("Builder", text("builder").into()),
        ("Worker", text("worker_id").into()),
        ("User", text("user").into()),
        ("CreatedSince", units::ago(created.as_second()).into()),
        ("CreatedAt", units::go_time(created).into()),
        ("Duration", lasted.unwrap_or_default().into()),
        ("Image", cut(image.strip_prefix("sha256:").unwrap_or(&image).to_owned()).into()),
        ("Error", text("error").into()),
    ];
    row(&fields, None)
}

/// What a build is known by to people: its first tag, else its context.
fn name(build: &Value) -> String {
    let first = build["tags"][0].as_str().or(build["remote"].as_str()).or(build["source"].as_str());
    let name = first.or(build["dockerfile"].as_str()).unwrap_or_default();
    match build["target"].as_str() {
        Some(target) => format!("{name} ({target})"),
        None => name.to_owned(),
    }
}

/// `3.2s`, as BuildKit's clients show it.
pub fn seconds(seconds: f64) -> String {
    format!("{seconds:.1}s")
}

#[derive(Args, Debug)]
pub struct Inspect {
    /// Format output using a custom template: 'json' or 'TEMPLATE'
    #[arg(short, long)]
    format: Option<String>,
    #[arg(required = true, value_name = "BUILD")]
    builds: Vec<String>,
}

impl Inspect {
    pub async fn run(self, engine: &Engine) -> Outcome {
        let format = self.format.as_deref().map(|f| if f == "json" { "{{json .}}" } else { f });
        let template = format.map(Template::parse).transpose();
        let template = template.map_err(|e| Failure::new(format!("template parsing error: {e}")).code(64))?;
        let mut found = Vec::new();
        for id in &self.builds {
            let path = format!("/boxyard/v1/builds/{}", escape(id));
            let mut build = engine.get(&path).value().await?;
            build["steps"] = engine.get(format!("{path}/steps")).value().await?["items"].take();
            match &template {
                None => found.push(build),
                Some(template) => {
                    let text = template.render(&build, no_entry);
                    output::line(text.map_err(|e| Failure::new(format!("template parsing error: {e}")))?);
                }
            }
        }
        if template.is_none() {
            output::line(indent(json!(found).to_string().as_bytes(), "    "));
        }
        Ok(())
    }
}

#[derive(Args, Debug)]
pub struct Cancel {
    #[arg(required = true, value_name = "BUILD")]
    builds: Vec<String>,
}

impl Cancel {
    pub async fn run(self, engine: &Engine) -> Outcome {
        for_each(&self.builds, |id| async move {
            engine.post(format!("/boxyard/v1/builds/{}/cancel", escape(&id))).send().await?;
            output::line(id);
            Ok(())
        })
        .await
    }
}

#[derive(Args, Debug)]
pub struct Remove {
    #[arg(required = true, value_name = "BUILD")]
    builds: Vec<String>,
}

impl Remove {
    pub async fn run(self, engine: &Engine) -> Outcome {
        for_each(&self.builds, |id| async move {
            engine.call(Method::DELETE, format!("/boxyard/v1/builds/{}", escape(&id))).send().await?;
            output::line(id);
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_the_list() {
        let build = json!({
            "id": "0123456789abcdef", "tags": ["a:1"], "state": "done", "worker_id": "w1", "target": "t",
            "created_at": "2026-01-01T00:00:00Z", "started_at": "2026-01-01T00:00:01Z",
            "ended_at": "2026-01-01T00:00:02.5Z", "image_id": "sha256:abcdef0123456789"
        });
        let row = build_row(&build, true);
        for (field, wanted) in [
            ("ID", "0123456789ab"),
            ("Name", "a:1 (t)"),
            ("Duration", "1.5s"),
            ("Image", "abcdef012345"),
            ("Error", ""),
        ] {
            assert_eq!(row[field], wanted, "{field}");
        }
    }
}
