//! `ps` (`container ls`).

use clap::Args;
use serde_json::Value;

use crate::engine::Engine;
use crate::failure::Outcome;
use crate::filters::Filters;
use crate::format::table::{Listing, row};
use crate::reference::short_id;
use crate::{output, units};

#[derive(Args, Debug)]
pub struct Ps {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    all: bool,
    /// Filter output based on conditions provided
    #[arg(short, long)]
    filter: Vec<String>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long)]
    format: Option<String>,
    /// Show n last created containers (includes all states)
    #[arg(short = 'n', long, allow_hyphen_values = true, default_value_t = -1)]
    last: i64,
    /// Show the latest created container (includes all states)
    #[arg(short, long)]
    latest: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only display container IDs
    #[arg(short, long)]
    quiet: bool,
    /// Display total file sizes
    #[arg(short, long)]
    size: bool,
}

pub const HEADERS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Names", "NAMES"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
];

impl Ps {
    pub async fn run(self, engine: &Engine) -> Outcome {
        let filters = Filters::parse(&self.filter)?;
        let limit = if self.latest && self.last == -1 { 1 } else { self.last };
        let sized = self.size || self.format.as_deref().is_some_and(|f| f.contains(".Size"));
        let call = engine.get("/containers/json").flag("all", self.all).flag("size", sized);
        let call = call.maybe("limit", (limit > 0).then_some(limit)).maybe("filters", filters.query());
        let containers = call.value().await?;
        let containers = containers.as_array().cloned().unwrap_or_default();
        if self.quiet && self.format.is_none() {
            for container in &containers {
                let id = container["Id"].as_str().unwrap_or_default();
                output::line(if self.no_trunc { id } else { short_id(id) });
            }
            return Ok(());
        }
        let mut default =
            "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}".to_owned();
        if self.size {
            default += "\t{{.Size}}";
        }
        let rows = containers.iter().map(|c| container_row(c, !self.no_trunc)).collect();
        Listing { kind: "ContainerContext", default, headers: HEADERS, rows }.print(self.format.as_deref())
    }
}

/// One container as `ps` shows it.
pub fn container_row(container: &Value, truncate: bool) -> Value {
    let text = |name: &str| container[name].as_str().unwrap_or_default().to_owned();
    let id = text("Id");
    let created = container["Created"].as_i64().unwrap_or(0);
    let created_at = jiff::Timestamp::from_second(created).map(units::go_time).unwrap_or_default();
    let command = if truncate { ellipsis(&text("Command"), 20) } else { text("Command") };
    let mounts = container["Mounts"].as_array().cloned().unwrap_or_default();
    let local = mounts.iter().filter(|m| m["Driver"] == "local").count();
    let networks = container["NetworkSettings"]["Networks"].as_object();
    let networks: Vec<_> = networks.into_iter().flat_map(|n| n.keys().cloned()).collect();
    let fields = [
        ("ID", if truncate { short_id(&id).into() } else { id.into() }),
        ("Names", names(container, truncate).into()),
        ("Image", image(container, truncate).into()),
        ("Command", dockerfile::quote(&command).into()),
        ("CreatedAt", created_at.into()),
        ("RunningFor", units::ago(created).into()),
        ("Ports", ports(container).into()),
        ("State", text("State").into()),
        ("Status", text("Status").into()),
        ("Size", size(container).into()),
        ("Labels", super::joined_labels(&container["Labels"]).into()),
        ("Mounts", mount_names(&mounts, truncate).into()),
        ("LocalVolumes", local.to_string().into()),
        ("Networks", networks.join(",").into()),
        ("Platform", container["ImageManifestDescriptor"]["platform"].clone()),
    ];
    row(&fields, Some(&container["Labels"]))
}

fn names(container: &Value, truncate: bool) -> String {
    let names = container["Names"].as_array().cloned().unwrap_or_default();
    let names = names.iter().filter_map(Value::as_str).map(|n| n.trim_start_matches('/'));
    // A name with a slash is a link's.
    names.filter(|n| !truncate || !n.contains('/')).collect::<Vec<_>>().join(",")
}

fn image(container: &Value, truncate: bool) -> String {
    let image = container["Image"].as_str().unwrap_or_default();
    if image.is_empty() {
        return "<no image>".into();
    }
    if !truncate {
        return image.to_owned();
    }
    let id = container["ImageID"].as_str().unwrap_or_default();
    if image == id || short_id(id) == short_id(image) && image.len() > 12 {
        return short_id(id).to_owned();
    }
    image.split_once('@').map_or(image, |(name, _)| name).to_owned()
}

fn size(container: &Value) -> String {
    let (own, whole) = (container["SizeRw"].as_f64().unwrap_or(0.0), container["SizeRootFs"].as_f64().unwrap_or(0.0));
    match whole > 0.0 {
        true => format!("{} (virtual {})", units::size3(own), units::size3(whole)),
        false => units::size3(own),
    }
}

fn mount_names(mounts: &[Value], truncate: bool) -> String {
    let name = |mount: &Value| {
        let name = mount["Name"].as_str().filter(|n| !n.is_empty()).or(mount["Source"].as_str()).unwrap_or_default();
        if truncate { ellipsis(name, 15) } else { name.to_owned() }
    };
    mounts.iter().map(name).collect::<Vec<_>>().join(",")
}

/// `0.0.0.0:8080->80/tcp, 81/tcp`.
fn ports(container: &Value) -> String {
    let ports = container["Ports"].as_array().cloned().unwrap_or_default();
    let mut shown: Vec<(u64, String)> = ports
        .iter()
        .map(|port| {
            let private = port["PrivatePort"].as_u64().unwrap_or(0);
            let protocol = port["Type"].as_str().unwrap_or("tcp");
            let text = match (port["IP"].as_str().filter(|ip| !ip.is_empty()), port["PublicPort"].as_u64()) {
                (Some(ip), Some(public)) if ip.contains(':') => format!("[{ip}]:{public}->{private}/{protocol}"),
                (Some(ip), Some(public)) => format!("{ip}:{public}->{private}/{protocol}"),
                _ => format!("{private}/{protocol}"),
            };
            (private, text)
        })
        .collect();
    shown.sort();
    shown.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(", ")
}

/// Docker's shortening: the last of `width` characters is an ellipsis.
pub fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}
