//! Two gateways on one PostgreSQL: what one does, the other knows, and what one leaves, the other ends.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use kit::{
    Boxyard, Gateway, Options, Output, Postgres, REGISTRY_PASSWORD, REGISTRY_USER, Registry, busybox, client,
    processes_naming, wait_until,
};

/// The parts in the order in which they end.
struct Pair {
    second: Gateway,
    boxyard: Boxyard,
    postgres: Postgres,
}

impl Pair {
    fn start() -> Self {
        let postgres = Postgres::start();
        let boxyard = Boxyard::start(Options { database: Some(postgres.url()), ..Options::default() });
        boxyard.feed(&["load", "-q"], &busybox()).says("Loaded image: busybox:latest");
        let second = Gateway::start(&boxyard, "second");
        Self { second, boxyard, postgres }
    }

    fn stop(self) {
        self.second.stop();
        self.boxyard.stop();
    }

    /// Docker's events of one container, or of one image's name, as both gateways tell them. Returns when both have told the
    /// last one.
    fn events(&self, since: u64, filter: &str, last: &str) -> [Vec<String>; 2] {
        let (since, filter) = (since.to_string(), format!("--filter={filter}"));
        let format = "--format={{.Type}} {{.Action}} {{.Actor.ID}} {{json .Actor.Attributes}}";
        let told = |docker: &dyn Fn(&[&str]) -> Output| -> Vec<String> {
            // No later than now: what is told by then is printed, and nothing is waited for.
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
            let until = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
            let output = docker(&["events", "--since", &since, "--until", &until, &filter, format]);
            output.ok().lines().map(str::to_owned).collect()
        };
        let is_whole = |lines: &[String]| lines.iter().any(|line| line.starts_with(last));
        wait_until(&format!("the event {last:?} on both gateways"), 60, || {
            let both = [told(&|args| self.boxyard.docker(args)), told(&|args| self.second.docker(args))];
            both.iter().all(|lines| is_whole(lines)).then_some(both)
        })
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// What was told by these actions, in order.
fn actions<'a>(lines: &'a [String], wanted: &[&str]) -> Vec<&'a str> {
    let words = lines.iter().filter_map(|line| line.split(' ').nth(1));
    words.filter(|word| wanted.contains(word)).collect()
}

/// What two gateways do at once, each may tell in an order of its own.
fn sorted(lines: &[String]) -> Vec<&String> {
    let mut sorted: Vec<_> = lines.iter().collect();
    sorted.sort();
    sorted
}

/// The docker command on a socket, in the background.
fn spawn(command: &mut Command, args: &[&str], stdin: &[u8]) -> Child {
    let piped = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("docker starts");
    child.stdin.take().expect("piped").write_all(stdin).expect("docker reads");
    child
}

