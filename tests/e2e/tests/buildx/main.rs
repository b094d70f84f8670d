//! What BuildKit's clients ask of an engine in other ways than the buildx of tests/docker26 does: straight on the API's
//! socket, for the history of builds, and in the wrong way.

mod client;
mod session;

use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1 as control;
use bollard_buildkit_proto::moby::buildkit::v1::frontend as bridge;
use kit::{Engine, Kind};
use serde_json::Value;
use tonic::Code;

use client::{Asked, Client, Door, build, details, exporter, in_round, request, steps};
use session::{Endless, Offered, folders};

fn run<T>(flow: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(flow)
}

fn frontend(options: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    let base = [("filename", "Dockerfile"), ("image-resolve-mode", "local")];
    base.iter().chain(options).map(|(key, value)| (*key, (*value).to_owned())).collect()
}

fn asked(name: &str, exporters: Vec<control::Exporter>) -> Asked {
    Asked { name: name.to_owned(), frontend: frontend(&[]), exporters }
}

fn offers(dockerfile: &'static str, context: &[(&'static str, &'static str)]) -> Offered {
    Offered { folders: folders(dockerfile, context), ..Default::default() }
}

#[test]
fn two_rounds_build_an_image_through_either_door() {
    kit::run(Kind::Boxyard, |engine: &Engine| {
        for (door, image) in [(Door::HandedOver, "handed"), (Door::Straight, "straight")] {
            let socket = engine.socket().to_owned();
            let digest = run(async move {
                let dockerfile = "FROM busybox\nARG WHO\nCOPY file /\nRUN cat /file && echo $WHO > /who\n";
                let files = [("Dockerfile", "not this one"), ("file", "sent by the session\n"), ("other", "x")];
                let mut asked = asked(image, vec![exporter("moby", &[("name", image)])]);
                asked.frontend.push(("build-arg:WHO", "you".to_owned()));
                let ended = build(socket, door, offers(dockerfile, &files), asked).await;
                let told = &ended.steps;
                assert!(told.iter().any(|name| name == "[internal] load build definition from Dockerfile"), "{told:?}");
                assert!(told.iter().any(|name| name.contains("RUN cat /file")), "{told:?}");
                ended.told("containerimage.digest")
            });
            assert!(digest.starts_with("sha256:"), "{door:?}: {digest}");
            engine.docker(&["run", "--rm", image, "cat", "/file", "/who"]).says("sent by the session\nyou");
        }
    });
}

