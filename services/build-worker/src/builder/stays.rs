//! Containers of steps that stay behind: all of them with `--rm=false`, the failed one unless `--force-rm`.

use super::Builder;
use super::stage::Stage;
use crate::failure::Failure;
use crate::handover::Changes;
use crate::layers::blocking;

/// A step's container, as it is when the step has ended.
pub struct Ended {
    pub id: String,
    pub args: Vec<String>,
    /// What it had besides its image's.
    pub env: Vec<String>,
    pub exit_code: i32,
    /// 0: it never ran.
    pub started_at_ns: i64,
    pub finished_at_ns: i64,
}

impl Ended {
    /// A container that Docker makes for its id and its line in the output only.
    pub fn never_ran(id: &str, args: &[String]) -> Self {
        let (id, args, env) = (id.to_owned(), args.to_vec(), Vec::new());
        Self { id, args, env, exit_code: 0, started_at_ns: 0, finished_at_ns: 0 }
    }
}

impl Builder {
    /// Hands a container to this machine's node, once its image is recorded. Without a node it goes.
    pub async fn keep(&self, parent: &Stage, ended: Ended, changes: Option<Changes>) -> Result<(), Failure> {
        let Some(node_id) = self.machine.handover.node_id() else { return Ok(()) };
        // A container needs an image.
        if parent.image_id.is_empty() {
            return Ok(());
        }
        let now = jiff::Timestamp::now().as_nanosecond();
        let container = proto::StepContainer {
            build_id: self.build_id.clone(),
            attempt: self.attempt,
            node_id,
            id: ended.id,
            image_id: parent.image_id.clone(),
            args: ended.args,
            env: ended.env,
            exit_code: ended.exit_code,
            started_at_ns: ended.started_at_ns,
            finished_at_ns: ended.finished_at_ns,
            created_at_ns: match ended.started_at_ns {
                0 => i64::try_from(now).unwrap_or(i64::MAX),
                started => started,
            },
            changed: changes.is_some(),
        };
        let offer = match changes {
            None => None,
            Some(changes) => {
                let (handover, snapshots) = (self.machine.handover.clone(), self.layers.snapshots.clone());
                let (build, id) = (self.machine.build_folder(&self.build_id), container.id.clone());
                let below = parent.diff_ids()?;
                Some(blocking(move || handover.offer(&snapshots, &id, &build, (changes, &below))).await?)
            }
        };
        self.recorder.keep(container, offer).await
    }
}
