//! Builds by the API alone: a session that stays open, and `POST /build?version=2` as the docker command sends it. What is
//! timed is from the request to the end of its answer, on both sides by this same client.

use std::collections::BTreeMap;
use std::time::Instant;

use kit::Client;
use kit::session::open_session;

use crate::pair::{Pair, Side};
use crate::transfers::middle;

const SESSION: &str = "bench";

/// Median seconds of a build whose steps are all cached; the first rounds make them, and do not count.
pub fn cached(pair: &Pair, dockerfile: &str, rounds: usize) -> [f64; 2] {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    for side in &pair.sides {
        let folders = BTreeMap::from([
            ("dockerfile", BTreeMap::from([("Dockerfile", dockerfile.to_owned())])),
            ("context", BTreeMap::new()),
        ]);
        runtime.block_on(open_session(side.socket(), SESSION, folders));
    }
    let mut taken = [Vec::new(), Vec::new()];
    for round in 0..rounds + 2 {
        for (side, taken) in pair.sides.iter().zip(&mut taken) {
            let begin = Instant::now();
            build(side, round);
            if round >= 2 {
                taken.push(begin.elapsed().as_secs_f64());
            }
        }
    }
    taken.map(middle)
}

fn build(side: &Side, round: usize) {
    let client = Client::new(side.socket());
    let path = format!("/build?version=2&remote=client-session&session={SESSION}&buildid=bench-{round}&t=bench-api");
    let answer = client.send("POST", &path, "application/x-tar", "").expect("an answer");
    assert!(answer.status == 200 && !answer.text().contains("errorDetail"), "{}", answer.text());
    assert!(answer.text().contains("moby.image.id"), "no image: {}", answer.text());
}
