//! `df`: what the layer store and the machines of a farm keep.

use clap::Args;
use serde_json::Value;

use crate::commands::{check_json, list, word};
use crate::engine::Engine;
use crate::failure::Outcome;
use crate::format::table::aligned;
use crate::{output, units};

#[derive(Args, Debug)]
pub struct Df {
    /// Format output: json
    #[arg(long)]
    format: Option<String>,
    /// Also show what is in use, and each kind of a machine
    #[arg(short, long)]
    verbose: bool,
}

impl Df {
    pub async fn run(self, engine: &Engine) -> Outcome {
        check_json(self.format.as_deref())?;
        let usage = engine.get("/boxyard/v1/df").value().await?;
        if self.format.is_some() {
            output::line(usage.to_string());
            return Ok(());
        }
        output::write(self.text(&usage)?.as_bytes());
        Ok(())
    }

    fn text(&self, usage: &Value) -> Outcome<String> {
        let store = &usage["store"];
        let mut rows = "LAYER STORE\tBLOBS\tSIZE\tCAP\n".to_owned();
        let kinds = list(&store["kinds"]).filter(|kind| self.verbose || kind["blobs"] != 0);
        for kind in kinds {
            rows += &format!(
                "{}\t{}\t{}\t{}\n",
                word(&kind["kind"]),
                kind["blobs"],
                size(&kind["bytes"]),
                size(&kind["cap_bytes"])
            );
        }
        rows += &format!("total\t{}\t{}\t\n", store["blobs"], size(&store["bytes"]));
        rows += &format!("free\t\t{}\t\n", size(&store["free_bytes"]));
        let mut text = aligned(&rows, 10)?;
        for machine in list(&usage["machines"]) {
            text += &format!("\n{}", self.machine(machine)?);
        }
        Ok(text)
    }

    fn machine(&self, machine: &Value) -> Outcome<String> {
        let members: Vec<&str> = list(&machine["members"]).filter_map(Value::as_str).collect();
        let mut text = format!("{}: {}\n", word(&machine["host"]), members.join(", "));
        let silent: Vec<&str> = list(&machine["silent"]).filter_map(Value::as_str).collect();
        if !silent.is_empty() {
            text += &format!("no answer: {}\n", silent.join(", "));
        }
        if members.is_empty() {
            return Ok(text);
        }
        let mut rows = "MACHINE\tCOUNT\tSIZE\tIN USE\n".to_owned();
        for kind in list(&machine["kinds"]).filter(|kind| self.verbose || kind["count"] != 0) {
            rows += &format!(
                "{}\t{}\t{}\t{}\n",
                word(&kind["kind"]),
                kind["count"],
                size(&kind["bytes"]),
                size(&kind["in_use_bytes"])
            );
        }
        let total: u64 = list(&machine["kinds"]).filter_map(|kind| kind["bytes"].as_u64()).sum();
        rows += &format!("total\t\t{}\t\n", size(&total.into()));
        rows += &format!("cap\t\t{}\t\n", size(&machine["cap_bytes"]));
        rows += &format!("free\t\t{}\t\n", size(&machine["free_bytes"]));
        Ok(text + &aligned(&rows, 10)?)
    }
}

/// Empty for null.
fn size(value: &Value) -> String {
    value.as_f64().map(units::size).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_there_is_shown() {
        let usage = json!({
            "store": {"blobs": 3, "bytes": 3000, "free_bytes": 5000, "kinds": [
                {"kind": "images", "blobs": 3, "bytes": 3000, "cap_bytes": null},
                {"kind": "logs", "blobs": 0, "bytes": 0, "cap_bytes": 7000}
            ]},
            "machines": [{"host": "h", "members": ["node n"], "silent": ["build-worker w"], "cap_bytes": null,
                "free_bytes": null, "kinds": [{"kind": "layers", "count": 2, "bytes": 2000, "in_use_bytes": 0}]}]
        });
        let text = Df { format: None, verbose: false }.text(&usage).expect("a text");
        for line in ["images", "3kB", "h: node n", "no answer: build-worker w", "layers", "2kB"] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(!text.contains("logs"), "{text}");
        assert!(Df { format: None, verbose: true }.text(&usage).expect("a text").contains("logs"));
    }
}
