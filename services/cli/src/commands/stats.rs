//! `stats`.

use clap::Args;
use serde_json::Value;

use crate::engine::{Engine, escape};
use crate::failure::Outcome;
use crate::format::table::{Listing, row};
use crate::reference::short_id;
use crate::{output, units};

#[derive(Args, Debug)]
pub struct Stats {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    all: bool,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long)]
    format: Option<String>,
    /// Disable streaming stats and only pull the first result
    #[arg(long)]
    no_stream: bool,
    /// Do not truncate output
    #[arg(long)]
    no_trunc: bool,
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

const HEADERS: &[(&str, &str)] = &[
    ("Container", "CONTAINER"),
    ("ID", "CONTAINER ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];

impl Stats {
    pub async fn run(self, engine: &Engine) -> Outcome {
        loop {
            let names = match self.containers.is_empty() {
                false => self.containers.clone(),
                true => {
                    let list = engine.get("/containers/json").flag("all", self.all).value().await?;
                    let ids = list.as_array().into_iter().flatten().filter_map(|c| c["Id"].as_str());
                    ids.map(|id| short_id(id).to_owned()).collect()
                }
            };
            // One sample takes the daemon a second, so all are asked at once.
            let asked = names.iter().map(|name| async move {
                let path = format!("/containers/{}/stats", escape(name));
                engine.get(path).query("stream", "0").value().await.map(|s| self_row(name, &s))
            });
            let asked = asked.collect::<Vec<_>>();
            let mut rows = Vec::new();
            for answer in futures::future::join_all(asked).await {
                match answer {
                    Ok(row) => rows.push(row),
                    // A container that went in the meantime is no failure of a list.
                    Err(failure) if self.containers.is_empty() && failure.is_not_found() => {}
                    Err(failure) => return Err(failure),
                }
            }
            if self.no_trunc {
                rows.iter_mut().for_each(|row| row["ID"] = row["\u{0}id"].clone());
            }
            rows.iter_mut().for_each(|row| drop(row.as_object_mut().and_then(|r| r.shift_remove("\u{0}id"))));
            let default =
                "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}";
            if !self.no_stream {
                output::write(b"\x1b[H\x1b[J");
            }
            Listing { kind: "statsContext", default: default.into(), headers: HEADERS, rows }
                .print(self.format.as_deref())?;
            if self.no_stream {
                return Ok(());
            }
        }
    }
}

fn self_row(asked: &str, stats: &Value) -> Value {
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let id = stats["id"].as_str().unwrap_or_default();
    let (used, limit) = (memory_used(stats), number(&stats["memory_stats"]["limit"]));
    let share = if limit > 0.0 { used / limit * 100.0 } else { 0.0 };
    let (mut received, mut sent) = (0.0, 0.0);
    for network in stats["networks"].as_object().into_iter().flat_map(|n| n.values()) {
        received += number(&network["rx_bytes"]);
        sent += number(&network["tx_bytes"]);
    }
    let (mut read, mut written) = (0.0, 0.0);
    for entry in stats["blkio_stats"]["io_service_bytes_recursive"].as_array().into_iter().flatten() {
        match entry["op"].as_str().and_then(|op| op.chars().next()) {
            Some('r' | 'R') => read += number(&entry["value"]),
            Some('w' | 'W') => written += number(&entry["value"]),
            _ => {}
        }
    }
    row(
        &[
            ("Container", asked.into()),
            ("ID", short_id(id).into()),
            ("\u{0}id", id.into()),
            ("Name", stats["name"].as_str().unwrap_or_default().trim_start_matches('/').into()),
            ("CPUPerc", format!("{:.2}%", cpu_share(stats)).into()),
            ("MemUsage", format!("{} / {}", units::binary_size(used), units::binary_size(limit)).into()),
            ("MemPerc", format!("{share:.2}%").into()),
            ("NetIO", format!("{} / {}", units::size3(received), units::size3(sent)).into()),
            ("BlockIO", format!("{} / {}", units::size3(read), units::size3(written)).into()),
            ("PIDs", number(&stats["pids_stats"]["current"]).to_string().into()),
        ],
        None,
    )
}

/// Page cache that the kernel can drop is not counted.
fn memory_used(stats: &Value) -> f64 {
    let memory = &stats["memory_stats"];
    let usage = memory["usage"].as_f64().unwrap_or(0.0);
    let inactive = memory["stats"]["total_inactive_file"].as_f64().or(memory["stats"]["inactive_file"].as_f64());
    inactive.filter(|i| *i < usage).map_or(usage, |i| usage - i)
}

fn cpu_share(stats: &Value) -> f64 {
    let at = |when: &str, path: &str| stats.pointer(&format!("/{when}/{path}")).and_then(Value::as_f64).unwrap_or(0.0);
    let own = at("cpu_stats", "cpu_usage/total_usage") - at("precpu_stats", "cpu_usage/total_usage");
    let whole = at("cpu_stats", "system_cpu_usage") - at("precpu_stats", "system_cpu_usage");
    let online = match at("cpu_stats", "online_cpus") {
        0.0 => stats["cpu_stats"]["cpu_usage"]["percpu_usage"].as_array().map_or(1.0, |c| c.len() as f64),
        count => count,
    };
    if own > 0.0 && whole > 0.0 { own / whole * online * 100.0 } else { 0.0 }
}