#[test]
fn builds_are_remembered_by_their_names_and_can_be_forgotten() {
    kit::run(Kind::Boxyard, |engine: &Engine| {
        let socket = engine.socket().to_owned();
        run(async move {
            let (good, bad) = ("goodbuildtoberemembered01", "badbuildtoberemembered001");
            let mut client = Client::connect(&socket, Door::HandedOver).await;
            // How buildx looks whether there is a history at all.
            assert!(client.history("buildx-test-history-api-feature", &[]).await.is_empty());
            let ok = offers("FROM busybox\nRUN echo remembered\n", &[]);
            build(socket.clone(), Door::Straight, ok, asked(good, Vec::new())).await.response.expect("built");
            let fails = offers("FROM busybox\n\nRUN echo before && \\\n  exit 7\nRUN echo never\n", &[]);
            let ended = build(socket.clone(), Door::Straight, fails, asked(bad, Vec::new())).await;

            // The client shows the lines of the Dockerfile out of the failure's details.
            let failed = ended.response.expect_err("the step failed");
            assert!(failed.message().contains("exit code: 7"), "{failed}");
            let told = details(&failed).expect("details");
            let of = |kind: &str| {
                let detail = told.details.iter().find(|detail| detail.type_url.ends_with(kind)).expect(kind);
                serde_json::from_slice::<Value>(&detail.value).expect("JSON")
            };
            let source = of("/errdefs.Source+json");
            assert_eq!(source["info"]["filename"], "Dockerfile");
            assert_eq!(source["ranges"][0], serde_json::json!({"start": {"line": 3}, "end": {"line": 4}}));
            assert!(of("/errdefs.Vertex+json")["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")));

            let status = |event: &control::BuildHistoryEvent| {
                let record = event.record.clone().expect("a record");
                (record.r#ref, record.error.map(|error| error.message), record.num_total_steps > 2)
            };
            let all = client.history("", &[]).await;
            assert_eq!(status(&all[0]).0, bad, "the newest comes first");
            assert!(status(&all[0]).1.is_some_and(|why| why.contains("exit code: 7")) && status(&all[0]).2);
            assert_eq!(status(&all[1]), (good.to_owned(), None, true));
            let named = client.history(good, &[]).await;
            assert_eq!(named.len(), 1);
            let only = client.history("", &["status==completed"]).await;
            assert_eq!(only.iter().map(|event| status(event).0).collect::<Vec<_>>(), [good]);
            let again = steps(client.clone(), good.to_owned()).await;
            assert!(again.iter().any(|name| name.contains("RUN echo remembered")), "{again:?}");

            let forget = |name: &str| control::UpdateBuildHistoryRequest {
                r#ref: name.to_owned(),
                delete: true,
                ..Default::default()
            };
            client.control.update_build_history(forget(good)).await.expect("forgotten");
            assert!(client.history(good, &[]).await.is_empty());
            // The name may be used again, when its build is forgotten and also before: each build has its own log.
            let mut earlier = vec!["RUN echo remembered"];
            for (dockerfile, own) in [
                ("FROM busybox\nRUN echo second\n", "RUN echo second"),
                ("FROM busybox\nRUN echo third\n", "RUN echo third"),
            ] {
                session::open(&socket, own, offers(dockerfile, &[])).await;
                let again = client.build(own, asked(good, Vec::new())).await;
                again.response.expect("built");
                let told = again.steps.join("\n");
                assert!(told.contains(own) && !earlier.iter().any(|step| told.contains(step)), "{told}");
                earlier.push(own);
            }
            client.control.update_build_history(forget(good)).await.expect("forgotten");
            let missing = client.control.update_build_history(forget(good)).await.expect_err("it has gone");
            assert_eq!(missing.code(), Code::NotFound);
            let pin = control::UpdateBuildHistoryRequest { r#ref: bad.to_owned(), pinned: true, ..Default::default() };
            assert_eq!(
                client.control.update_build_history(pin).await.expect_err("refused").code(),
                Code::Unimplemented
            );
        });
    });
}

#[test]
fn who_listens_hears_of_builds_and_a_client_that_leaves_ends_its_own() {
    kit::run(Kind::Boxyard, |engine: &Engine| {
        let socket = engine.socket().to_owned();
        run(async move {
            let name = "cancelledbuildofaclient01";
            let mut listener = Client::connect(&socket, Door::HandedOver).await;
            let listening = control::BuildHistoryRequest { active_only: true, ..Default::default() };
            let mut events = listener.control.listen_build_history(listening).await.expect("listening").into_inner();
            let mut next = async || {
                let event = tokio::time::timeout(Duration::from_secs(60), events.message()).await.expect("in time");
                let event = event.expect("an event").expect("no end");
                (event.r#type(), event.record.expect("a record"))
            };
            let begun = tokio::spawn({
                let socket = socket.clone();
                let dockerfile = offers("FROM busybox\nRUN echo begun; sleep 983\n", &[]);
                async move { build(socket, Door::HandedOver, dockerfile, asked(name, Vec::new())).await.response }
            });
            let (kind, record) = next().await;
            assert_eq!((kind, record.r#ref.as_str()), (control::BuildHistoryEventType::Started, name));
            let runs = || std::process::Command::new("pgrep").args(["-fx", "sleep 983"]).output().expect("pgrep");
            let until = async |wanted: bool| {
                for _ in 0..600 {
                    if runs().status.success() == wanted {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                panic!("the step's process: {:?}", runs());
            };
            until(true).await;
            begun.abort();
            until(false).await;
            let (kind, record) = next().await;
            assert_eq!(kind, control::BuildHistoryEventType::Complete);
            assert_eq!(record.error.expect("an error").message, "context canceled");
        });
    });
}

#[test]
fn files_of_a_client_are_read_only_while_its_build_wants_them() {
    kit::run(Kind::Boxyard, |engine: &Engine| {
        let socket = engine.socket().to_owned();
        run(async move {
            let endless = Endless::default();
            let (mut parts, mut is_left) = (endless.parts.subscribe(), endless.is_left.subscribe());
            let offered = Offered { endless: Some(endless), ..offers("FROM busybox\nCOPY file /\n", &[]) };
            session::open(&socket, "endless", offered).await;
            let mut client = Client::connect(&socket, Door::HandedOver).await;
            let begun =
                tokio::spawn(
                    async move { client.build("endless", asked("buildofanendlessfile00001", Vec::new())).await },
                );
            let in_time = Duration::from_secs(60);
            tokio::time::timeout(in_time, parts.wait_for(|parts| *parts > 20)).await.expect("in time").expect("sent");
            // The build is cancelled; the session, a connection of its own, stays.
            begun.abort();
            tokio::time::timeout(in_time, is_left.wait_for(|left| *left)).await.expect("in time").expect("left");
        });
    });
}

#[test]
fn what_fails_or_is_not_served_says_so() {
    kit::run(Kind::Boxyard, |engine: &Engine| {
        let socket = engine.socket().to_owned();
        run(async move {
            session::open(&socket, "failing", offers("FROM busybox\nRUM x\n", &[])).await;
            let mut client = Client::connect(&socket, Door::HandedOver).await;
            let ended = client.round(request("fails", "failing", Some("never")), Some(&[])).await;
            let failed = ended.response.expect_err("the file is wrong");
            assert!(failed.message().contains("unknown instruction: RUM"), "{failed}");
            let told = details(&failed).expect("details");
            assert!(told.details.iter().any(|detail| String::from_utf8_lossy(&detail.value).contains(r#""line":2"#)));
            let alone =
                control::SolveRequest { frontend: "dockerfile.v0".to_owned(), ..request("alone", "nobody", None) };
            let failed = client.control.solve(alone).await.expect_err("there is no such session");
            assert!(failed.message().contains("no active session for nobody"), "{failed}");
            // A client that says so is there: it is not waited for until it comes back.
            session::open(&socket, "away", Offered { is_unavailable: true, ..Default::default() }).await;
            let began = std::time::Instant::now();
            let ended = client.round(request("saysunavailable", "away", Some("never")), Some(&[])).await;
            let failed = ended.response.expect_err("it has no files");
            assert!(failed.message().contains("the disk is away"), "{failed}");
            assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
            let definition = bollard_buildkit_proto::pb::Definition { def: vec![vec![1]], ..Default::default() };
            let llb = control::SolveRequest { definition: Some(definition), ..request("llb", "failing", None) };
            assert_eq!(client.control.solve(llb).await.expect_err("refused").code(), Code::Unimplemented);
            let read = client.bridge.read_dir(in_round("none", bridge::ReadDirRequest::default())).await;
            assert_eq!(read.expect_err("not served").code(), Code::Unimplemented);
            let late = client.bridge.ping(in_round("no-such-round", bridge::PingRequest {})).await;
            assert_eq!(late.expect_err("no round").code(), Code::NotFound);
        });
    });
}
