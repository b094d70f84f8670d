//! Which steps this worker has claimed, and keeps claimed while it runs them.
//!
//! ```text
//! take ─┬─ New     nobody has run it lately            ┐ Claim ── end ──▶ the claim is written as ended,
//!       ├─ Again   somebody has, look before you run   ┘  └─ drop: cut short   followers are told how
//!       └─ Held    somebody does: follow
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bus::{Bus, CLAIM_TTL, Target, calls};
use tokio::sync::{mpsc, oneshot};

use crate::flight::{Ended, Flight};

pub struct Claims {
    bus: Bus,
    worker_id: String,
    /// By claim.
    held: Mutex<HashMap<String, Arc<Flight>>>,
}

pub enum Taken {
    New(Claim),
    Again(Claim),
    Held { claim: proto::StepClaim, revision: u64 },
}

/// A claim that this worker holds. Dropped without an end it counts as cut short.
pub struct Claim {
    pub key: String,
    pub id: String,
    pub flight: Arc<Flight>,
    end: oneshot::Sender<Ended>,
}

impl Claim {
    /// Tells who follows.
    pub fn end(self, ended: Ended) {
        // Only a runtime that ends has no holder any more.
        let _ = self.end.send(ended);
    }
}

impl Claims {
    pub fn new(bus: Bus, worker_id: &str) -> Arc<Self> {
        Arc::new(Self { bus, worker_id: worker_id.to_owned(), held: Mutex::default() })
    }

    pub fn worker_id(&self) -> &str {
        &self.worker_id
    }

    /// Claims a step unless somebody runs it. `dead` is the revision of a claim whose holder knows nothing of it.
    ///
    /// # Errors
    /// `Unavailable` when the bus does not answer.
    pub async fn take(self: &Arc<Self>, key: &str, flight: Flight, dead: Option<u64>) -> Result<Taken, bus::Error> {
        let claim = proto::StepClaim {
            worker_id: self.worker_id.clone(),
            id: hex::encode(rand::random::<[u8; 16]>()),
            build_id: flight.build_id.clone(),
            ended: false,
        };
        let flight = Arc::new(flight);
        // Known before it is claimed: whoever reads the claim may ask at once.
        let known = Known { claims: self.clone(), id: claim.id.clone() };
        self.held.lock().expect("no holder panics").insert(claim.id.clone(), flight.clone());
        if let Some(revision) = self.bus.claim(key, &claim, 0).await? {
            return Ok(Taken::New(known.hold(key, claim, revision, flight)));
        }
        loop {
            let found = self.bus.claimed(key).await?;
            if let Some(holder) = found.claim.filter(|holder| !holder.ended && dead != Some(found.revision)) {
                return Ok(Taken::Held { claim: holder, revision: found.revision });
            }
            // Else another was faster.
            if let Some(revision) = self.bus.claim(key, &claim, found.revision).await? {
                return Ok(Taken::Again(known.hold(key, claim, revision, flight)));
            }
        }
    }

    /// Claims a step for one build alone: nobody finds it under its key, nor follows it. None where the bus does not
    /// answer.
    pub async fn take_alone(self: &Arc<Self>, key: &str, flight: Flight) -> Option<Claim> {
        let alone = format!("{key}-{}", hex::encode(rand::random::<[u8; 8]>()));
        match self.take(&alone, flight, None).await {
            Ok(Taken::New(claim) | Taken::Again(claim)) => Some(claim),
            Ok(Taken::Held { .. }) | Err(_) => None,
        }
    }

    /// A step of this worker.
    pub fn flight(&self, claim_id: &str) -> Option<Arc<Flight>> {
        self.held.lock().expect("no holder panics").get(claim_id).cloned()
    }

    /// Waits for the end of a step that another worker runs; what it prints goes to `lines`, from its first line on.
    ///
    /// # Errors
    /// `NotFound` where that worker knows nothing of the claim, else whether it is silent or gone.
    pub async fn follow(
        &self,
        claim: &proto::StepClaim,
        lines: mpsc::Sender<proto::Progress>,
    ) -> Result<Ended, bus::Error> {
        let holder = Target::Worker(claim.worker_id.clone());
        let request = proto::StepFollow { claim_id: claim.id.clone() };
        let reply = self.bus.call_while_wanted::<calls::StepFollow>(&holder, &request, Some(lines)).await?;
        let proto::StepFollowReply { made, command, code, record } = reply;
        Ok(match (made, record) {
            (Some(image), _) => Ended::Made(Box::new(image)),
            (None, Some(record)) => Ended::Recorded(Box::new(record)),
            (None, None) if code != 0 => Ended::Command { command, code },
            (None, None) => Ended::Dropped,
        })
    }

    /// Whether others wait for a step of this build.
    pub fn is_followed(&self, build_id: &str) -> bool {
        let held = self.held.lock().expect("no holder panics");
        held.values().any(|flight| flight.build_id == build_id && flight.is_followed())
    }

    /// Keeps a claim until its step ends, and writes that it has.
    async fn renew(
        &self,
        key: &str,
        (claim, mut revision): (proto::StepClaim, u64),
        flight: &Flight,
        mut end: oneshot::Receiver<Ended>,
    ) -> Ended {
        loop {
            tokio::select! {
                ended = &mut end => {
                    let over = proto::StepClaim { ended: true, ..claim };
                    if let Err(error) = self.bus.claim(key, &over, revision).await {
                        tracing::debug!(%error, "a claim runs out by itself");
                    }
                    return ended.unwrap_or(Ended::Dropped);
                }
                () = tokio::time::sleep(CLAIM_TTL / 3) => {}
            }
            let renewed = match self.bus.claim(key, &claim, revision).await {
                Ok(None) => self.regain(key, &claim).await,
                renewed => renewed,
            };
            match renewed {
                Ok(Some(next)) => {
                    revision = next;
                    flight.claim.renewed();
                }
                Ok(None) => break,
                Err(error) => tracing::debug!(%error, "a claim could not be renewed"),
            }
        }
        tracing::warn!(build_id = %claim.build_id, "the claim of a step was lost");
        flight.claim.lose();
        end.await.unwrap_or(Ended::Dropped)
    }

    /// The claim is not at the revision that this worker knows: a renewal of its own whose answer was lost may have gone
    /// through, or it ran out while the bus was away, and nobody has taken it yet. None: another has.
    async fn regain(&self, key: &str, claim: &proto::StepClaim) -> Result<Option<u64>, bus::Error> {
        let found = self.bus.claimed(key).await?;
        match found.claim {
            Some(holder) if holder.id == claim.id => Ok(Some(found.revision)),
            Some(_) => Ok(None),
            None => self.bus.claim(key, claim, found.revision).await,
        }
    }
}

/// A flight that can be followed for as long as this lives.
struct Known {
    claims: Arc<Claims>,
    id: String,
}

impl Known {
    fn hold(self, key: &str, claim: proto::StepClaim, revision: u64, flight: Arc<Flight>) -> Claim {
        let (end, ended) = oneshot::channel();
        let (id, key, running) = (claim.id.clone(), key.to_owned(), flight.clone());
        let claimed = key.clone();
        tokio::spawn(async move {
            let ended = self.claims.renew(&claimed, (claim, revision), &running, ended).await;
            drop(self);
            running.end(ended);
        });
        Claim { key, id, flight, end }
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        self.claims.held.lock().expect("no holder panics").remove(&self.id);
    }
}
