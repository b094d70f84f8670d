//! `why-kept`: what keeps a blob, a layer or an image.

use clap::Args;
use serde_json::Value;

use crate::commands::{check_json, list, word};
use crate::engine::{Engine, escape};
use crate::failure::Outcome;
use crate::reference::short_id;
use crate::{output, units};

#[derive(Args, Debug)]
pub struct WhyKept {
    /// Format output: json
    #[arg(long)]
    format: Option<String>,
    /// Digest of a blob, diff id of a layer, or id of an image; or how it begins
    digest: String,
}

impl WhyKept {
    pub async fn run(self, engine: &Engine) -> Outcome {
        check_json(self.format.as_deref())?;
        let kept = engine.get(format!("/boxyard/v1/why-kept/{}", escape(&self.digest))).value().await?;
        match self.format {
            Some(_) => output::line(kept.to_string()),
            None => output::write(text(&kept).as_bytes()),
        }
        Ok(())
    }
}

fn text(kept: &Value) -> String {
    let mut text = word(&kept["digest"]).to_owned();
    text += &match kept["bytes"].as_f64() {
        Some(bytes) => format!(" ({} in the layer store)\n", units::size(bytes)),
        None => " (not in the layer store)\n".to_owned(),
    };
    if let Some(diff_id) = kept["diff_id"].as_str().filter(|diff_id| *diff_id != word(&kept["digest"])) {
        text += &format!("layer {diff_id}\n");
    }
    let reasons: Vec<&Value> = list(&kept["reasons"]).collect();
    if reasons.is_empty() {
        text += match kept["bytes"].is_null() {
            true => "nothing keeps it\n",
            false => {
                "nothing keeps it: it goes when the layer store looks next, at the latest when that is started again\n"
            }
        };
    }
    for reason in reasons {
        text += &format!("  {}\n", line(reason));
        for step in list(&reason["builds"]) {
            let line = step["line"].as_u64().filter(|line| *line > 0).map(|line| format!(", Dockerfile:{line}"));
            text += &format!("    build {}{}\n", word(&step["build"]), line.unwrap_or_default());
        }
    }
    for machine in list(&kept["machines"]) {
        let members: Vec<&str> = list(&machine["members"]).filter_map(Value::as_str).collect();
        let holders: Vec<&str> = list(&machine["holders"]).filter_map(Value::as_str).collect();
        let held = match holders.is_empty() {
            true => "held by nothing: it goes when the cap is reached".to_owned(),
            false => format!("held by {}", holders.join(", ")),
        };
        text += &format!("unpacked on {} ({}): {held}\n", word(&machine["host"]), members.join(", "));
    }
    text
}

fn line(reason: &Value) -> String {
    let (kind, about) = (word(&reason["kind"]), word(&reason["about"]));
    let mut line = match word(&reason["id"]) {
        "" => format!("{kind}: {about}"),
        id => format!("{kind} {}: {about}", short_id(id)),
    };
    if let Some(ends) = reason["ends_at"].as_str() {
        line += &format!(", until {ends}");
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reasons_are_told_or_that_there_are_none() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let reason = json!({"kind": "step", "id": "b".repeat(64), "about": "[2/2] RUN x", "ends_at": null,
            "builds": [{"build": "one", "line": 2}, {"build": "two", "line": 0}]});
        let kept = json!({"digest": digest, "diff_id": digest, "bytes": 2000, "reasons": [reason], "machines": [
            {"host": "h", "members": ["node n"], "bytes": 1, "holders": []}]});
        let told = text(&kept);
        for line in
            ["(2kB in the layer store)", "  step bbbbbbbbbbbb: [2/2] RUN x", "build one, Dockerfile:2\n", "build two\n"]
        {
            assert!(told.contains(line), "{line}: {told}");
        }
        assert!(told.ends_with("unpacked on h (node n): held by nothing: it goes when the cap is reached\n"), "{told}");
        let none = json!({"digest": digest, "diff_id": null, "bytes": 1, "reasons": [], "machines": []});
        assert!(text(&none).contains("nothing keeps it: it goes"));
    }
}
