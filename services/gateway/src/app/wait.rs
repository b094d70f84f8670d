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

/// What POST /containers/{id}/wait answers.
pub struct Ended {
    pub code: i64,
    /// Why it never ran.
    pub error: String,
}

impl App {
    /// Ends when the container is as `condition` says. `changed` must have been subscribed before the record was read.
    pub async fn wait_container(
        self: Arc<Self>,
        container: Container,
        condition: Condition,
        mut changed: Receiver<Arc<Changed>>,
    ) -> Ended {
        let first = view::status_of(&container);
        let mut last = ended(&first);
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
            last = ended(&now);
            if condition != Condition::Removed && is_over(now.state()) {
                return last;
            }
        }
    }
}

fn is_over(state: ContainerState) -> bool {
    !is_up(state) && state != ContainerState::Restarting
}

fn ended(status: &ContainerStatus) -> Ended {
    Ended { code: i64::from(status.exit_code), error: status.error.clone() }
}
