use std::sync::Arc;

use proto::{ContainerState, ContainerStatus};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::containers::{Container, is_up};
use super::{App, view};

/// A change that the database holds already.
pub struct Changed {
    pub id: String,
    /// None: the record is gone.
    pub status: Option<ContainerStatus>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    NotRunning,
    NextExit,
    Removed,
}

impl App {
    /// Ends when the container is as `condition` says; the code that it exited with. `changed` must have been subscribed before the record was read.
    pub async fn wait_container(
        self: Arc<Self>,
        container: Container,
        condition: Condition,
        mut changed: Receiver<Arc<Changed>>,
    ) -> i64 {
        let first = view::status_of(&container);
        let mut last = i64::from(first.exit_code);
        if condition == Condition::NotRunning && is_over(first.state()) {
            return last;
        }
        loop {
            let now = match changed.recv().await {
                Ok(change) if change.id != container.id => continue,
                Ok(change) => change.status.clone(),
                Err(RecvError::Closed) => return last,
                // After a gap the record tells.
                Err(RecvError::Lagged(_)) => {
                    let found = self.db.find_containers(&container.id).await.ok();
                    found.and_then(|found| found.into_iter().next()).as_ref().map(view::status_of)
                }
            };
            let Some(now) = now else { return last };
            if now.finished_at_ns == first.finished_at_ns && now.error == first.error {
                continue;
            }
            last = i64::from(now.exit_code);
            if condition != Condition::Removed && is_over(now.state()) {
                return last;
            }
        }
    }
}

fn is_over(state: ContainerState) -> bool {
    !is_up(state) && state != ContainerState::Restarting
}
