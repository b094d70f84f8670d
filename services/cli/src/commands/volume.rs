//! `volume` and `network`.

use clap::Args;
use serde_json::{Value, json};

use crate::create::values;
use crate::engine::{Engine, escape};
use crate::failure::{Outcome, for_each};
use crate::filters::Filters;
use crate::format::table::{Listing, row};
use crate::reference::short_id;
use crate::{output, units};

#[derive(Args, Debug)]
pub struct List {
    /// Provide filter values (e.g. "dangling=true")
    #[arg(short, long)]
    filter: Vec<String>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long)]
    format: Option<String>,
    /// Do not truncate the output
    #[arg(long)]
    no_trunc: bool,
    /// Only display names or IDs
    #[arg(short, long)]
    quiet: bool,
}

const VOLUME_HEADERS: &[(&str, &str)] = &[
    ("Name", "VOLUME NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Labels", "LABELS"),
    ("Links", "LINKS"),
    ("Size", "SIZE"),
    ("Group", "GROUP"),
    ("Availability", "AVAILABILITY"),
    ("Status", "STATUS"),
];

const NETWORK_HEADERS: &[(&str, &str)] = &[
    ("ID", "NETWORK ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("IPv4", "IPV4"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
    ("CreatedAt", "CREATED AT"),
];

impl List {
    pub async fn volumes(self, engine: &Engine) -> Outcome {
        let filters = Filters::parse(&self.filter)?;
        let answer = engine.get("/volumes").maybe("filters", filters.query()).value().await?;
        let mut volumes = answer["Volumes"].as_array().cloned().unwrap_or_default();
        volumes.sort_by_key(|v| v["Name"].as_str().unwrap_or_default().to_owned());
        if self.quiet && self.format.is_none() {
            volumes.iter().filter_map(|v| v["Name"].as_str()).for_each(output::line);
            return Ok(());
        }
        let rows = volumes.iter().map(volume_row).collect();
        let default = "{{.Driver}}\t{{.Name}}".to_owned();
        Listing { kind: "volumeContext", default, headers: VOLUME_HEADERS, rows }.print(self.format.as_deref())
    }

    pub async fn networks(self, engine: &Engine) -> Outcome {
        let filters = Filters::parse(&self.filter)?;
        let networks = engine.get("/networks").maybe("filters", filters.query()).value().await?;
        let mut networks = networks.as_array().cloned().unwrap_or_default();
        networks.sort_by_key(|n| n["Name"].as_str().unwrap_or_default().to_owned());
        let rows: Vec<_> = networks.iter().map(|n| network_row(n, !self.no_trunc)).collect();
        if self.quiet && self.format.is_none() {
            rows.iter().filter_map(|r| r["ID"].as_str()).for_each(output::line);
            return Ok(());
        }
        let default = "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}".to_owned();
        Listing { kind: "networkContext", default, headers: NETWORK_HEADERS, rows }.print(self.format.as_deref())
    }
}

fn volume_row(volume: &Value) -> Value {
    let unknown = || Value::from("N/A");
    let data = &volume["UsageData"];
    let fields = [
        ("Name", volume["Name"].clone()),
        ("Driver", volume["Driver"].clone()),
        ("Scope", volume["Scope"].clone()),
        ("Mountpoint", volume["Mountpoint"].clone()),
        ("Labels", super::joined_labels(&volume["Labels"]).into()),
        ("Links", data["RefCount"].as_i64().map_or_else(unknown, |n| n.to_string().into())),
        ("Size", data["Size"].as_f64().map_or_else(unknown, |s| units::size(s).into())),
        ("Group", unknown()),
        ("Availability", unknown()),
        ("Status", unknown()),
    ];
    row(&fields, Some(&volume["Labels"]))
}

fn network_row(network: &Value, truncate: bool) -> Value {
    let id = network["Id"].as_str().unwrap_or_default();
    let on = |name: &str| (network[name] == true).to_string().into();
    let created = network["Created"].as_str().and_then(|t| t.parse().ok()).map(units::go_time).unwrap_or_default();
    let fields = [
        ("ID", if truncate { short_id(id) } else { id }.into()),
        ("Name", network["Name"].clone()),
        ("Driver", network["Driver"].clone()),
        ("Scope", network["Scope"].clone()),
        ("IPv4", on("EnableIPv4")),
        ("IPv6", on("EnableIPv6")),
        ("Internal", on("Internal")),
        ("Labels", super::joined_labels(&network["Labels"]).into()),
        ("CreatedAt", created.into()),
    ];
    row(&fields, Some(&network["Labels"]))
}

#[derive(Args, Debug)]
pub struct CreateVolume {
    /// Specify volume driver name
    #[arg(short, long, default_value = "local")]
    driver: String,
    /// Set metadata for a volume
    #[arg(long)]
    label: Vec<String>,
    /// Set driver specific options
    #[arg(short, long)]
    opt: Vec<String>,
    #[arg(value_name = "VOLUME")]
    name: Option<String>,
}

impl CreateVolume {
    pub async fn run(self, engine: &Engine) -> Outcome {
        let body = json!({
            "Name": self.name.as_deref().unwrap_or_default(),
            "Driver": self.driver,
            "DriverOpts": values::pairs(&self.opt),
            "Labels": values::pairs(&self.label),
        });
        let volume = engine.post("/volumes/create").json(&body).value().await?;
        output::line(volume["Name"].as_str().unwrap_or_default());
        Ok(())
    }
}

#[derive(Args, Debug)]
pub struct RemoveVolume {
    /// Force the removal of one or more volumes
    #[arg(short, long)]
    force: bool,
    #[arg(required = true, value_name = "VOLUME")]
    volumes: Vec<String>,
}

impl RemoveVolume {
    pub async fn run(self, engine: &Engine) -> Outcome {
        for_each(&self.volumes, async |name| {
            let call = engine.call(http::Method::DELETE, format!("/volumes/{}", escape(&name)));
            call.flag("force", self.force).send().await?;
            output::line(name);
            Ok(())
        })
        .await
    }
}
