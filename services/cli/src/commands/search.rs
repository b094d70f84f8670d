//! `search`: images of Docker Hub, of its mirror, or of the registry that the term names.

use clap::Args;
use serde_json::Value;

use crate::credentials;
use crate::engine::Engine;
use crate::failure::Outcome;
use crate::filters::Filters;
use crate::format::table::{Listing, row};

#[derive(Args, Debug)]
pub struct Search {
    /// Filter output based on conditions provided
    #[arg(short, long)]
    filter: Vec<String>,
    /// Pretty-print search using a Go template
    #[arg(long)]
    format: Option<String>,
    /// Max number of search results
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    limit: i64,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    term: String,
}

const HEADERS: &[(&str, &str)] = &[
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("StarCount", "STARS"),
    ("IsOfficial", "OFFICIAL"),
    ("IsAutomated", "AUTOMATED"),
];
const DESCRIPTION_MAX_CHARS: usize = 45;

impl Search {
    pub async fn run(self, engine: &Engine) -> Outcome {
        let filters = Filters::parse(&self.filter)?;
        let call = engine.get("/images/search").query("term", &self.term).maybe("filters", filters.query());
        let call = call.maybe("limit", (self.limit != 0).then_some(self.limit));
        let found = call.header("x-registry-auth", credentials::auth_header(registry_of(&self.term))).value().await?;
        let mut found = found.as_array().cloned().unwrap_or_default();
        found.sort_by_key(|result| std::cmp::Reverse(result["star_count"].as_i64().unwrap_or(0)));
        // Go's JSON of a row has words, its table has marks.
        let words = self.format.as_deref().is_some_and(|f| f == "json" || f.contains("json ."));
        let rows = found.iter().map(|result| show(result, self.no_trunc, words)).collect();
        let default = "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}".to_owned();
        Listing { kind: "searchContext", default, headers: HEADERS, rows }.print(self.format.as_deref())
    }
}

fn show(result: &Value, whole: bool, words: bool) -> Value {
    let text = |name: &str| result[name].as_str().unwrap_or_default();
    let mark = |name: &str| match (result[name].as_bool().unwrap_or(false), words) {
        (true, true) => "true",
        (false, true) => "false",
        (true, false) => "[OK]",
        (false, false) => "",
    };
    let description = text("description").replace(['\n', '\r'], " ");
    let description = if whole { description } else { super::ps::ellipsis(&description, DESCRIPTION_MAX_CHARS) };
    row(
        &[
            ("Name", text("name").into()),
            ("Description", description.into()),
            ("StarCount", result["star_count"].as_i64().unwrap_or(0).to_string().into()),
            ("IsOfficial", mark("is_official").into()),
            ("IsAutomated", mark("is_automated").into()),
        ],
        None,
    )
}

/// A term may begin with a registry, as an image's name may.
fn registry_of(term: &str) -> &str {
    match term.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => "docker.io",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_registries() {
        let result =
            serde_json::json!({"name": "a", "description": "x\ny".repeat(20), "star_count": 3, "is_official": true});
        let shown = show(&result, false, false);
        assert_eq!(shown["Description"].as_str().expect("text").chars().count(), 45);
        assert_eq!((shown["IsOfficial"].as_str(), shown["IsAutomated"].as_str()), (Some("[OK]"), Some("")));
        assert_eq!(show(&result, true, true)["IsOfficial"], "true");
        assert_eq!(registry_of("127.0.0.1:5000/x"), "127.0.0.1:5000");
        assert_eq!(registry_of("a/b"), "docker.io");
    }
}
