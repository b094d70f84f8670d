//! A shell in a step of a build: a container on the layers that the step saw, or that its failed command left.
//!
//! The build remembers which layers these are (`proto::StepView`), and keeps none of them: they are held as results of
//! steps are, under the cache's cap.

use std::sync::Arc;

use engine_api::CreateRequest;
use metadata::Image;
use proto::{BuildVertex, Layer, StepMount, StepView};
use serde_json::{Map, Value, json};

use super::containers::FromJson as _;
use super::images::layer_row;
use super::{App, Failure, Outcome};
use crate::shape;

/// A step's machine is called so, as with BuildKit.
const HOSTNAME: &str = "buildkitsandbox";
/// Characters of a build's id in the name of what its container stands on.
const SHORT: usize = 12;
/// Fewer digits are a number.
const DIGEST_DIGITS: usize = 6;

/// What is wanted.
#[derive(Debug, Default)]
pub struct ShellRequest {
    /// Number of the step, or how its digest begins; none: the one that failed, else the last one.
    pub step: Option<String>,
    /// None: the shell of the step's stage.
    pub command: Vec<String>,
    pub tty: bool,
    pub stdin: bool,
}

shape! {
    /// A container on the file system of a build's step. It is to be attached to and started; it is removed when it ends.
    pub struct StepShell {
        /// The container.
        pub container_id: String,
        /// The step's place among the build's steps, from 1.
        pub number: u32,
        /// What the step does, as the build's log says it.
        pub name: String,
        /// The file system is as the step's failed command left it; else as the step saw it.
        pub left: bool,
        /// Mounts of the step that are not there: its secrets, agents, caches and bound files.
        pub missing: Vec<String>,
    }
}

impl App {
    /// # Errors
    /// `NotFound` for a step that the build has not, or whose layers are held no more; `InvalidArgument` where several
    /// steps are meant, or nothing is remembered of what the step saw.
    pub async fn step_shell(self: &Arc<Self>, build: &str, request: &ShellRequest) -> Outcome<StepShell> {
        let id = self.build_id(build).await?;
        let steps = self.steps_of_build(&id).await?;
        let place = choose(&id, &steps, request.step.as_deref())?;
        let number = u32::try_from(place + 1).unwrap_or(u32::MAX);
        let vertex = &steps[place];
        let view = vertex.view.as_ref().ok_or_else(|| not_remembered(&id, number, vertex))?;
        let lease = self.lease("step shell").await?;
        let digest = |layer: &Layer| layer.blob.as_ref().map(|blob| blob.digest.clone()).unwrap_or_default();
        let digests = view.layers.iter().chain(&view.left).map(digest).collect();
        // Under the lease they stay.
        let gone = self.pin(&lease.id, digests).await?;
        if let Some(layer) = view.layers.iter().find(|layer| gone.contains(&digest(layer))) {
            return Err(Failure::not_found(format!(
                "the file system of step {number} of build {id} is not held any more (layer {}): build it again",
                layer.diff_id
            )));
        }
        let left = view.left.clone().filter(|layer| !gone.contains(&digest(layer)));
        let (tmpfs, missing) = mounts(&view.mounts);
        let image_name = format!("build {} step {number}", &id[..SHORT.min(id.len())]);
        let raw = request.create(
            view,
            &image_name,
            tmpfs,
            json!({"com.boxyard.build": id, "com.boxyard.step": vertex.digest}),
        );
        let (is_left, layers) = (left.is_some(), view.layers.iter().cloned().chain(left));
        let image = Image {
            id: String::new(),
            config: b"{}".to_vec(),
            layers: layers.map(layer_row).collect(),
            parent_id: String::new(),
            recorded_ms: 0,
            tags: Vec::new(),
            digests: Vec::new(),
            platform_of: Vec::new(),
        };
        let created = self.create_on(&image, None, CreateRequest::deserialize_from(&raw)?, &raw).await?;
        Ok(StepShell { container_id: created.id, number, name: vertex.name.clone(), left: is_left, missing })
    }
}

impl ShellRequest {
    fn create(&self, view: &StepView, image: &str, tmpfs: Map<String, Value>, labels: Value) -> Value {
        let shell = view.shell.iter().take(1).cloned().collect();
        let network = match view.network.as_str() {
            "" | "default" => "default",
            other => other,
        };
        json!({
            "Image": image,
            "Hostname": HOSTNAME,
            "Cmd": if self.command.is_empty() { shell } else { self.command.clone() },
            "Env": view.env,
            "WorkingDir": view.cwd,
            "User": view.user,
            "Labels": labels,
            "Tty": self.tty,
            "OpenStdin": self.stdin,
            "StdinOnce": self.stdin,
            "AttachStdin": self.stdin,
            "AttachStdout": true,
            "AttachStderr": true,
            "HostConfig": {
                "AutoRemove": true,
                "NetworkMode": network,
                "ExtraHosts": view.extra_hosts,
                "Tmpfs": tmpfs,
            },
        })
    }
}

