//! Restart policies: whether a container that ended comes up again, and when.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proto::{ContainerState, ContainerStatus, RestartPolicy};

use crate::containers::Container;
use crate::node::{Node, lock};

/// The wait before a restart doubles from the first to the longest,
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// and begins anew after a run of this length.
const LONG_RUN_NS: i64 = 10_000_000_000;

/// After an end with this code, `restarts` restarts after a person's last start.
pub fn wants(policy: &RestartPolicy, code: i32, restarts: u32) -> bool {
    match policy.name.as_str() {
        "always" | "unless-stopped" => true,
        "on-failure" => code != 0 && (policy.maximum_retry_count == 0 || restarts < policy.maximum_retry_count),
        _ => false,
    }
}

fn wait(before: Duration, status: &ContainerStatus) -> Duration {
    if before.is_zero() || status.finished_at_ns - status.started_at_ns > LONG_RUN_NS {
        return FIRST_WAIT;
    }
    (before * 2).min(LONGEST_WAIT)
}

impl Node {
    /// Starts a container whose status is `Restarting` when its time has come, unless a person stops it before.
    pub fn restart_later(self: &Arc<Self>, container: &Arc<Container>) {
        let after = {
            let mut last = lock(&container.restart_wait);
            *last = wait(*last, &container.status());
            *last
        };
        let (node, container) = (self.clone(), container.clone());
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            if let Err(error) = node.start_again(&container).await {
                tracing::warn!(%error, container_id = %container.status().id, "a restart failed");
            }
        });
    }

    /// What was running when the machine or the whole Boxyard went down comes up again, as its policy says.
    pub fn resume(self: &Arc<Self>) {
        let all: Vec<_> = lock(&self.containers).values().cloned().collect();
        for container in all {
            let (status, policy) = (container.status(), container.spec().restart.unwrap_or_default());
            let was_stopped = policy.name != "always" && container.stopped.load(Ordering::SeqCst);
            let ended = status.state() == ContainerState::Exited && status.started_at_ns != 0;
            if ended && !was_stopped && wants(&policy, status.exit_code, 0) {
                container.set_stopped(false);
                if let Err(error) = container.change(|status| status.set_state(ContainerState::Restarting)) {
                    tracing::warn!(%error, "a restart could not be recorded");
                }
                self.restart_later(&container);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        let policy = |name: &str, maximum_retry_count| RestartPolicy { name: name.into(), maximum_retry_count };
        for (name, most, code, restarts, want) in [
            ("", 0, 1, 0, false),
            ("no", 0, 1, 0, false),
            ("always", 0, 0, 99, true),
            ("unless-stopped", 0, 0, 99, true),
            ("on-failure", 0, 1, 99, true),
            ("on-failure", 0, 0, 0, false),
            ("on-failure", 2, 1, 1, true),
            ("on-failure", 2, 1, 2, false),
        ] {
            assert_eq!(wants(&policy(name, most), code, restarts), want, "{name} {most} {code} {restarts}");
        }
    }

    #[test]
    fn waits_double_and_a_long_run_forgives() {
        let run = |seconds: i64| ContainerStatus {
            started_at_ns: 1,
            finished_at_ns: 1 + seconds * 1_000_000_000,
            ..ContainerStatus::default()
        };
        assert_eq!(wait(Duration::ZERO, &run(0)), FIRST_WAIT);
        assert_eq!(wait(FIRST_WAIT, &run(9)), FIRST_WAIT * 2);
        assert_eq!(wait(LONGEST_WAIT, &run(1)), LONGEST_WAIT);
        assert_eq!(wait(LONGEST_WAIT, &run(11)), FIRST_WAIT);
    }
}
