//! The stages of one platform: each begins when something needs it, and is evaluated once.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::{mpsc, watch};

use super::Graph;
use super::plan::Plan;
use super::source::Source;
use super::state::State;
use crate::failure::Failure;

/// What is built for a platform.
pub struct Wanted {
    pub plan: Plan,
    /// Which of the build's platforms it is.
    pub number: usize,
    /// The platform as steps name it, where there are several.
    pub shown: Option<String>,
    /// `SOURCE_DATE_EPOCH`.
    pub epoch: Option<i64>,
}

pub struct Solving {
    pub graph: Graph,
    pub source: Arc<Source>,
    pub wanted: Wanted,
    ended: Vec<watch::Sender<Option<Arc<State>>>>,
    begun: Mutex<HashSet<usize>>,
    begin: mpsc::UnboundedSender<usize>,
    beginning: Mutex<Option<mpsc::UnboundedReceiver<usize>>>,
}

impl Solving {
    pub fn new(graph: Graph, source: Arc<Source>, wanted: Wanted) -> Self {
        let ended = wanted.plan.graph.nodes.iter().map(|_| watch::Sender::default()).collect();
        // At most one message for each stage.
        let (begin, beginning) = mpsc::unbounded_channel();
        Self { graph, source, wanted, ended, begun: Mutex::default(), begin, beginning: Mutex::new(Some(beginning)) }
    }

    /// Evaluates what the target needs; gives the target. The first failure ends all of it.
    pub async fn run(self) -> Result<State, Failure> {
        let mut beginning = self.beginning.lock().expect("no holder panics").take().expect("it is run once");
        for number in &self.wanted.plan.graph.needed {
            self.needs(*number);
        }
        let mut running = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(number) = beginning.recv() => {
                    running.push(self.stage(number).map(move |state| state.map(|state| (number, state))).boxed());
                }
                Some(ended) = running.next() => {
                    let (number, state): (usize, State) = match ended {
                        Ok(ended) => ended,
                        Err(error) => {
                            // Nothing of the other stages may go on when the build's end is told.
                            self.graph.executor.ends.cancel.cancel();
                            while running.next().await.is_some() {}
                            return Err(error);
                        }
                    };
                    if number == self.wanted.plan.graph.target {
                        return Ok(state);
                    }
                    self.ended[number].send_replace(Some(Arc::new(state)));
                }
            }
        }
    }

    /// A stage is needed; it begins unless it has.
    fn needs(&self, number: usize) {
        if self.begun.lock().expect("no holder panics").insert(number) {
            // The receiver lives as long as the run.
            let _ = self.begin.send(number);
        }
    }

    /// Another stage, once it is evaluated.
    ///
    /// # Errors
    /// `Cancelled` when it fails, since the build ends then.
    pub async fn other(&self, number: usize) -> Result<Arc<State>, Failure> {
        self.needs(number);
        let mut ended = self.ended[number].subscribe();
        tokio::select! {
            () = self.graph.executor.ends.cancel.cancelled() => Err(Failure::Cancelled),
            ended = ended.wait_for(Option::is_some) => {
                ended.ok().and_then(|state| state.clone()).ok_or(Failure::Cancelled)
            }
        }
    }
}