/// Which of the steps is meant.
fn choose(build: &str, steps: &[BuildVertex], wanted: Option<&str>) -> Outcome<usize> {
    let none = || Failure::not_found(format!("build {build} has no step that a shell could be opened in"));
    let Some(wanted) = wanted else {
        let by_itself = steps.iter().position(|step| step.code != 0);
        let failed = by_itself.or_else(|| steps.iter().position(|step| !step.error.is_empty() && step.view.is_some()));
        return failed.or_else(|| steps.iter().rposition(|step| step.view.is_some())).ok_or_else(none);
    };
    let missing = || Failure::not_found(format!("build {build} has no step {wanted}: it has {}", steps.len()));
    // Digits alone may also be how a digest begins.
    match wanted.parse::<usize>() {
        Ok(number) if (1..=steps.len()).contains(&number) => return Ok(number - 1),
        Ok(_) if wanted.len() < DIGEST_DIGITS => return Err(missing()),
        _ => {}
    }
    let hex = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    let called = |step: &BuildVertex| !hex.is_empty() && step.digest.trim_start_matches("sha256:").starts_with(hex);
    let mut found = (0..steps.len()).filter(|place| called(&steps[*place]));
    match (found.next(), found.next()) {
        (Some(place), None) => Ok(place),
        (None, _) => Err(missing()),
        (Some(_), Some(_)) => Err(Failure::invalid(format!("several steps of build {build} begin with {wanted}"))),
    }
}

fn not_remembered(build: &str, number: u32, vertex: &BuildVertex) -> Failure {
    Failure::invalid(format!(
        "step {number} of build {build} ({}) has no file system to look at: only RUN, COPY, ADD and WORKDIR of BuildKit builds have",
        vertex.name
    ))
}

/// Those that can be had, with their options; and the others, by type and place.
fn mounts(mounts: &[StepMount]) -> (Map<String, Value>, Vec<String>) {
    let (mut tmpfs, mut missing) = (Map::new(), Vec::new());
    for mount in mounts {
        match mount.r#type.as_str() {
            "tmpfs" if mount.size_bytes > 0 => {
                tmpfs.insert(mount.target.clone(), format!("size={}", mount.size_bytes).into());
            }
            "tmpfs" => {
                tmpfs.insert(mount.target.clone(), "".into());
            }
            kind => {
                let place = [&mount.target, &mount.env, &mount.id].into_iter().find(|text| !text.is_empty());
                missing
                    .push([Some(kind), place.map(String::as_str)].into_iter().flatten().collect::<Vec<_>>().join(" "));
            }
        }
    }
    (tmpfs, missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_that_is_meant() {
        let step = |digest: &str, error: &str, code: i32, view: bool| BuildVertex {
            digest: format!("sha256:{digest}"),
            error: error.to_owned(),
            code,
            view: view.then(StepView::default),
            ..BuildVertex::default()
        };
        let good =
            [step("aa1", "", 0, false), step("ab2", "", 0, true), step("b", "", 0, true), step("c", "", 0, false)];
        let bad = [step("aa1", "", 0, false), step("ab2", "context canceled", 0, true), step("b", "exit", 3, true)];
        for (steps, wanted, place) in [
            (&good[..], None, Ok(2)),
            (&bad[..], None, Ok(2)),
            (&good[..], Some("2"), Ok(1)),
            (&good[..], Some("ab"), Ok(1)),
            (&good[..], Some("sha256:ab2"), Ok(1)),
            (&good[..], Some("a"), Err("several steps")),
            (&good[..], Some("9"), Err("has no step 9: it has 4")),
            (&good[..1], None, Err("has no step that a shell")),
            (&good[..], Some(""), Err("has no step")),
        ] {
            match (choose("x", steps, wanted), place) {
                (Ok(chosen), Ok(place)) => assert_eq!(chosen, place, "{wanted:?}"),
                (Err(failure), Err(why)) => assert!(failure.message.contains(why), "{}", failure.message),
                (chosen, _) => panic!("{wanted:?}: {:?}", chosen.map_err(|failure| failure.message)),
            }
        }
    }

    #[test]
    fn mounts_that_can_be_had() {
        let mount = |kind: &str, target: &str, id: &str| StepMount {
            r#type: kind.to_owned(),
            target: target.to_owned(),
            id: id.to_owned(),
            ..StepMount::default()
        };
        let sized = StepMount { size_bytes: 5, ..mount("tmpfs", "/s", "") };
        let (tmpfs, missing) =
            mounts(&[sized, mount("tmpfs", "/t", ""), mount("secret", "", "token"), mount("bind", "/src", "")]);
        assert_eq!(Value::Object(tmpfs), json!({"/s": "size=5", "/t": ""}));
        assert_eq!(missing, ["secret token", "bind /src"]);
    }
}