/// What it printed.
fn said(child: Child) -> String {
    let output = child.wait_with_output().expect("docker ends");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn containers_and_events() {
    let pair = Pair::start();
    let (first, second) = (&pair.boxyard, &pair.second);
    let since = now();
    let script = "until test -e /go; do sleep 0.05; done; echo said; exit 7";
    second.docker(&["create", "--name", "crossed", "--label", "colour=red", "busybox", "sh", "-c", script]).ok();
    first.docker(&["start", "crossed"]).ok();
    second.docker(&["ps", "--format", "{{.Names}} {{.State}}"]).says("crossed running");
    let waiting = spawn(&mut client(&second.socket()), &["wait", "crossed"], b"");
    let following = spawn(&mut client(&second.socket()), &["logs", "-f", "crossed"], b"");
    let attached = spawn(&mut client(&second.socket()), &["attach", "--no-stdin", "crossed"], b"");
    pair.events(since, "label=colour=red", "container attach");
    second.docker(&["exec", "crossed", "echo", "inside"]).says("inside");
    first.docker(&["exec", "crossed", "touch", "/go"]).ok();
    assert_eq!(said(waiting), "7\n");
    assert_eq!(said(following), "said\n");
    assert_eq!(said(attached), "said\n");
    pair.events(since, "label=colour=red", "container die");
    first.docker(&["rename", "crossed", "renamed"]).ok();
    second.docker(&["rm", "renamed"]).ok();
    first.docker(&["inspect", "renamed"]).fails(1, "No such object: renamed");

    let both = pair.events(since, "label=colour=red", "container destroy");
    assert_eq!(sorted(&both[0]), sorted(&both[1]), "both tell the same");
    for told in both {
        assert_eq!(actions(&told, &["start", "die", "rename", "destroy"]), ["start", "die", "rename", "destroy"]);
        assert_eq!(actions(&told, &["create", "attach", "exec_die"]), ["create", "attach", "exec_die", "exec_die"]);
        assert!(told.last().is_some_and(|line| line.contains(r#""name":"renamed""#)), "{told:#?}");
    }

    // A short life, which one gateway hears of when its record has gone already.
    for round in 0..5 {
        let name = format!("short-{round}");
        let since = now();
        let id = second.docker(&["create", "--rm", "--name", &name, "busybox", "true"]).ok().to_owned();
        first.docker(&["start", "-a", &name]).ok();
        let both = pair.events(since, &format!("container={id}"), "container destroy");
        assert_eq!(sorted(&both[0]), sorted(&both[1]), "both tell the same");
        for told in both {
            let node = ["connect", "start", "die", "disconnect", "destroy"];
            assert_eq!(actions(&told, &node), node, "{told:#?}");
            let named = |line: &&String| line.starts_with("container") && line.contains(&format!(r#""name":"{name}""#));
            assert_eq!(told.iter().filter(named).count(), 5, "create, attach, start, die, destroy: {told:#?}");
        }
    }

    let since = now();
    first.docker(&["run", "-d", "--name", "holder", "busybox", "sleep", "300"]).ok();
    second.docker(&["rmi", "busybox"]).fails(1, "is using its referenced image");
    second.docker(&["tag", "busybox", "other:1"]).ok();
    first.docker(&["rmi", "other:1"]).says("Untagged: other:1");
    let both = pair.events(since, "type=image", "image untag");
    assert_eq!(sorted(&both[0]), sorted(&both[1]), "both tell the same");
    assert_eq!(both[0].len(), 2, "tag, untag: {both:#?}");
    second.docker(&["rm", "-f", "holder"]).ok();
    pair.stop();
}

#[test]
fn builds() {
    let registry = Registry::start_with_login();
    let mut pair = Pair::start();
    let first = &pair.boxyard;
    let base = format!("{}/private", registry.host());
    let login = ["login", "-u", REGISTRY_USER, "--password-stdin", &registry.host()];
    first.feed(&login, REGISTRY_PASSWORD.as_bytes()).ok();
    pair.second.feed(&login, REGISTRY_PASSWORD.as_bytes()).ok();
    first.feed(&["build", "-q", "-t", &base, "-"], b"FROM busybox\nRUN echo base > /base\n").ok();
    first.docker(&["push", "-q", &base]).ok();
    // The worker asks any gateway for the base; one holds the client's credentials.
    let dockerfile = format!("FROM {base}\nRUN cat /base\n");
    for _ in 0..6 {
        pair.second
            .feed(&["build", "--pull", "-t", "made", "-"], dockerfile.as_bytes())
            .says("Successfully tagged made");
        first.docker(&["images", "-q", "made"]).says(&pair.second.docker(&["images", "-q", "made"]).stdout);
    }
    first.docker(&["run", "--rm", "made", "cat", "/base"]).says("base");

    // A gateway dies in the middle of its client's build.
    let step = "sleep 3141; echo step-of-two-gateways";
    let dockerfile = format!("FROM busybox\nRUN {step}\n");
    let building = spawn(&mut client(&pair.second.socket()), &["build", "-"], dockerfile.as_bytes());
    let runs = || processes_naming(step).iter().any(|(_, line)| line.contains("/bin/sh"));
    wait_until("the blocking step", 60, || runs().then_some(()));
    let state = || pair.postgres.sql("SELECT state FROM builds ORDER BY created_ms DESC, id LIMIT 1");
    assert_eq!(state(), "running");
    first.docker(&["images", "-q", "made"]).ok();
    pair.second.kill();
    let output = building.wait_with_output().expect("docker ends");
    assert!(!output.status.success() && !output.stderr.is_empty(), "the client is told: {output:?}");
    first.docker(&["run", "--rm", "made", "echo", "goes on"]).says("goes on");
    pair.second.up();
    wait_until("the build to be cancelled", 60, || (state() == "cancelled" && !runs()).then_some(()));
    first.feed(&["build", "-t", "after", "-"], b"FROM busybox\nRUN echo after > /after\n").ok();
    pair.second.docker(&["run", "--rm", "after", "cat", "/after"]).says("after");
    pair.stop();
}

#[test]
fn one_file_has_one_gateway() {
    let boxyard = Boxyard::start(Options::default());
    let (status, said) = Gateway::start_on_same_folder(&boxyard);
    assert!(!status.success());
    assert!(said.contains("another gateway"), "it says why: {said}");
    boxyard.docker(&["ps"]).ok();
    boxyard.stop();
}
