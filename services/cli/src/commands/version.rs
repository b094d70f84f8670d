//! `version` and `info`.

use clap::Args;
use model::Platform;
use serde_json::{Value, json};

use crate::engine::{API_VERSION, Engine};
use crate::failure::{Failure, Outcome};
use crate::format::functions::go_json;
use crate::format::template::{Template, no_entry};
use crate::{output, units};

#[derive(Args, Debug)]
pub struct Version {
    /// Format output using a custom template: 'json' or 'TEMPLATE'
    #[arg(short, long)]
    format: Option<String>,
}

impl Version {
    pub async fn run(self, engine: &Engine) -> Outcome {
        let server = async {
            engine.version().await?;
            engine.get("/version").value().await
        };
        let (server, failure) = match server.await {
            Ok(server) => (server, None),
            Err(failure) => (Value::Null, Some(failure)),
        };
        let api = engine.version().await.unwrap_or(API_VERSION).to_owned();
        let client = json!({
            "Version": env!("CARGO_PKG_VERSION"), "ApiVersion": api, "DefaultAPIVersion": API_VERSION,
            "Os": std::env::consts::OS, "Arch": Platform::host().architecture, "Context": "default",
        });
        match self.format.as_deref() {
            None => output::write(text(&client, &server).as_bytes()),
            Some("json") => output::line(go_json(&json!({"Client": client, "Server": server}))),
            Some(format) => print_template(format, &json!({"Client": client, "Server": server}))?,
        }
        failure.map_or(Ok(()), Err)
    }
}

fn print_template(format: &str, value: &Value) -> Outcome {
    let failed = |e: String| Failure::new(format!("template parsing error: {e}")).code(64);
    output::line(Template::parse(format).and_then(|t| t.render(value, no_entry)).map_err(failed)?);
    Ok(())
}

/// The C library's form of a time; anything else is shown as it came.
fn built(text: &str) -> String {
    let time = text.parse::<jiff::Timestamp>().map(|t| t.to_zoned(jiff::tz::TimeZone::UTC));
    time.map_or_else(|_| text.to_owned(), |t| t.strftime("%a %b %e %H:%M:%S %Y").to_string())
}

fn text(client: &Value, server: &Value) -> String {
    let get = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let api = get(client, "ApiVersion");
    let note = if api == API_VERSION { String::new() } else { format!(" (downgraded from {API_VERSION})") };
    let mut out = format!(
        "Client: Boxyard\n Version:           {}\n API version:       {api}{note}\n OS/Arch:           {}/{}\n Context:           default\n",
        get(client, "Version"),
        get(client, "Os"),
        get(client, "Arch"),
    );
    if server.is_null() {
        return out;
    }
    let platform = server["Platform"]["Name"].as_str().unwrap_or_default();
    out += &format!("\nServer:{}{platform}\n", if platform.is_empty() { "" } else { " " });
    for component in server["Components"].as_array().into_iter().flatten() {
        let name = get(component, "Name");
        out += &format!(" {name}:\n  {:<18}{}\n", "Version:", get(component, "Version"));
        let details = &component["Details"];
        if name == "Engine" {
            let date = built(&get(details, "BuildTime"));
            out += &format!(
                "  API version:      {} (minimum version {})\n",
                get(details, "ApiVersion"),
                get(details, "MinAPIVersion")
            );
            out += &format!("  {:<18}{}\n", "Go version:", get(details, "GoVersion"));
            out += &format!("  {:<18}{}\n", "Git commit:", get(details, "GitCommit"));
            out += &format!("  {:<18}{}\n", "Built:", date);
            out += &format!("  {:<18}{}/{}\n", "OS/Arch:", get(details, "Os"), get(details, "Arch"));
            out += &format!("  {:<18}{}\n", "Experimental:", get(details, "Experimental"));
            continue;
        }
        let mut details: Vec<_> = details.as_object().into_iter().flatten().collect();
        details.sort_by_key(|(name, _)| *name);
        for (name, value) in details {
            out += &format!("  {:<18}{}\n", format!("{name}:"), value.as_str().unwrap_or_default());
        }
    }
    out
}

#[derive(Args, Debug)]
pub struct Info {
    /// Format output using a custom template: 'json' or 'TEMPLATE'
    #[arg(short, long)]
    format: Option<String>,
}

impl Info {
    pub async fn run(self, engine: &Engine) -> Outcome {
        let mut info = engine.get("/info").value().await?;
        match self.format.as_deref() {
            None => output::write(info_text(&info).as_bytes()),
            Some(format) => {
                let client = json!({"Version": env!("CARGO_PKG_VERSION"), "Context": "default", "Debug": false});
                if let Some(map) = info.as_object_mut() {
                    map.insert("ClientInfo".into(), client);
                }
                if format == "json" {
                    output::line(go_json(&info));
                } else {
                    print_template(format, &info)?;
                }
            }
        }
        for warning in info["Warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            output::error(format!("{warning}\n").as_bytes());
        }
        Ok(())
    }
}

