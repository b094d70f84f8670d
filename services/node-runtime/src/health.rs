//! Health checks: a command in the container every so often, and what its ends say of the container's health.

use std::sync::Arc;
use std::time::Duration;

use bus::Error;
use nix::sys::signal::Signal;
use proto::health::Status;
use proto::{ContainerSpec, ContainerState, ContainerStatus, ExecSpec, ExecStart, Health, HealthCheck, HealthLook};
use runtime::shim::{self, Handle, Streams};
use runtime::wire::now_ns;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;

use crate::containers::Container;
use crate::node::Node;
use crate::start::runtime_error;

/// The latest looks are kept,
const KEPT_LOOKS: usize = 5;
/// the last with so much of its output,
const KEPT_BYTES: usize = 4096;
/// those before with less: a status goes over the bus with each look, and all of a node's go in one message.
const KEPT_BYTES_OF_OLD: usize = 512;
/// Exit code of a look that did not come to an end of its own.
const NO_END: i32 = -1;

/// What is known of a container that has just started.
pub fn at_start(spec: &ContainerSpec, before: Option<Health>) -> Option<Health> {
    spec.health.as_ref()?;
    Some(Health { status: Status::Starting.into(), failing_streak: 0, log: before.unwrap_or_default().log })
}

/// Who has ended is not healthy.
pub fn at_end(status: &mut ContainerStatus) {
    if let Some(health) = &mut status.health {
        health.set_status(Status::Unhealthy);
    }
}

fn since_start(status: &ContainerStatus, now_ns: i64) -> Duration {
    Duration::from_nanos(u64::try_from(now_ns - status.started_at_ns).unwrap_or(0))
}

fn is_starting(check: &HealthCheck, status: &ContainerStatus, now_ns: i64) -> bool {
    let health = status.health.as_ref().map_or(Status::Starting, Health::status);
    health == Status::Starting && since_start(status, now_ns) < Duration::from_nanos(check.start_period_ns)
}

/// Until the next look.
fn pause(check: &HealthCheck, status: &ContainerStatus, now_ns: i64) -> Duration {
    let starting = is_starting(check, status, now_ns);
    Duration::from_nanos(if starting { check.start_interval_ns } else { check.interval_ns })
}

/// Adds a look; failures count from the end of the start period on, and as many in a row as `retries` make it unhealthy.
fn judge(status: &mut ContainerStatus, check: &HealthCheck, look: HealthLook) {
    let counts = !is_starting(check, status, look.started_at_ns);
    let health = status.health.get_or_insert_default();
    if look.exit_code == 0 {
        health.failing_streak = 0;
        health.set_status(Status::Healthy);
    } else if counts {
        health.failing_streak += 1;
        if health.failing_streak >= check.retries {
            health.set_status(Status::Unhealthy);
        }
    }
    for old in &mut health.log {
        old.output.truncate(old.output.floor_char_boundary(KEPT_BYTES_OF_OLD));
    }
    health.log.push(look);
    let old = health.log.len().saturating_sub(KEPT_LOOKS);
    health.log.drain(..old);
}

/// Whether the process that was started at `run` has not ended.
fn is_in_run(status: &ContainerStatus, run: i64) -> bool {
    status.started_at_ns == run && status.pid != 0
}

/// Records a look at the run that began at `run`: the action to tell, empty where the health has not changed; `None`
/// where the run has ended, of which nothing is recorded.
fn record(container: &Container, run: i64, check: &HealthCheck, look: HealthLook) -> Option<&'static str> {
    let mut action = None;
    let recorded = container.change(|status| {
        // The end may have come since the look.
        if !is_in_run(status, run) {
            return;
        }
        let health = |status: &ContainerStatus| status.health.as_ref().map_or(Status::Starting, Health::status);
        let before = health(status);
        judge(status, check, look);
        action = Some(match health(status) {
            now if now == before => "",
            Status::Healthy => "health_status: healthy",
            Status::Unhealthy => "health_status: unhealthy",
            Status::Starting => "health_status: starting",
        });
    });
    if let Err(error) = recorded {
        tracing::warn!(%error, container_id = %container.status().id, "a container's health could not be recorded");
    }
    action
}

