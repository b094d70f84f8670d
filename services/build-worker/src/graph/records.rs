//! Results of steps on their way to the gateway: each is told when its layer is stored, and the build goes on meanwhile.

use bus::{Bus, Target, calls};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::claims::Claim;
use crate::failure::Failure;
use crate::flight::Ended;
use crate::patience::patiently;
use crate::recorder::Upload;

pub struct Records {
    bus: Bus,
    build_id: String,
    attempt: u32,
    going: Mutex<JoinSet<Result<(), Failure>>>,
}

/// What a step has made.
pub struct Made {
    pub record: proto::StepRecord,
    pub upload: Option<Upload>,
    /// Other keys that lead to the same result.
    pub also: Option<String>,
    pub claim: Option<Claim>,
}

impl Records {
    pub fn new(bus: Bus, build_id: &str, attempt: u32) -> Self {
        Self { bus, build_id: build_id.to_owned(), attempt, going: Mutex::default() }
    }

    /// Records a result in the background. Who follows the step is told then.
    pub async fn add(&self, made: Made) {
        let (bus, build_id, attempt) = (self.bus.clone(), self.build_id.clone(), self.attempt);
        self.going.lock().await.spawn(async move {
            let Made { record, upload, also, claim } = made;
            if let Some(upload) = upload {
                upload.await.map_err(Failure::caused)??;
            }
            let put = async |record: proto::StepRecord| {
                let put = proto::ResultPut { build_id: build_id.clone(), attempt, record: Some(record) };
                patiently(|| bus.call::<calls::ResultPut>(&Target::Gateway, &put)).await.map_err(Failure::from)
            };
            // Else another has run the step as well: its result is the one that others find.
            let mut recorded = Ok(proto::Empty {});
            if claim.as_ref().is_none_or(|claim| !claim.flight.claim.is_lost()) {
                recorded = put(record.clone()).await;
            }
            let recorded = match also {
                Some(key) if recorded.is_ok() => put(proto::StepRecord { key, ..record.clone() }).await,
                _ => recorded,
            };
            // Where the build is no longer wanted, those who follow its step want that all the same.
            if let Some(claim) = claim
                && matches!(&recorded, Ok(_) | Err(Failure::Lost))
            {
                claim.end(Ended::Recorded(Box::new(record)));
            }
            recorded.map(drop)
        });
    }

    /// Waits until everything is stored and recorded. May be left and called again.
    pub async fn finish(&self) -> Result<(), Failure> {
        let mut going = self.going.lock().await;
        let mut first = Ok(());
        while let Some(ended) = going.join_next().await {
            first = first.and(ended.map_err(Failure::caused)?);
        }
        first
    }
}
