//! `build explain`: why each step of a build ran.

use clap::Args;
use serde_json::Value;

use super::list::seconds;
use crate::engine::{Engine, escape};
use crate::failure::Outcome;
use crate::output;

#[derive(Args, Debug)]
pub struct Explain {
    /// Also steps that were found in the cache
    #[arg(short, long)]
    all: bool,
    #[arg(value_name = "BUILD")]
    build: String,
}

impl Explain {
    pub async fn run(self, engine: &Engine) -> Outcome {
        output::write(text(engine, &self.build, self.all).await?.as_bytes());
        Ok(())
    }
}

/// The reasons of a build's steps, for people.
pub async fn text(engine: &Engine, build: &str, all: bool) -> Outcome<String> {
    let path = format!("/boxyard/v1/builds/{}/explain", escape(build));
    Ok(shown(&engine.get(path).value().await?, all))
}

fn shown(explanation: &Value, all: bool) -> String {
    let steps = explanation["steps"].as_array().cloned().unwrap_or_default();
    let mut text = match explanation["compared_with"].as_str() {
        Some(last) => format!("compared with build {}\n", last.get(..12).unwrap_or(last)),
        None => String::new(),
    };
    let cached = steps.iter().filter(|step| step["cached"] == true).count();
    for step in steps.iter().filter(|step| all || step["cached"] != true) {
        text += &step["name"].as_str().unwrap_or_default().replace('\n', " ");
        if step["cached"] == true {
            text += ": cached";
        } else if let (Some(worker), Some(lasted)) = (step["worker_id"].as_str(), step["seconds"].as_f64()) {
            text += &format!(": ran on {worker} in {}", seconds(lasted));
        }
        text.push('\n');
        for reason in step["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            text += &format!("    {reason}\n");
        }
    }
    if !all && cached > 0 {
        text += &format!("{cached} of {} steps were found in the cache\n", steps.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reasons_stand_below_their_steps() {
        let explanation = json!({"compared_with": "0123456789abcdef", "steps": [
            {"name": "[1/2] FROM x", "cached": true, "worker_id": null, "seconds": 0.1, "reasons": []},
            {"name": "[2/2] COPY . /", "cached": false, "worker_id": "w1", "seconds": 1.25, "reasons": ["file a changed"]}
        ]});
        let brief = "compared with build 0123456789ab\n[2/2] COPY . /: ran on w1 in 1.2s\n    file a changed\n1 of 2 steps were found in the cache\n";
        assert_eq!(shown(&explanation, false), brief);
        assert!(shown(&explanation, true).contains("[1/2] FROM x: cached\n"));
    }
}
