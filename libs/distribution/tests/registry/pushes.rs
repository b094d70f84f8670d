//! How blobs get into a registry.

use distribution::registry::{Access, Begun, Credentials, First, Outgoing, Repository};
use futures::StreamExt as _;
use kit::{Reply, Server};
use model::{Digest, ErrorKind};

use crate::{repository, user};

async fn pushing(server: &Server, credentials: Credentials) -> Repository {
    repository(&server.host(), Access::Push, credentials).await.expect("a registry answers")
}

fn body(chunks: &'static [&'static str]) -> Outgoing {
    futures::stream::iter(chunks).map(|chunk| Ok(chunk.as_bytes().into())).boxed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_goes_in_three_requests() {
    let server = Server::start(|request| match request.line().as_str() {
        "POST /v2/app/blobs/uploads/" => Reply::new(202, "").with("Location", "/v2/app/blobs/uploads/1?_state=a"),
        "PATCH /v2/app/blobs/uploads/1" => Reply::new(202, "").with("Location", "/v2/app/blobs/uploads/1?_state=b"),
        "PUT /v2/app/blobs/uploads/1" => Reply::new(201, ""),
        _ => Reply::new(200, "{}"),
    });
    let repository = pushing(&server, Credentials::default()).await;
    let session = repository.begin_upload().await.expect("begun");
    let session = session.append(body(&["one", "two"])).await.expect("appended");
    let digest = Digest::of(b"onetwo");
    session.finish(&digest).await.expect("finished");
    let [_, patch, put] = &server.seen()[..] else { panic!("{:?}", server.lines()) };
    assert_eq!((patch.body.as_slice(), patch.path.as_str()), (&b"onetwo"[..], "/v2/app/blobs/uploads/1?_state=a"));
    let wanted = format!("/v2/app/blobs/uploads/1?_state=b&digest=sha256%3A{}", digest.hex());
    assert_eq!((put.path.as_str(), put.header("content-length")), (wanted.as_str(), Some("0")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_another_repository_is_mounted_or_uploaded() {
    let digest = Digest::of(b"shared");
    let server = Server::start(|request| match request.line().as_str() {
        "POST /v2/app/blobs/uploads/" if request.path.contains("from=library%2Fother") => Reply::new(201, ""),
        "POST /v2/app/blobs/uploads/" if request.path.contains("from=secret") => {
            Reply::new(403, r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#)
        }
        "POST /v2/app/blobs/uploads/" => Reply::new(202, "").with("Location", "/v2/app/blobs/uploads/1"),
        _ => Reply::new(200, "{}"),
    });
    let repository = pushing(&server, Credentials::default()).await;
    for (from, mounted) in [("library/other", true), ("gone", false), ("secret", false)] {
        let begun = repository.mount(&digest, from).await.expect("begun");
        assert_eq!(matches!(begun, Begun::Mounted), mounted, "{from}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_stay_when_an_upload_goes_elsewhere() {
    let elsewhere = Server::start(|_| Reply::new(202, "").with("Location", "/upload/2"));
    let target = elsewhere.url("/upload/1");
    let server = Server::start(move |request| match (request.header("authorization"), request.method.as_str()) {
        (None, _) => Reply::unauthorized(r#"Basic realm="x""#),
        (Some(_), "POST") => Reply::new(202, "").with("Location", target.clone()),
        _ => Reply::new(200, "{}"),
    });
    let repository = pushing(&server, user("me", "word")).await;
    let session = repository.begin_upload().await.expect("begun");
    session.append(body(&["x"])).await.expect("appended").finish(&Digest::of(b"x")).await.expect("finished");
    assert_eq!(elsewhere.lines(), ["PATCH /upload/1", "PUT /upload/2"]);
    assert!(elsewhere.seen().iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_pushes_get_the_registrys_words() {
    let server = Server::start(|request| match request.method.as_str() {
        "PUT" => Reply::new(
            400,
            r#"{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match uploaded content"}]}"#,
        ),
        "POST" if request.path.contains("app") => Reply::new(202, ""),
        _ => Reply::new(200, "{}"),
    });
    let repository = pushing(&server, Credentials::default()).await;
    let error = repository.begin_upload().await.err().expect("no Location");
    assert_eq!(error.to_string(), "the registry does not say where the upload goes");
    let error = repository.put_manifest("1", oci::media_type::DOCKER_MANIFEST, b"{}").await.expect_err("refused");
    assert_eq!(error.to_string(), "digest invalid");
    assert_eq!(error.kind(), ErrorKind::Internal);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_with_what_was_sent_and_is_sent_anew_where_that_broke_off() {
    let uploads = std::sync::atomic::AtomicUsize::new(0);
    let server = Server::start(move |request| match request.method.as_str() {
        "POST" => {
            let number = uploads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Reply::new(202, "").with("Location", format!("/upload/{number}"))
        }
        // The second one is lost on the way.
        "PATCH" if request.path == "/upload/1" => Reply::new(503, "{}"),
        "PATCH" => Reply::new(202, "").with("Location", request.path.clone()),
        "PUT" => Reply::new(201, ""),
        _ => Reply::new(200, "{}"),
    });
    let repository = pushing(&server, Credentials::default()).await;
    let digest = Digest::of(b"onetwo");
    for (wanted, what) in [
        (&["PATCH /upload/0", "PUT /upload/0"][..], "what was sent is finished"),
        (&["PATCH /upload/1", "POST /v2/app/blobs/uploads/", "PATCH /upload/2", "PUT /upload/2"], "it is sent anew"),
    ] {
        let session = repository.begin_upload().await.expect("begun");
        let before = server.lines().len();
        let first = First::Appended(session.append(body(&["one", "two"])).await);
        repository.upload(&digest, first, async || Ok(body(&["one", "two"]))).await.expect(what);
        assert_eq!(&server.lines()[before..], wanted, "{what}");
    }
}
