//! Lists of containers and images with their filters.

use std::collections::HashSet;

use proto::ContainerState;
use serde_json::Value;

use super::builds::label_of;
use super::containers::{Container, is_up};
use super::filters::Filters;
use super::images::{Image, config_of};
use super::remove_image::{has_name, is_of_other_platform};
use super::system::SharedLayers;
use super::{App, Failure, Outcome, nodes, now_ns, view};

const STATES: [&str; 7] = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
const HEALTHS: [&str; 4] = ["none", "starting", "healthy", "unhealthy"];

/// What GET /containers/json was asked for.
#[derive(Clone, Copy, Default)]
pub struct Shown {
    /// Those that are not running too.
    pub all: bool,
    pub limit: Option<usize>,
    pub size: bool,
}

/// What GET /images/json was asked for.
#[derive(Clone, Copy)]
pub struct ShownImages {
    /// Intermediate ones too.
    pub all: bool,
    /// How many bytes each shares with others.
    pub shared_size: bool,
    /// How many containers stand on each.
    pub containers: bool,
}

impl App {
    pub async fn list_containers(&self, filters: &Filters, shown: Shown) -> Outcome<Value> {
        if let Some(state) = filters.values("status").find(|state| !STATES.contains(state)) {
            return Err(Failure::invalid(format!(
                "invalid filter 'status={state}': invalid value for state ({state}): must be one of {}",
                STATES.join(", ")
            )));
        }
        if let Some(code) = filters.values("exited").find(|code| code.parse::<i32>().is_err()) {
            return Err(Failure::invalid(format!(
                "invalid filter 'exited={code}': strconv.Atoi: parsing \"{code}\": invalid syntax"
            )));
        }
        if let Some(health) = filters.values("health").find(|health| !HEALTHS.contains(health)) {
            return Err(Failure::invalid(format!(
                "invalid filter 'health={health}': invalid value for health ({health}): must be one of {}",
                HEALTHS.join(", ")
            )));
        }
        let is_task = filters.flag("is-task")?;
        let all = shown.all || shown.limit.is_some() || filters.has("status") || filters.has("exited");
        let images = self.db.images().await?;
        let containers = self.db.containers().await?;
        let mut bounds = (i64::MIN, i64::MAX);
        for wanted in filters.values("since") {
            bounds.0 = bounds.0.max(self.find_container(wanted).await?.created_ms);
        }
        for wanted in filters.values("before") {
            bounds.1 = bounds.1.min(self.find_container(wanted).await?.created_ms);
        }
        let mut kept: Vec<Container> = containers
            .into_iter()
            .filter(|c| c.created_ms > bounds.0 && c.created_ms < bounds.1 && matches(c, filters, &images, all))
            // Tasks are swarm's.
            .filter(|_| is_task != Some(true))
            .collect();
        if let Some(limit) = shown.limit {
            kept.truncate(limit);
        }
        let sizes = if shown.size { self.sizes(&kept).await? } else { Default::default() };
        let now = now_ns();
        let row = |c: &Container| view::summary(c, &view::image_name_of(c, &images), sizes.get(&c.id).copied(), now);
        let living = self.known_nodes().await;
        let mut rows: Vec<Value> = kept.iter().map(row).collect();
        for (shown, container) in rows.iter_mut().zip(&kept) {
            let is_up = is_up(view::status_of(container).state());
            if is_up && let Some(lost) = nodes::lost(&living, &container.node_id) {
                let words = shown["Status"].as_str().unwrap_or_default();
                shown["Status"] = format!("{words} ({lost})").into();
            }
        }
        Ok(Value::Array(rows))
    }

