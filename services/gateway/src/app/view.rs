//! Records as the Engine API shows them.

use engine_api::time;
use model::short_id;
use prost::Message as _;
use proto::ContainerState;
use serde_json::{Map, Value, json};

use super::images::{Image, config_of, repository_of, size_of};
use super::{Failure, Outcome};

pub fn status_of(container: &metadata::Container) -> proto::ContainerStatus {
    proto::ContainerStatus::decode(container.status.as_slice()).unwrap_or_default()
}

pub fn spec_of(container: &metadata::Container) -> proto::ContainerSpec {
    proto::ContainerSpec::decode(container.spec.as_slice()).unwrap_or_default()
}

pub fn state_word(state: ContainerState) -> &'static str {
    match state {
        ContainerState::Created => "created",
        ContainerState::Running => "running",
        ContainerState::Paused => "paused",
        ContainerState::Restarting => "restarting",
        ContainerState::Removing => "removing",
        ContainerState::Exited => "exited",
        ContainerState::Dead => "dead",
    }
}

/// The STATUS column of docker ps.
pub fn status_words(status: &proto::ContainerStatus, now_ns: i64) -> String {
    let since = |from: i64| duration((now_ns - from) / 1_000_000_000);
    match status.state() {
        ContainerState::Created => "Created".to_owned(),
        ContainerState::Running => match health_word(status) {
            "none" => format!("Up {}", since(status.started_at_ns)),
            "starting" => format!("Up {} (health: starting)", since(status.started_at_ns)),
            word => format!("Up {} ({word})", since(status.started_at_ns)),
        },
        ContainerState::Paused => format!("Up {} (Paused)", since(status.started_at_ns)),
        ContainerState::Restarting => format!("Restarting ({}) {} ago", status.exit_code, since(status.finished_at_ns)),
        ContainerState::Removing => "Removal In Progress".to_owned(),
        ContainerState::Exited => format!("Exited ({}) {} ago", status.exit_code, since(status.finished_at_ns)),
        ContainerState::Dead => "Dead".to_owned(),
    }
}

/// Whether a container is well, in the word of the health filter.
pub fn health_word(status: &proto::ContainerStatus) -> &'static str {
    match status.health.as_ref().map(proto::Health::status) {
        None => "none",
        Some(proto::health::Status::Starting) => "starting",
        Some(proto::health::Status::Healthy) => "healthy",
        Some(proto::health::Status::Unhealthy) => "unhealthy",
    }
}

fn health(status: &proto::ContainerStatus) -> Option<Value> {
    let proto::Health { status: _, failing_streak, log } = status.health.as_ref()?;
    let look = |look: &proto::HealthLook| {
        let proto::HealthLook { started_at_ns, ended_at_ns, exit_code, output } = look;
        json!({"Start": time(*started_at_ns), "End": time(*ended_at_ns), "ExitCode": exit_code, "Output": output})
    };
    let log: Vec<Value> = log.iter().map(look).collect();
    Some(json!({"Status": health_word(status), "FailingStreak": failing_streak, "Log": log}))
}

/// A length of time in Docker's words.
fn duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 14 => format!("{} days", hours / 24),
        () if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

/// Where a container is in its network; only the network's name and id outlive its process.
fn endpoint(status: &proto::ContainerStatus) -> proto::NetworkEndpoint {
    let endpoint = status.network.clone().unwrap_or_default();
    if super::containers::is_up(status.state()) {
        return endpoint;
    }
    let proto::NetworkEndpoint { network_id, network_name, .. } = endpoint;
    proto::NetworkEndpoint { network_id, network_name, ..Default::default() }
}

