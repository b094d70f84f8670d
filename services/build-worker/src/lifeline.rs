//! What a step's process hangs on: that its worker is heard of in time. A claim, or a build's lease, is a line that is
//! renewed; a step on a line that was not renewed is killed by its shim, whatever has become of the worker.

use std::future::pending;
use std::time::Duration;

use bus::{Bus, CLAIM_TTL, HEARTBEAT, SILENCE};
use runtime::shim::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// The end that renews. Clones are one line.
#[derive(Clone, Debug)]
pub struct Renewals {
    renewed: watch::Sender<()>,
    lost: CancellationToken,
    ttl: Duration,
}

/// The end that a step hangs on.
#[derive(Clone, Debug)]
pub struct Lifeline {
    renewed: watch::Receiver<()>,
    lost: CancellationToken,
    ttl: Duration,
}

impl Renewals {
    /// Of something that ends when it is not renewed for `ttl`.
    pub fn new(ttl: Duration) -> Self {
        Self { renewed: watch::Sender::default(), lost: CancellationToken::new(), ttl }
    }

    pub fn renewed(&self) {
        self.renewed.send_replace(());
    }

    /// Another has it now.
    pub fn lose(&self) {
        self.lost.cancel();
    }

    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    pub fn lifeline(&self) -> Lifeline {
        Lifeline { renewed: self.renewed.subscribe(), lost: self.lost.clone(), ttl: self.ttl }
    }
}

impl Lifeline {
    /// How long a process may go on without a word: it is to be dead when another may claim its step, so a little less
    /// than the time to live, which counts from when the bus got the renewal.
    pub fn deadline(&self) -> Duration {
        self.ttl * 9 / 10
    }

    /// Passes renewals on to a process; returns when the line is lost.
    pub async fn hold(&mut self, process: &Handle) {
        loop {
            tokio::select! {
                () = self.lost.cancelled() => return,
                renewed = self.renewed.changed() => match renewed {
                    Ok(()) => process.go_on(),
                    // Nobody renews it any more: the deadline comes by itself.
                    Err(_) => pending().await,
                }
            }
        }
    }
}

/// So long after a worker that helps was found silent, its step's process has ended, whatever became of the worker: it
/// may have looked at the claim until its next heartbeat was due.
pub fn after_silence() -> Duration {
    (CLAIM_TTL * 9 / 10).saturating_sub(SILENCE - HEARTBEAT)
}

/// A line on a claim that another worker holds, as long as the second one lives: it is looked at as often as its holder
/// renews it.
pub fn on_claim(bus: Bus, key: String, claim_id: String) -> (Lifeline, AbortOnDropHandle<()>) {
    let renewals = Renewals::new(CLAIM_TTL);
    let lifeline = renewals.lifeline();
    let is_held = move |claim: proto::StepClaim| claim.id == claim_id && !claim.ended;
    let watching = async move {
        loop {
            match bus.claimed(&key).await {
                Ok(found) if found.claim.clone().is_some_and(&is_held) => renewals.renewed(),
                Ok(_) => return renewals.lose(),
                Err(error) => tracing::debug!(%error, "a claim could not be looked at"),
            }
            tokio::time::sleep(CLAIM_TTL / 3).await;
        }
    };
    (lifeline, AbortOnDropHandle::new(tokio::spawn(watching)))
}
