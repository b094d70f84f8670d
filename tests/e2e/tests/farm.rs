//! The build farm: stages that run at once, steps that many builds share.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use kit::{Boxyard, Options};

/// A Boxyard with busybox and so many workers.
fn farm(workers: u32) -> Boxyard {
    let boxyard = Boxyard::start(Options { workers, ..Options::default() });
    boxyard.feed(&["load", "-q"], &kit::busybox()).ok();
    boxyard
}

/// Answers so many callers only when all of them have called; the port, and who has.
fn meeting(callers: usize) -> (u16, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let port = listener.local_addr().expect("the address").port();
    let met = thread::spawn(move || {
        let mut lines: Vec<(String, TcpStream)> = (0..callers)
            .map(|_| {
                let (stream, _) = listener.accept().expect("a caller");
                let mut said = String::new();
                BufReader::new(&stream).read_line(&mut said).expect("a line");
                (said.trim().to_owned(), stream)
            })
            .collect();
        lines.iter_mut().for_each(|(_, stream)| stream.write_all(b"all are here\n").expect("answer"));
        let mut names: Vec<String> = lines.into_iter().map(|(name, _)| name).collect();
        names.sort();
        names
    });
    (port, met)
}

#[test]
fn stages_that_do_not_need_each_other_run_at_once() {
    let boxyard = farm(1);
    let (port, met) = meeting(2);
    let call = |name: &str| format!("RUN echo {name} | timeout 60 nc 127.0.0.1 {port} > /{name} && cat /{name}\n");
    let stages = format!(
        "FROM busybox AS one\n{}FROM busybox\n{}COPY --from=one /one /\nRUN echo from one && cat /one\n",
        call("one"),
        call("two"),
    );
    let built = boxyard.feed(&["build", "--network", "host", "-t", "both", "-"], stages.as_bytes());
    built.says("Successfully tagged both:latest").says("from one\nall are here");
    assert_eq!(met.join().expect("they met"), ["one", "two"]);
    let steps: Vec<&str> = built.lines().into_iter().filter_map(|line| line.strip_prefix("Step ")).collect();
    let steps: Vec<&str> = steps.iter().map(|line| &line[..3]).collect();
    assert_eq!(steps, ["1/6", "2/6", "3/6", "4/6", "5/6", "6/6"], "{built}");
    let place = |text: &str| built.stdout.find(text).unwrap_or_else(|| panic!("{text}: {built}"));
    assert!(place("all are here\n") < place("Step 3/6"), "each stage has its place in the output: {built}");

    // The first stage that fails, in the order of the file, is the build's failure, and ends the others.
    let stages = "FROM busybox\nRUN sleep 1; exit 3\nFROM busybox\nRUN exit 4\nFROM busybox\nRUN sleep 600\n";
    let failed = boxyard.feed(&["build", "-"], stages.as_bytes());
    failed.fails(3, "returned a non-zero code: 3");
    assert!(!failed.stdout.contains("Step 3/6"), "{failed}");
    boxyard.stop();
}
