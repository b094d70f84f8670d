//! A step that runs here for everybody who wants it: what it has printed, and how it ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bus::CLAIM_TTL;
use tokio::sync::watch;

use crate::lifeline::Renewals;
use crate::log::parts;

/// So much of a step's output is kept for who joins late.
const KEPT_BYTES: usize = 8 << 20;
const CLIPPED: &str = "\n[output clipped, who follows a step sees its first 8 MiB]\n";

/// How a step ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    /// It made this image, whose layers are stored.
    Made(Box<proto::Image>),
    /// Of the graph builder: what it made, whose layers are stored.
    Recorded(Box<proto::StepRecord>),
    /// Its command failed by itself, as it would anywhere.
    Command { command: String, code: i32 },
    /// It was cut short.
    Dropped,
}

/// Written by one stage of a build, read by any number of others from its first line on.
pub struct Flight {
    pub build_id: String,
    /// Renewed as long as this worker has the step's claim.
    pub claim: Renewals,
    /// The stage of that build.
    pub stage: usize,
    told: Mutex<Told>,
    newest: watch::Sender<()>,
    followers: watch::Sender<usize>,
    moved: AtomicBool,
}

#[derive(Default)]
struct Told {
    lines: Vec<proto::Progress>,
    bytes: usize,
    ended: Option<Ended>,
}

impl Flight {
    pub fn new(build_id: &str, stage: usize) -> Self {
        Self {
            build_id: build_id.to_owned(),
            claim: Renewals::new(CLAIM_TTL),
            stage,
            told: Mutex::default(),
            newest: watch::Sender::default(),
            followers: watch::Sender::default(),
            moved: AtomicBool::new(false),
        }
    }

    /// Text of the classic builder's log.
    pub fn say(&self, text: &str) {
        self.keep(text.len(), |clipped| {
            let text = if clipped { CLIPPED } else { text };
            parts(text).map(|part| proto::Progress { stream: part.to_owned(), ..Default::default() }).collect()
        });
    }

    /// A line of the graph builder's, at most a chunk long.
    pub fn tell(&self, line: &proto::BuildOutputLine) {
        self.keep(line.text.len(), |clipped| {
            let text = if clipped { CLIPPED.as_bytes().to_vec() } else { line.text.clone() };
            let line = proto::BuildOutputLine { text, ..line.clone() };
            vec![proto::Progress { line: Some(line), ..Default::default() }]
        });
    }

    fn keep(&self, bytes: usize, lines: impl FnOnce(bool) -> Vec<proto::Progress>) {
        let mut told = self.told.lock().expect("no holder panics");
        if told.bytes > KEPT_BYTES {
            return;
        }
        told.bytes += bytes;
        let clipped = told.bytes > KEPT_BYTES;
        told.lines.extend(lines(clipped));
        drop(told);
        self.newest.send_replace(());
    }

    pub fn end(&self, ended: Ended) {
        self.told.lock().expect("no holder panics").ended = Some(ended);
        self.newest.send_replace(());
    }

    pub fn follow(self: &Arc<Self>) -> Follower {
        self.followers.send_modify(|followers| *followers += 1);
        Follower { newest: self.newest.subscribe(), seen: 0, flight: self.clone() }
    }

    pub fn is_followed(&self) -> bool {
        *self.followers.borrow() > 0
    }

    /// Returns when nobody follows.
    pub async fn unfollowed(&self) {
        // The sender lives as long as this.
        let _ = self.followers.subscribe().wait_for(|followers| *followers == 0).await;
    }

    /// An earlier stage of the same build has the same step, and its place in the output is there.
    pub fn move_output(&self) {
        self.moved.store(true, Ordering::SeqCst);
    }

    pub fn output_moved(&self) -> bool {
        self.moved.load(Ordering::SeqCst)
    }
}

/// One place in what a step prints. The step knows that somebody is there as long as this lives.
pub struct Follower {
    flight: Arc<Flight>,
    newest: watch::Receiver<()>,
    seen: usize,
}

impl Follower {
    /// What was printed since, waited for where there is nothing; with the end, nothing more follows.
    pub async fn next(&mut self) -> (Vec<proto::Progress>, Option<Ended>) {
        loop {
            self.newest.borrow_and_update();
            let (lines, ended) = {
                let told = self.flight.told.lock().expect("no holder panics");
                (told.lines[self.seen..].to_vec(), told.ended.clone())
            };
            self.seen += lines.len();
            if !lines.is_empty() || ended.is_some() {
                return (lines, ended);
            }
            // The sender lives as long as the flight.
            let _ = self.newest.changed().await;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.flight.followers.send_modify(|followers| *followers -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(flight: Arc<Flight>) -> (String, Ended) {
        let (mut text, mut follower) = (String::new(), flight.follow());
        loop {
            let (lines, ended) = follower.next().await;
            text.extend(lines.into_iter().map(|line| line.stream));
            if let Some(ended) = ended {
                return (text, ended);
            }
        }
    }

    #[tokio::test]
    async fn who_comes_early_or_late_sees_all() {
        let flight = Arc::new(Flight::new("b", 0));
        let early = tokio::spawn(all(flight.clone()));
        flight.say("one\n");
        flight.say("two\n");
        let left = flight.follow();
        assert!(flight.is_followed());
        drop(left);
        let failed = Ended::Command { command: "false".into(), code: 1 };
        flight.end(failed.clone());
        for (text, ended) in [early.await.expect("read"), all(flight.clone()).await] {
            assert_eq!((text.as_str(), &ended), ("one\ntwo\n", &failed));
        }
        flight.unfollowed().await;
        assert!(!flight.is_followed());
    }

    #[tokio::test]
    async fn output_is_kept_up_to_a_limit() {
        let flight = Arc::new(Flight::new("b", 0));
        let line = "x".repeat(1 << 20);
        (0..20).for_each(|_| flight.say(&line));
        flight.end(Ended::Dropped);
        let (text, _) = all(flight).await;
        assert!(text.len() <= KEPT_BYTES + CLIPPED.len() && text.ends_with(CLIPPED));
    }
}