impl Node {
    /// Looks after a container until its process ends; nothing to do without a check.
    pub fn look_after(self: &Arc<Self>, container: &Arc<Container>) {
        let (spec, status) = (container.spec(), container.status());
        let Some(check) = spec.health.clone() else { return };
        let (node, container, run) = (self.clone(), container.clone(), status.started_at_ns);
        tokio::spawn(async move {
            loop {
                let status = container.status();
                if container.stands(Some(pause(&check, &status, now_ns()))).await
                    || !is_in_run(&container.status(), run)
                {
                    return;
                }
                // A frozen one has no say.
                if container.status().state() == ContainerState::Paused {
                    continue;
                }
                let look = node.look(&container, &spec, &check).await;
                let Some(action) = record(&container, run, &check, look) else { return };
                node.tell(&container, action, &[]);
            }
        });
    }

    async fn look(self: &Arc<Self>, container: &Container, spec: &ContainerSpec, check: &HealthCheck) -> HealthLook {
        let started_at_ns = now_ns();
        let exec_id = hex::encode(rand::random::<[u8; 32]>());
        let exec = ExecSpec {
            container_id: spec.id.clone(),
            exec_id: exec_id.clone(),
            args: check.args.clone(),
            env: spec.env.clone(),
            working_dir: spec.working_dir.clone(),
            user: spec.user.clone(),
            attach_stdout: true,
            attach_stderr: true,
            ..ExecSpec::default()
        };
        let limit = Duration::from_nanos(check.timeout_ns);
        let (exit_code, output) = match self.run_look(container, exec, limit).await {
            Ok(end) => end,
            Err(error) => (NO_END, error.message().to_owned()),
        };
        self.forget_exec(&exec_id);
        HealthLook { started_at_ns, ended_at_ns: now_ns(), exit_code, output }
    }

    /// Exit code and output; the process is killed when it takes longer than `limit`.
    async fn run_look(&self, container: &Container, spec: ExecSpec, limit: Duration) -> Result<(i32, String), Error> {
        let id = spec.exec_id.clone();
        let (shim, joined) = {
            // A removal in the middle would move the shim's folder away from under it, and it would wait for ever.
            let _busy = container.busy.lock().await;
            self.exec_create(spec)?;
            let exec = self.exec(&id)?;
            exec.mark_as_look()?;
            let shim = self.exec_shim(&exec, container, &ExecStart::default()).await?;
            match begin(&shim).await {
                Ok(joined) => (shim, joined),
                Err(error) => {
                    match shim::exit_status(shim.dir()) {
                        Some(_) => shim.wait_gone().await,
                        // It never came to the start.
                        None => crate::stop::retire(&shim).await,
                    }
                    return Err(runtime_error(error));
                }
            }
        };
        let end = async { (output_of(joined).await, shim.wait_exit().await) };
        match tokio::time::timeout(limit, end).await {
            Ok((output, end)) => Ok((end.map_or(137, |end| end.code), output)),
            Err(_) => {
                // It may have ended just now.
                let _ = shim.signal(Signal::SIGKILL as i32).await;
                let _ = shim.wait_exit().await;
                Ok((NO_END, format!("Health check exceeded timeout ({})", in_words(limit))))
            }
        }
    }
}

async fn begin(shim: &Handle) -> Result<UnixStream, runtime::Error> {
    let joined = shim.attach(Streams { stdin: false, stdout: true, stderr: true }).await?;
    shim.start().await?;
    Ok(joined)
}

/// The bytes of frames of both outputs; the rest of a long one is read and dropped, and marked.
async fn output_of(mut joined: UnixStream) -> String {
    let mut kept = Vec::new();
    let mut is_cut = false;
    let mut header = [0_u8; 8];
    while joined.read_exact(&mut header).await.is_ok() {
        let [.., a, b, c, d] = header;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let mut frame = Vec::new();
        if (&mut joined).take(length as u64).read_to_end(&mut frame).await.is_err() {
            break;
        }
        let room = KEPT_BYTES - kept.len();
        is_cut |= frame.len() > room;
        kept.extend_from_slice(&frame[..frame.len().min(room)]);
    }
    let text = String::from_utf8_lossy(&kept).into_owned();
    if is_cut { text + "..." } else { text }
}