fn networks(spec: &proto::ContainerSpec, status: &proto::ContainerStatus) -> Value {
    let endpoint = endpoint(status);
    let name = match spec.network_mode.as_str() {
        mode if mode.starts_with("container:") => return json!({}),
        mode => mode,
    };
    json!({name: {
        "IPAMConfig": null, "Links": null, "Aliases": null, "MacAddress": endpoint.mac_address, "DriverOpts": null,
        "GwPriority": 0, "NetworkID": endpoint.network_id, "EndpointID": endpoint.endpoint_id,
        "Gateway": endpoint.gateway, "IPAddress": endpoint.ip_address, "IPPrefixLen": endpoint.ip_prefix_len,
        "IPv6Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "DNSNames": null
    }})
}

fn mount_points(status: &proto::ContainerStatus) -> Value {
    let points = status.mounts.iter().map(|mount| {
        let mut point = Map::from_iter([("Type".to_owned(), mount.r#type.clone().into())]);
        if !mount.name.is_empty() {
            point.insert("Name".into(), mount.name.clone().into());
        }
        point.insert("Source".into(), mount.source.clone().into());
        point.insert("Destination".into(), mount.target.clone().into());
        if !mount.driver.is_empty() {
            point.insert("Driver".into(), mount.driver.clone().into());
        }
        point.insert("Mode".into(), mount.mode.clone().into());
        point.insert("RW".into(), mount.rw.into());
        point.insert("Propagation".into(), mount.propagation.clone().into());
        Value::Object(point)
    });
    points.collect()
}

/// One row of GET /containers/json; sizes only when they are known.
pub fn summary(container: &metadata::Container, image_name: &str, sizes: Option<(i64, i64)>, now_ns: i64) -> Value {
    let (spec, status) = (spec_of(container), status_of(container));
    let mut row = json!({
        "Id": container.id, "Names": [format!("/{}", container.name)], "Image": image_name,
        "ImageID": container.image_id, "Command": command_line(&spec.args), "Created": container.created_ms / 1000,
        "Ports": [], "Labels": spec.labels.iter().collect::<std::collections::BTreeMap<_, _>>(),
        "State": state_word(status.state()), "Status": status_words(&status, now_ns),
        "HostConfig": {"NetworkMode": spec.network_mode},
        "NetworkSettings": {"Networks": networks(&spec, &status)}, "Mounts": mount_points(&status)
    });
    if let Some((rw, root)) = sizes {
        row["SizeRw"] = rw.into();
        row["SizeRootFs"] = root.into();
    }
    row
}

fn command_line(args: &[String]) -> String {
    let quoted = args
        .iter()
        .map(|arg| if arg.contains(' ') { format!("'{}'", arg.replace('\'', "'\\''")) } else { arg.clone() });
    quoted.collect::<Vec<_>>().join(" ")
}

/// The folders of a container that scripts look into; those of the layers are the machine's own business.
fn graph_driver(machine_dir: &str, id: &str) -> Value {
    let own = |folder: &str| format!("{machine_dir}/containers/{id}/{folder}");
    let data = json!({"MergedDir": own("rootfs"), "UpperDir": own("upper"), "WorkDir": own("work")});
    json!({"Data": if machine_dir.is_empty() { json!({}) } else { data }, "Name": "overlay2"})
}

/// GET /containers/{id}/json.
pub fn inspect(
    container: &metadata::Container,
    machine_dir: &str,
    execs: Vec<String>,
    sizes: Option<(i64, i64)>,
) -> Value {
    let (spec, status) = (spec_of(container), status_of(container));
    let request: Value = serde_json::from_str(&container.request).unwrap_or_default();
    let state = status.state();
    let endpoint = endpoint(&status);
    let bridged = spec.network_mode == "bridge";
    let of_bridge = |text: &str| if bridged { text.to_owned() } else { String::new() };
    let mut shown = json!({
        "Id": container.id, "Created": time(container.created_ms * 1_000_000),
        "Path": spec.args.first().cloned().unwrap_or_default(), "Args": spec.args.get(1..).unwrap_or_default(),
        "State": {
            "Status": state_word(state), "Running": matches!(state, ContainerState::Running | ContainerState::Paused | ContainerState::Restarting),
            "Paused": state == ContainerState::Paused, "Restarting": state == ContainerState::Restarting,
            "OOMKilled": status.oom_killed, "Dead": state == ContainerState::Dead, "Pid": status.pid,
            "ExitCode": status.exit_code, "Error": status.error, "StartedAt": time(status.started_at_ns),
            "FinishedAt": time(status.finished_at_ns)
        },
        "Image": container.image_id, "ResolvConfPath": status.resolv_conf_path, "HostnamePath": status.hostname_path,
        "HostsPath": status.hosts_path, "LogPath": status.log_path, "Name": format!("/{}", container.name),
        "RestartCount": status.restart_count, "Driver": "overlay2", "Platform": "linux", "MountLabel": "",
        "ProcessLabel": "", "AppArmorProfile": "",
        "ExecIDs": if execs.is_empty() { Value::Null } else { json!(execs) },
        "HostConfig": request["HostConfig"],
        "GraphDriver": graph_driver(machine_dir, &container.id),
        "Mounts": mount_points(&status), "Config": request["Config"],
        "NetworkSettings": {
            "Bridge": "", "SandboxID": endpoint.sandbox_id, "SandboxKey": endpoint.sandbox_key, "Ports": {},
            "HairpinMode": false, "LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0,
            "SecondaryIPAddresses": null, "SecondaryIPv6Addresses": null,
            "EndpointID": of_bridge(&endpoint.endpoint_id), "Gateway": of_bridge(&endpoint.gateway),
            "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "IPAddress": of_bridge(&endpoint.ip_address),
            "IPPrefixLen": if bridged { endpoint.ip_prefix_len } else { 0 }, "IPv6Gateway": "",
            "MacAddress": of_bridge(&endpoint.mac_address), "Networks": networks(&spec, &status)
        }
    });
    if let Some(health) = health(&status) {
        shown["State"]["Health"] = health;
    }
    if let Some((rw, root)) = sizes {
        shown["SizeRw"] = rw.into();
        shown["SizeRootFs"] = root.into();
    }
    shown
}

/// One row of GET /images/json.
pub fn image_summary(image: &Image, containers: i64) -> Value {
    let config = config_of(image);
    json!({
        "Containers": containers, "Created": created_s(&config), "Id": image.id,
        "Labels": config.pointer("/config/Labels").cloned().unwrap_or_default(), "ParentId": image.parent_id,
        "RepoDigests": image.digests, "RepoTags": image.tags, "SharedSize": -1, "Size": size_of(image)
    })
}

/// GET /images/{name}/json.
pub fn image_inspect(image: &Image) -> Value {
    let config = config_of(image);
    let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let given = config.get("config").cloned().unwrap_or_default();
    let given = if given.is_object() { given } else { json!({}) };
    let comment =
        config["history"].as_array().and_then(|h| h.last()).and_then(|h| h["comment"].as_str()).unwrap_or_default();
    let container_config = config.get("container_config").cloned().unwrap_or(Value::Null);
    let mut shown = json!({
        "Id": image.id, "RepoTags": image.tags, "RepoDigests": image.digests, "Parent": image.parent_id,
        "Comment": if text("comment").is_empty() { comment.to_owned() } else { text("comment") },
        "Created": text("created"), "DockerVersion": text("docker_version"), "Author": text("author"),
        "Config": engine_api::fill(engine_api::image_config_defaults(), &given), "Architecture": text("architecture"), "Os": text("os"),
        "Size": size_of(image), "GraphDriver": {"Data": {}, "Name": "overlay2"},
        "RootFS": {"Type": "layers", "Layers": config.pointer("/rootfs/diff_ids").cloned().unwrap_or_default()},
        "Metadata": {"LastTagTime": time(image.recorded_ms * 1_000_000)}
    });
    if container_config.is_object() {
        shown["ContainerConfig"] = container_config;
    }
    if let Some(variant) = config.get("variant") {
        shown["Variant"] = variant.clone();
    }
    shown
}

/// GET /images/{name}/history: ids where the classic builder's parents are known.
pub fn history(image: &Image, ancestors: &[Image]) -> Value {
    let config = config_of(image);
    let entries = config["history"].as_array().cloned().unwrap_or_default();
    let mut layers = image.layers.iter();
    let sizes: Vec<u64> = entries
        .iter()
        .map(|entry| match entry["empty_layer"].as_bool().unwrap_or(false) {
            true => 0,
            false => layers.next().map_or(0, |layer| layer.content_bytes),
        })
        .collect();
    let rows = entries.iter().zip(sizes).rev().enumerate().map(|(age, (entry, size))| {
        let known = if age == 0 { Some(image) } else { ancestors.get(age - 1) };
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        json!({
            "Comment": text("comment"), "Created": seconds(&text("created")), "CreatedBy": text("created_by"),
            "Id": known.map_or("<missing>", |image| image.id.as_str()), "Size": size,
            "Tags": known.filter(|image| !image.tags.is_empty()).map(|image| image.tags.clone())
        })
    });
    rows.collect()
}

pub fn created_s(config: &Value) -> i64 {
    seconds(config["created"].as_str().unwrap_or_default())
}

fn seconds(time: &str) -> i64 {
    time.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second)
}

/// The IMAGE column of docker ps: the name as it was given while that still means this image, else the short id.
pub fn image_name_of(container: &metadata::Container, images: &[Image]) -> String {
    let given = spec_of(container).image_name;
    if container.image_id.is_empty() {
        return given;
    }
    let Some(image) = images.iter().find(|image| image.id == container.image_id) else {
        return container.image_id.clone();
    };
    let hex = given.strip_prefix("sha256:").unwrap_or(&given);
    let by_id = image.id[7..].starts_with(hex);
    let named = given.parse::<model::ImageRef>().is_ok_and(|name| is_called(image, &name));
    if named || by_id { given } else { short_id(&image.id).to_owned() }
}

/// Whether the name means the image: by its digest where it has one, else by its tag.
pub fn is_called(image: &Image, name: &model::ImageRef) -> bool {
    match name.digest() {
        Some(_) => image.digests.contains(&name.clone().without_tag().familiar()),
        None => image.tags.contains(&name.clone().or_latest().familiar()),
    }
}

/// A pattern of the reference filter: `name`, `name:tag`, `na*`.
pub fn matches_reference(tag: &str, pattern: &str) -> bool {
    glob(pattern, tag) || glob(pattern, repository_of(tag))
}

/// Docker's filter by name is a regular expression; plain text with `^`, `/` and `$` at its ends is what people write.
pub fn matches_name(name: &str, pattern: &str) -> bool {
    let from_start = pattern.strip_prefix('^');
    let rest = from_start.unwrap_or(pattern);
    let (rest, to_end) = rest.strip_suffix('$').map_or((rest, false), |rest| (rest, true));
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    match (from_start.is_some(), to_end) {
        (true, true) => name == rest,
        (true, false) => name.starts_with(rest),
        (false, true) => name.ends_with(rest),
        (false, false) => name.contains(rest),
    }
}

pub fn glob(pattern: &str, text: &str) -> bool {
    match pattern.find(['*', '?']) {
        None => pattern == text,
        Some(at) => {
            let (head, rest) = pattern.split_at(at);
            let Some(tail) = text.strip_prefix(head) else { return false };
            match rest.as_bytes()[0] {
                b'?' => tail.chars().next().is_some_and(|c| c != '/' && glob(&rest[1..], &tail[c.len_utf8()..])),
                _ => tail
                    .char_indices()
                    .map(|(i, _)| i)
                    .chain([tail.len()])
                    .take_while(|&i| !tail[..i].contains('/'))
                    .any(|i| glob(&rest[1..], &tail[i..])),
            }
        }
    }
}

/// `--change` of import and commit: Dockerfile instructions on the config.
pub fn with_changes(mut config: Value, changes: &[String]) -> Outcome<Value> {
    for change in changes.iter().flat_map(|change| change.lines()).filter(|line| !line.trim().is_empty()) {
        let (word, rest) = change.trim().split_once(char::is_whitespace).unwrap_or((change.trim(), ""));
        let rest = rest.trim();
        let words = || match serde_json::from_str::<Vec<String>>(rest) {
            Ok(words) => json!(words),
            Err(_) => json!(["/bin/sh", "-c", rest]),
        };
        match word.to_ascii_uppercase().as_str() {
            "CMD" => config["config"]["Cmd"] = words(),
            "ENTRYPOINT" => config["config"]["Entrypoint"] = words(),
            "USER" => config["config"]["User"] = rest.into(),
            "WORKDIR" => config["config"]["WorkingDir"] = rest.into(),
            "STOPSIGNAL" => config["config"]["StopSignal"] = rest.into(),
            "ENV" => {
                let (name, value) = rest.split_once('=').or_else(|| rest.split_once(' ')).unwrap_or((rest, ""));
                let entry = format!("{name}={}", value.trim_matches('"'));
                let mut env = config["config"]["Env"].as_array().cloned().unwrap_or_default();
                env.retain(|old| !old.as_str().unwrap_or_default().starts_with(&format!("{name}=")));
                env.push(entry.into());
                config["config"]["Env"] = env.into();
            }
            "LABEL" => {
                let (name, value) = rest.split_once('=').unwrap_or((rest, ""));
                config["config"]["Labels"][name.trim_matches('"')] = value.trim_matches('"').into();
            }
            "EXPOSE" => {
                for port in rest.split_whitespace() {
                    let port = if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") };
                    config["config"]["ExposedPorts"][port] = json!({});
                }
            }
            "VOLUME" => match serde_json::from_str::<Vec<String>>(rest) {
                Ok(paths) => paths.iter().for_each(|path| config["config"]["Volumes"][path.as_str()] = json!({})),
                Err(_) => config["config"]["Volumes"][rest] = json!({}),
            },
            "ONBUILD" => {
                let mut list = config["config"]["OnBuild"].as_array().cloned().unwrap_or_default();
                list.push(rest.into());
                config["config"]["OnBuild"] = list.into();
            }
            _ => return Err(Failure::invalid(format!("{word} is not a valid change command"))),
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, text, matches) in
            [("bb", "bb", true), ("b*", "bb", true), ("b*", "a/b", false), ("?b", "bb", true), ("b", "bb", false)]
        {
            assert_eq!(glob(pattern, text), matches, "{pattern} {text}");
        }
        assert!(
            matches_reference("bb:1", "bb") && matches_reference("bb:1", "bb:*") && !matches_reference("bb:1", "b")
        );
    }

    #[test]
    fn names_match_at_the_marked_ends() {
        for (pattern, matches) in
            [("eb", true), ("/web", true), ("^web$", true), ("^/web$", true), ("^eb", false), ("we$", false)]
        {
            assert_eq!(matches_name("web", pattern), matches, "{pattern}");
        }
    }

    #[test]
    fn times_are_told_as_docker_tells_them() {
        for (seconds, words) in [
            (0, "Less than a second"),
            (5, "5 seconds"),
            (61, "About a minute"),
            (3600, "About an hour"),
            (90000, "25 hours"),
        ] {
            assert_eq!(duration(seconds), words);
        }
    }

    #[test]
    fn changes_are_laid_over_a_config() {
        let config = with_changes(json!({"config": {}}), &["CMD [\"a\"]".into(), "ENV X=1".into(), "LABEL a=b".into()]);
        assert_eq!(config.ok(), Some(json!({"config": {"Cmd": ["a"], "Env": ["X=1"], "Labels": {"a": "b"}}})));
        assert!(with_changes(json!({}), &["RUN x".into()]).is_err());
    }
}
