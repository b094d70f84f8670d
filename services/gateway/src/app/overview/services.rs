use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use model::ErrorKind;

use super::page::List;
use super::shape::Time;
use crate::app::{App, Failure, Outcome};
use crate::shape;

/// Signs of life that were read just now are used again.
const FRESH: Duration = Duration::from_secs(1);
/// So long the bus may take to say who is alive.
const PATIENCE: Duration = Duration::from_secs(5);
/// A process that is gone is shown for so long.
const REMEMBERED: Duration = Duration::from_secs(15 * 60);

shape! {
    /// One process of this Boxyard.
    pub struct Service {
        /// gateway, layer-store, registry-sync, build-worker or node.
        pub kind: String,
        /// Its name among its kind.
        pub id: String,
        /// Version of its program.
        pub version: String,
        /// Host that it runs on.
        pub host: String,
        /// Its process id on that host.
        pub pid: u32,
        /// When it was started.
        pub started_at: Option<Time>,
        /// Seconds since it was started; null when it is gone.
        pub uptime_seconds: Option<u64>,
        /// Whether it gave a sign of life in the last 15 seconds. What is gone is shown for 15 minutes.
        pub alive: bool,
        /// Memory that it holds, in bytes (RSS).
        pub memory_bytes: Option<u64>,
        /// Processor time that it has used, in seconds.
        pub cpu_seconds: Option<f64>,
        /// Its threads.
        pub threads: Option<u32>,
    }
}

/// Who was seen, and when last.
#[derive(Default)]
pub struct Seen {
    asked: Option<Instant>,
    known: BTreeMap<(String, String), Sign>,
}

/// The last sign of life of a process.
#[derive(Clone)]
pub struct Sign {
    pub alive: proto::Alive,
    pub is_alive: bool,
    last: Instant,
}

impl Seen {
    fn take(&mut self, alive: Vec<proto::Alive>) {
        let now = Instant::now();
        self.asked = Some(now);
        for sign in self.known.values_mut() {
            sign.is_alive = false;
        }
        for alive in alive {
            self.known.insert((alive.kind.clone(), alive.id.clone()), Sign { alive, is_alive: true, last: now });
        }
        self.known.retain(|_, sign| now.duration_since(sign.last) < REMEMBERED);
    }
}

impl App {
    /// Everyone who is alive, and those who went in the last minutes.
    ///
    /// # Errors
    /// `Unavailable` when the bus does not answer.
    pub async fn signs(&self) -> Outcome<Vec<Sign>> {
        // Held while the bus is asked, so that many who ask at once ask it once.
        let mut seen = self.seen.lock().await;
        if seen.asked.is_none_or(|asked| asked.elapsed() >= FRESH) {
            let late = |_| Failure::new(ErrorKind::Unavailable, "the bus does not say who is alive");
            seen.take(tokio::time::timeout(PATIENCE, self.bus.alive()).await.map_err(late)??);
        }
        Ok(seen.known.values().cloned().collect())
    }

    pub async fn services(&self) -> Outcome<List<Service>> {
        let now_ms = metadata::now_ms();
        let service = |sign: Sign| {
            let Sign { alive, is_alive, last: _ } = sign;
            let age_seconds = u64::try_from(now_ms - alive.started_at_ms).unwrap_or(0) / 1000;
            Service {
                kind: alive.kind,
                id: alive.id,
                version: alive.version,
                host: alive.host,
                pid: alive.pid,
                started_at: Time::of_ms(alive.started_at_ms),
                uptime_seconds: is_alive.then_some(age_seconds),
                alive: is_alive,
                memory_bytes: alive.process.as_ref().map(|process| process.resident_bytes),
                cpu_seconds: alive.process.as_ref().map(|process| process.cpu_seconds),
                threads: alive.process.as_ref().map(|process| process.threads),
            }
        };
        Ok(List::whole(self.signs().await?.into_iter().map(service).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_falls_silent_is_shown_as_gone() {
        let alive = |id: &str| proto::Alive { kind: "node".to_owned(), id: id.to_owned(), ..Default::default() };
        let mut seen = Seen::default();
        seen.take(vec![alive("a"), alive("b")]);
        seen.take(vec![alive("b")]);
        let states: Vec<_> = seen.known.values().map(|sign| (sign.alive.id.as_str(), sign.is_alive)).collect();
        assert_eq!(states, [("a", false), ("b", true)]);
    }
}