fn info_text(info: &Value) -> String {
    let mut out = format!(
        "Client: Boxyard\n Version:    {}\n Context:    default\n Debug Mode: false\n\nServer:\n",
        env!("CARGO_PKG_VERSION")
    );
    let text = |name: &str| info[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| info[name].as_i64().unwrap_or(0);
    let list = |value: &Value| {
        let items = value.as_array().cloned().unwrap_or_default();
        items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
    };
    let mut line = |text: String| out += &format!("{text}\n");
    line(format!(" Containers: {}", number("Containers")));
    line(format!("  Running: {}", number("ContainersRunning")));
    line(format!("  Paused: {}", number("ContainersPaused")));
    line(format!("  Stopped: {}", number("ContainersStopped")));
    line(format!(" Images: {}", number("Images")));
    line(format!(" Server Version: {}", text("ServerVersion")));
    line(format!(" Storage Driver: {}", text("Driver")));
    for pair in info["DriverStatus"].as_array().into_iter().flatten() {
        line(format!("  {}: {}", pair[0].as_str().unwrap_or_default(), pair[1].as_str().unwrap_or_default()));
    }
    line(format!(" Logging Driver: {}", text("LoggingDriver")));
    line(format!(" Cgroup Driver: {}", text("CgroupDriver")));
    line(format!(" Cgroup Version: {}", text("CgroupVersion")));
    line(" Plugins:".into());
    for kind in ["Volume", "Network", "Authorization", "Log"] {
        let plugins = list(&info["Plugins"][kind]);
        if kind != "Authorization" || !plugins.is_empty() {
            line(format!("  {kind}: {plugins}"));
        }
    }
    line(format!(" Swarm: {}", info["Swarm"]["LocalNodeState"].as_str().unwrap_or("inactive")));
    let mut runtimes: Vec<_> = info["Runtimes"].as_object().into_iter().flat_map(|r| r.keys().cloned()).collect();
    runtimes.sort();
    line(format!(" Runtimes: {}", runtimes.join(" ")));
    line(format!(" Default Runtime: {}", text("DefaultRuntime")));
    line(format!(" Init Binary: {}", text("InitBinary")));
    for (name, field) in [("containerd", "ContainerdCommit"), ("runc", "RuncCommit"), ("init", "InitCommit")] {
        line(format!(" {name} version: {}", info[field]["ID"].as_str().unwrap_or_default()));
    }
    let options = info["SecurityOptions"].as_array().cloned().unwrap_or_default();
    if !options.is_empty() {
        line(" Security Options:".into());
        for option in options.iter().filter_map(Value::as_str) {
            for (i, part) in option.split(',').enumerate() {
                let (name, value) = part.split_once('=').unwrap_or(("", part));
                match (i, name) {
                    (0, _) => line(format!("  {value}")),
                    (_, "profile") => line(format!("   Profile: {value}")),
                    _ => line(format!("   {name}: {value}")),
                }
            }
        }
    }
    line(format!(" Kernel Version: {}", text("KernelVersion")));
    line(format!(" Operating System: {}", text("OperatingSystem")));
    line(format!(" OSType: {}", text("OSType")));
    line(format!(" Architecture: {}", text("Architecture")));
    line(format!(" CPUs: {}", number("NCPU")));
    line(format!(" Total Memory: {}", units::binary_size(number("MemTotal") as f64)));
    line(format!(" Name: {}", text("Name")));
    line(format!(" ID: {}", text("ID")));
    line(format!(" Docker Root Dir: {}", text("DockerRootDir")));
    line(format!(" Debug Mode: {}", info["Debug"] == true));
    line(format!(" Experimental: {}", info["ExperimentalBuild"] == true));
    let registry = &info["RegistryConfig"];
    let mut insecure: Vec<String> = Vec::new();
    for (name, index) in registry["IndexConfigs"].as_object().into_iter().flatten() {
        if index["Secure"] == false {
            insecure.push(name.clone());
        }
    }
    insecure.extend(
        registry["InsecureRegistryCIDRs"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|c| c.as_str().map(str::to_owned)),
    );
    if !insecure.is_empty() {
        line(" Insecure Registries:".into());
        insecure.iter().for_each(|i| line(format!("  {i}")));
    }
    line(format!(" Live Restore Enabled: {}", info["LiveRestoreEnabled"] == true));
    if !text("ProductLicense").is_empty() {
        line(format!(" Product License: {}", text("ProductLicense")));
    }
    out + "\n"
}