    /// GET /images/json: intermediate images only with `all`.
    pub async fn list_images(&self, filters: &Filters, shown: ShownImages) -> Outcome<Value> {
        let all = shown.all;
        let dangling = filters.flag("dangling")?;
        let until = filters.until_ms(metadata::now_ms())?;
        let images = self.db.images().await?;
        let shared = if shown.shared_size { Some(SharedLayers::of(&images)) } else { None };
        let containers = if shown.containers { Some(self.db.containers().await?) } else { None };
        let parents: HashSet<String> = images.iter().map(|image| image.parent_id.clone()).collect();
        let mut bounds = (i64::MIN, i64::MAX);
        for name in filters.values("since") {
            bounds.0 = bounds.0.max(view::created_s(&config_of(&self.find_image(name).await?)));
        }
        for name in filters.values("before") {
            bounds.1 = bounds.1.min(view::created_s(&config_of(&self.find_image(name).await?)));
        }
        let mut rows = Vec::new();
        for mut image in images {
            // Its name is listed once, for the platform that it runs on here.
            if is_of_other_platform(&image) && !all {
                continue;
            }
            let nameless = !has_name(&image);
            let is_parent = parents.contains(&image.id);
            let fits = match dangling {
                None => true,
                Some(true) => image.tags.is_empty() && image.platform_of.is_empty() && !is_parent,
                Some(false) => !nameless,
            };
            if filters.has("reference") {
                let wanted = |name: &String| filters.any("reference", |pattern| view::matches_reference(name, pattern));
                image.tags.retain(wanted);
                image.digests.retain(wanted);
                if !has_name(&image) {
                    continue;
                }
            }
            let config = config_of(&image);
            let at = view::created_s(&config);
            let labels = |name: &str, value: Option<&str>| {
                label_of(&config, name).is_some_and(|have| value.is_none_or(|value| value == have))
            };
            if (all || !nameless || !is_parent)
                && fits
                && until.is_none_or(|until| at * 1000 <= until)
                && filters.labels(labels)
                && at > bounds.0
                && at < bounds.1
            {
                let used = containers.as_ref().map(|all| all.iter().filter(|c| c.image_id == image.id).count());
                let mut row = view::image_summary(&image, used.map_or(-1, |used| used as i64));
                if let Some(shared) = &shared {
                    row["SharedSize"] = shared.bytes_of(&image).into();
                }
                rows.push((at, row));
            }
        }
        rows.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        Ok(rows.into_iter().map(|(_, row)| row).collect())
    }
}

fn matches(container: &Container, filters: &Filters, images: &[Image], all: bool) -> bool {
    let (spec, status) = (view::spec_of(container), view::status_of(container));
    let state = status.state();
    let image = images.iter().find(|image| image.id == container.image_id);
    let exit_code = status.exit_code.to_string();
    (all || is_up(state) || state == ContainerState::Restarting)
        && filters.any("id", |v| container.id.starts_with(v))
        && filters.any("name", |v| view::matches_name(&container.name, v))
        && filters.any("status", |v| view::state_word(state) == v)
        && filters.any("exited", |v| state == ContainerState::Exited && exit_code == v)
        && filters.any("health", |v| view::health_word(&status) == v)
        && filters.any("isolation", |v| v == "default")
        && !filters.has("publish")
        && !filters.has("expose")
        && filters.any("volume", |v| status.mounts.iter().any(|m| m.name == v || m.target == v || m.source == v))
        && filters.labels(|name, value| spec.labels.get(name).is_some_and(|have| value.is_none_or(|v| v == have)))
        && filters.any("ancestor", |v| is_ancestor(v, container, image, images))
        && filters.any("network", |v| spec.network_mode == v)
}

/// The image of a container, or one that it was built on.
fn is_ancestor(wanted: &str, container: &Container, image: Option<&Image>, images: &[Image]) -> bool {
    let hex = |id: &str| id.trim_start_matches("sha256:").to_owned();
    let is = |image: &Image| {
        hex(&image.id).starts_with(&hex(wanted))
            || wanted.parse::<model::ImageRef>().is_ok_and(|name| view::is_called(image, &name))
    };
    let mut next = image;
    while let Some(image) = next {
        if is(image) {
            return true;
        }
        next = images.iter().find(|parent| parent.id == image.parent_id);
    }
    hex(&container.image_id).starts_with(&hex(wanted))
}
