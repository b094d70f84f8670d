//! Short looks into a container: top, diff, port.

use clap::Args;
use serde_json::Value;

use crate::engine::{Engine, escape};
use crate::failure::{Failure, Outcome};
use crate::format::table::aligned;
use crate::output;

#[derive(Args, Debug)]
pub struct Top {
    #[arg(required = true, trailing_var_arg = true, value_name = "CONTAINER [ps OPTIONS]")]
    container_and_options: Vec<String>,
}

impl Top {
    pub async fn run(self, engine: &Engine) -> Outcome {
        let (container, options) =
            self.container_and_options.split_first().ok_or_else(|| Failure::new("no container"))?;
        let call = engine.get(format!("/containers/{}/top", escape(container)));
        let list = call.maybe("ps_args", (!options.is_empty()).then(|| options.join(" "))).value().await?;
        let cells = |row: &Value| {
            let cells = row.as_array().cloned().unwrap_or_default();
            cells.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\t")
        };
        let mut text = cells(&list["Titles"]) + "\n";
        for process in list["Processes"].as_array().into_iter().flatten() {
            text += &(cells(process) + "\n");
        }
        output::write(aligned(&text, 20)?.as_bytes());
        Ok(())
    }
}

#[derive(Args, Debug)]
pub struct Diff {
    container: String,
}

impl Diff {
    pub async fn run(self, engine: &Engine) -> Outcome {
        let changes = engine.get(format!("/containers/{}/changes", escape(&self.container))).value().await?;
        for change in changes.as_array().into_iter().flatten() {
            let kind = match change["Kind"].as_i64() {
                Some(0) => 'C',
                Some(1) => 'A',
                _ => 'D',
            };
            output::line(format!("{kind} {}", change["Path"].as_str().unwrap_or_default()));
        }
        Ok(())
    }
}

#[derive(Args, Debug)]
pub struct Port {
    container: String,
    #[arg(value_name = "PRIVATE_PORT[/PROTO]")]
    port: Option<String>,
}

impl Port {
    pub async fn run(self, engine: &Engine) -> Outcome {
        let container = engine.get(format!("/containers/{}/json", escape(&self.container))).value().await?;
        let wanted = self.port.as_ref().map(|p| if p.contains('/') { p.clone() } else { format!("{p}/tcp") });
        let ports = container["NetworkSettings"]["Ports"].as_object().cloned().unwrap_or_default();
        let mut lines = Vec::new();
        for (port, bindings) in ports.iter().filter(|(p, _)| wanted.as_ref().is_none_or(|w| w == *p)) {
            for binding in bindings.as_array().into_iter().flatten() {
                let ip = binding["HostIp"].as_str().unwrap_or_default();
                let ip = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
                let address = format!("{ip}:{}", binding["HostPort"].as_str().unwrap_or_default());
                lines.push(if wanted.is_some() { address } else { format!("{port} -> {address}") });
            }
        }
        if let (Some(wanted), true) = (&wanted, lines.is_empty()) {
            return Err(Failure::new(format!("no public port '{wanted}' published for {}", self.container)));
        }
        lines.sort();
        lines.iter().for_each(output::line);
        Ok(())
    }
}
