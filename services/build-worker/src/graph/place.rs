//! Where a step runs.

use super::Graph;

/// Who runs a step.
pub enum Place {
    /// This worker.
    Here,
    /// Another one, by its id.
    #[expect(dead_code, reason = "every worker runs its own steps for now")]
    Worker(String),
}

impl Graph {
    /// Chooses where a step runs: consecutive steps stay where their parent lies.
    pub(super) async fn place(&self, _step: &proto::StepDefinition) -> Place {
        Place::Here
    }
}