/// A duration as Go writes it: `1m30s`, `1.5s`, `300ms`.
fn in_words(time: Duration) -> String {
    let (seconds, rest) = (time.as_secs(), time.subsec_millis());
    if seconds == 0 {
        return format!("{rest}ms");
    }
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let mut text = String::new();
    if hours > 0 {
        text += &format!("{hours}h");
    }
    if hours > 0 || minutes > 0 {
        text += &format!("{minutes}m");
    }
    let fraction = format!("{}.{rest:03}", seconds % 60);
    text + fraction.trim_end_matches('0').trim_end_matches('.') + "s"
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn check() -> HealthCheck {
        HealthCheck {
            interval_ns: 30 * SECOND as u64,
            start_period_ns: 10 * SECOND as u64,
            start_interval_ns: 5 * SECOND as u64,
            retries: 2,
            ..HealthCheck::default()
        }
    }

    /// Looks as (seconds since the start, exit code), and what they make of it.
    #[test]
    fn looks_make_health() {
        for (looks, status, streak) in [
            (&[][..], Status::Starting, 0),
            (&[(1, 0)], Status::Healthy, 0),
            (&[(1, 1), (9, 1)], Status::Starting, 0),
            (&[(9, 1), (11, 1)], Status::Starting, 1),
            (&[(11, 1), (41, 1)], Status::Unhealthy, 2),
            // Once healthy, failures count also in the start period.
            (&[(1, 0), (2, 1), (3, 1)], Status::Unhealthy, 2),
            (&[(11, 1), (41, 1), (71, 0)], Status::Healthy, 0),
        ] {
            let spec = ContainerSpec { health: Some(check()), ..ContainerSpec::default() };
            let health = at_start(&spec, None);
            let mut container = ContainerStatus { started_at_ns: SECOND, health, ..ContainerStatus::default() };
            for (at, exit_code) in looks {
                let look =
                    HealthLook { started_at_ns: (1 + at) * SECOND, exit_code: *exit_code, ..HealthLook::default() };
                judge(&mut container, &check(), look);
            }
            let health = container.health.expect("it is looked after");
            assert_eq!((health.status(), health.failing_streak), (status, streak), "{looks:?}");
        }
    }

    #[test]
    fn a_look_at_a_run_that_has_ended_says_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let spec = ContainerSpec { health: Some(check()), ..ContainerSpec::default() };
        let running = ContainerStatus { started_at_ns: 7, pid: 1, health: at_start(&spec, None), ..Default::default() };
        let container = Container::new(folder.path().to_owned(), spec, running);
        let look = || record(&container, 7, &check(), HealthLook::default());
        assert_eq!((look(), look()), (Some("health_status: healthy"), Some("")));
        let end = |status: &mut ContainerStatus| {
            status.pid = 0;
            at_end(status);
        };
        container.change(end).expect("recorded");
        let ended = container.status();
        assert_eq!((look(), container.status()), (None, ended));
        // Started anew.
        container.change(|status| (status.started_at_ns, status.pid) = (8, 2)).expect("recorded");
        assert_eq!(look(), None);
    }

    #[test]
    fn only_the_latest_looks_are_kept() {
        let mut status = ContainerStatus::default();
        for at in 0..9 {
            let output = "ä".repeat(1000);
            judge(&mut status, &check(), HealthLook { started_at_ns: at, output, ..HealthLook::default() });
        }
        let log = status.health.unwrap_or_default().log;
        let kept: Vec<_> = log.iter().map(|look| (look.started_at_ns, look.output.len())).collect();
        assert_eq!(kept, [(4, 512), (5, 512), (6, 512), (7, 512), (8, 2000)]);
    }

    #[test]
    fn looks_come_more_often_at_the_start() {
        let mut status = ContainerStatus { started_at_ns: SECOND, ..ContainerStatus::default() };
        assert_eq!(pause(&check(), &status, 2 * SECOND), Duration::from_secs(5));
        assert_eq!(pause(&check(), &status, 12 * SECOND), Duration::from_secs(30));
        judge(&mut status, &check(), HealthLook { started_at_ns: 2 * SECOND, ..HealthLook::default() });
        assert_eq!(pause(&check(), &status, 2 * SECOND), Duration::from_secs(30));
    }

    #[test]
    fn times_are_written_as_go_writes_them() {
        for (ms, words) in [(300, "300ms"), (30_000, "30s"), (1500, "1.5s"), (90_000, "1m30s"), (3_600_000, "1h0m0s")] {
            assert_eq!(in_words(Duration::from_millis(ms)), words);
        }
    }
}
