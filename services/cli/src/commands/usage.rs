//! `system df -v`: the tables by kind.

use serde_json::Value;

use super::ps::container_row;
use crate::failure::Outcome;
use crate::format::table::aligned;
use crate::reference::short_id;
use crate::{output, units};

pub fn print(usage: &Value) -> Outcome {
    let list = |name: &str| usage[name].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = |value: &Value| value.as_f64().unwrap_or(0.0).max(0.0);
    let mut rows = "REPOSITORY\tTAG\tIMAGE ID\tCREATED\tSIZE\tSHARED SIZE\tUNIQUE SIZE\tCONTAINERS\n".to_owned();
    for image in list("Images") {
        let name = image["RepoTags"][0].as_str().unwrap_or("<none>:<none>").to_owned();
        let (repository, tag) = name.rsplit_once(':').unwrap_or((&name, "<none>"));
        let (size, shared) = (number(&image["Size"]), number(&image["SharedSize"]));
        rows += &format!(
            "{repository}\t{tag}\t{}\t{}\t{}\t{}\t{}\t{}\n",
            short_id(&text(&image["Id"])),
            units::ago(image["Created"].as_i64().unwrap_or(0)),
            units::size3(size),
            units::size(shared),
            units::size(size - shared),
            number(&image["Containers"]),
        );
    }
    let mut out = format!("Images space usage:\n\n{}", aligned(&rows, 10)?);
    let mut rows = "CONTAINER ID\tIMAGE\tCOMMAND\tLOCAL VOLUMES\tSIZE\tCREATED\tSTATUS\tNAMES\n".to_owned();
    for container in list("Containers") {
        let row = container_row(&container, true);
        let cells = ["ID", "Image", "Command", "LocalVolumes"].map(|name| text(&row[name]));
        let size = units::size3(number(&container["SizeRw"]));
        let rest = ["RunningFor", "Status", "Names"].map(|name| text(&row[name]));
        rows += &format!("{}\t{size}\t{}\n", cells.join("\t"), rest.join("\t"));
    }
    out += &format!("\nContainers space usage:\n\n{}", aligned(&rows, 10)?);
    let mut rows = "VOLUME NAME\tLINKS\tSIZE\n".to_owned();
    for volume in list("Volumes") {
        let data = &volume["UsageData"];
        rows += &format!(
            "{}\t{}\t{}\n",
            text(&volume["Name"]),
            number(&data["RefCount"]),
            units::size(number(&data["Size"]))
        );
    }
    out += &format!("\nLocal Volumes space usage:\n\n{}", aligned(&rows, 10)?);
    let cache = list("BuildCache");
    let total: f64 = cache.iter().filter(|c| c["Shared"] != true).map(|c| number(&c["Size"])).sum();
    let mut rows = "CACHE ID\tCACHE TYPE\tSIZE\tCREATED\tLAST USED\tUSAGE\tSHARED\n".to_owned();
    for entry in &cache {
        let since = |name: &str| units::ago(units::unix_seconds(&text(&entry[name])));
        rows += &format!(
            "{}\t{}\t{}\t{}\t{}\t{}\t{}\n",
            text(&entry["ID"]).chars().take(12).collect::<String>(),
            text(&entry["Type"]),
            units::size(number(&entry["Size"])),
            since("CreatedAt"),
            since("LastUsedAt"),
            number(&entry["UsageCount"]),
            entry["Shared"] == true,
        );
    }
    out += &format!("\nBuild cache usage: {}\n\n{}", units::size(total), aligned(&rows, 10)?);
    output::write(out.as_bytes());
    Ok(())
}
