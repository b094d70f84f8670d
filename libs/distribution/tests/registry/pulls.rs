//! What a registry sends, and what it sends instead.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use distribution::registry::{Error, Reference, Repository};
use futures::TryStreamExt as _;
use kit::{Reply, Request, Server};
use model::{Digest, ErrorKind};

use crate::pulling;

fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

async fn fetched(repository: &Repository, digest: &Digest, size: u64) -> Result<Vec<u8>, Error> {
    let chunks: Vec<_> = repository.blob(digest, size).try_collect().await?;
    Ok(chunks.concat())
}

/// Serves `/v2/` and answers all else by `answer`, which gets the number of the request.
fn serve(answer: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Server {
    let number = AtomicUsize::new(0);
    Server::start(move |request| match request.path.as_str() {
        "/v2/" => Reply::new(200, "{}"),
        _ => answer(number.fetch_add(1, Ordering::SeqCst), request),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_breaks_off_goes_on_where_it_broke() {
    let blob = noise(3_000_000);
    let (digest, kept) = (Digest::of(&blob), blob.clone());
    let server = serve(move |number, request| match (number, request.header("range")) {
        (0, None) => Reply::new(200, kept.clone()).cut(1_000_000),
        (_, Some(range)) => {
            let first: usize = range["bytes=".len()..].trim_end_matches('-').parse().expect("a range");
            let part = kept[first..].to_vec();
            let range = format!("bytes {first}-{}/{}", kept.len() - 1, kept.len());
            let cut = if number == 1 { part.len() / 2 } else { part.len() };
            Reply::new(206, part).with("Content-Range", range).cut(cut)
        }
        (_, None) => Reply::new(500, "the whole blob once more"),
    });
    let repository = pulling(&server.host()).await;
    assert!(fetched(&repository, &digest, blob.len() as u64).await.expect("resumed") == blob);
    assert_eq!(server.seen().len(), 3);
    assert_eq!(server.sent_bytes() - 2, blob.len() as u64, "no byte went twice, beside the ping's two");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_without_ranges_begins_anew() {
    let blob = noise(500_000);
    let (digest, kept) = (Digest::of(&blob), blob.clone());
    let server = serve(move |number, _| Reply::new(200, kept.clone()).cut(if number < 2 { 200_000 } else { 500_000 }));
    let repository = pulling(&server.host()).await;
    assert!(fetched(&repository, &digest, 500_000).await.expect("begun anew") == blob);
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_always_hangs_up_is_given_up() {
    let server = serve(|_, _| Reply::new(200, noise(1000)).cut(0));
    let repository = pulling(&server.host()).await;
    let error = fetched(&repository, &Digest::of(b""), 1000).await.expect_err("given up");
    assert_eq!((error.kind(), server.seen().len()), (ErrorKind::Unavailable, 5), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_about_length_are_found_at_once() {
    let digest = Digest::of(b"");
    type Case = (fn() -> Reply, u64, &'static str);
    let cases: [Case; 4] = [
        (|| Reply::new(200, noise(100)), 200, "has fewer than the 200 bytes of its manifest"),
        (|| Reply::new(200, noise(300)), 200, "has more than the 200 bytes of its manifest"),
        (|| Reply::new(200, noise(1 << 20)).endless(), 200, "has more than the 200 bytes of its manifest"),
        (|| Reply::new(206, noise(200)).with("Content-Range", "bytes 7-206/207"), 200, "another part"),
    ];
    for (reply, size, words) in cases {
        let server = serve(move |_, _| reply());
        let repository = pulling(&server.host()).await;
        let error = fetched(&repository, &digest, size).await.expect_err(words);
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!((error.kind(), server.seen().len()), (ErrorKind::Corrupt, 1), "{error}");
        assert!(server.sent_bytes() < 32 << 20, "an endless body was read on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_about_content_are_found() {
    let manifest = br#"{"schemaVersion":2,"config":{},"layers":[]}"#.to_vec();
    let digest = Digest::of(&manifest);
    let other = Digest::of(b"other");
    let claimed = other.to_string();
    let kept = manifest.clone();
    let server = serve(move |_, request| match request.line().as_str() {
        "GET /v2/app/manifests/lies" => Reply::new(200, kept.clone()).with("Docker-Content-Digest", claimed.clone()),
        "GET /v2/app/manifests/index" => Reply::new(200, kept.clone()).with("Content-Type", oci::media_type::OCI_INDEX),
        _ => Reply::new(200, kept.clone()).with("Content-Type", oci::media_type::OCI_MANIFEST),
    });
    let repository = pulling(&server.host()).await;
    let right = repository.manifest(&Reference::Digest(digest.clone())).await.expect("is right");
    assert_eq!((right.digest, right.bytes), (digest.clone(), manifest.clone()));
    for (reference, words) in [
        (Reference::Digest(other.clone()), "manifest verification failed for digest sha256:"),
        (Reference::Tag("lies".to_owned()), "manifest verification failed for digest sha256:"),
        (Reference::Tag("index".to_owned()), "is no application/vnd.oci.image.index.v1+json"),
    ] {
        let error = repository.manifest(&reference).await.expect_err("a lie");
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
    let error = repository.blob_bytes(&other, manifest.len() as u64, 1 << 20).await.expect_err("other bytes");
    assert_eq!(error.to_string(), format!("blob verification failed for digest {other}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_of_a_hundred_megabytes_is_not_read() {
    let server = serve(|_, request| match request.line().as_str() {
        "GET /v2/app/manifests/long" => Reply::new(200, vec![b' '; 100 << 20]),
        _ => Reply::new(200, vec![b' '; 1 << 20]).endless(),
    });
    let repository = pulling(&server.host()).await;
    for tag in ["long", "endless"] {
        let error = repository.manifest(&Reference::Tag(tag.to_owned())).await.expect_err(tag);
        assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
        assert!(error.to_string().ends_with("is larger than 4194304 bytes"), "{error}");
    }
    let digest = Digest::of(b"");
    assert!(repository.blob_bytes(&digest, 9 << 20, 8 << 20).await.is_err(), "a config of nine megabytes");
    assert!(server.sent_bytes() < 64 << 20, "{} bytes were taken", server.sent_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_registry_is_asked_again_when_it_says_so() {
    let manifest = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;
    let busy = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#;
    let server = serve(move |number, request| match (request.line().as_str(), number) {
        ("GET /v2/app/manifests/busy", 0) => Reply::new(429, busy).with("Retry-After", "2"),
        ("GET /v2/app/manifests/busy", 1) => Reply::new(503, "<html>"),
        ("GET /v2/app/manifests/tomorrow", _) => Reply::new(429, busy).with("Retry-After", "86400"),
        ("GET /v2/app/manifests/broken", _) => Reply::new(500, ""),
        _ => Reply::new(200, manifest),
    });
    let repository = pulling(&server.host()).await;
    let tag = |name: &str| Reference::Tag(name.to_owned());
    let begin = Instant::now();
    repository.manifest(&tag("busy")).await.expect("at the third time");
    assert!(begin.elapsed() >= Duration::from_secs(2), "Retry-After was not waited for");
    assert_eq!(server.seen().len(), 3);
    let error = repository.manifest(&tag("tomorrow")).await.expect_err("not waited for");
    assert_eq!(error.to_string(), "toomanyrequests: You have reached your pull rate limit.");
    assert_eq!(server.seen().len(), 4);
    let error = repository.manifest(&tag("broken")).await.expect_err("for ever");
    assert_eq!(error.to_string(), "received unexpected HTTP status: 500 Internal Server Error");
    assert_eq!(server.seen().len(), 9, "five times in all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_registry_is_left_alone_by_looks_at_blobs_too() {
    let (busy, tomorrow) = (Digest::of(b"busy"), Digest::of(b"tomorrow"));
    let path = |digest: &Digest| format!("HEAD /v2/app/blobs/{digest}");
    let (later, never) = (path(&busy), path(&tomorrow));
    let server = serve(move |number, request| match (request.line(), number) {
        (line, 0) if line == later => Reply::new(429, "").with("Retry-After", "2"),
        (line, _) if line == never => Reply::new(429, "").with("Retry-After", "86400"),
        _ => Reply::new(200, "four"),
    });
    let repository = pulling(&server.host()).await;
    let begin = Instant::now();
    assert_eq!(repository.has_blob(&busy).await.expect("at the second time"), Some(4));
    assert!(begin.elapsed() >= Duration::from_secs(2), "Retry-After was not waited for");
    let error = repository.has_blob(&tomorrow).await.expect_err("not waited for");
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    assert_eq!(server.seen().len(), 3, "a day is not waited for");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_things_get_the_registrys_words() {
    let server = serve(|_, request| match request.method.as_str() {
        "HEAD" => Reply::new(404, ""),
        _ => Reply::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}"#),
    });
    let repository = pulling(&server.host()).await;
    assert_eq!(repository.has_blob(&Digest::of(b"")).await.expect("an answer"), None);
    let error = repository.manifest(&Reference::Tag("latest".to_owned())).await.expect_err("is not there");
    assert_eq!((error.kind(), error.code()), (ErrorKind::NotFound, Some("MANIFEST_UNKNOWN")));
    assert_eq!(error.to_string(), "manifest unknown: manifest unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_have_pages_and_an_end() {
    let server = serve(|_, request| match request.path.as_str() {
        "/v2/app/tags/list" => Reply::json(serde_json::json!({"name": "app", "tags": ["1", "2"]}))
            .with("Link", r#"</v2/app/tags/list?last=2&n=2>; rel="next""#),
        "/v2/app/tags/list?last=2&n=2" => Reply::json(serde_json::json!({"name": "app", "tags": ["3"]}))
            .with("Link", r#"</v2/app/tags/list?last=2&n=2>; rel="next""#),
        _ => Reply::json(serde_json::json!({"repositories": ["library/hello-world", "hello", "other"]})),
    });
    let repository = pulling(&server.host()).await;
    assert_eq!(repository.tags().await.expect("tags"), ["1", "2", "3"], "a page that leads to itself is the last");
    let mirrored = distribution::registry::Registries::new(distribution::registry::Settings {
        mirrors: vec![server.url("/")],
        ..Default::default()
    });
    let found = mirrored.search("hello", 25, Default::default()).await.expect("a catalog");
    assert_eq!(found.iter().map(|hit| hit.name.as_str()).collect::<Vec<_>>(), ["hello-world", "hello"]);
    let term = format!("{}/hello", server.host());
    let found = mirrored.search(&term, 1, Default::default()).await.expect("a catalog");
    assert_eq!(found[0].name, format!("{}/library/hello-world", server.host()));
    assert_eq!(found.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_told_from_https() {
    let server = serve(|_, _| Reply::new(200, "{}"));
    let registries = distribution::registry::Registries::new(Default::default());
    let https = registries.attempts(&server.host(), true).await.expect("endpoints").next().expect("https");
    let outcome = registries.connect(https, "app", Default::default(), distribution::registry::Access::Pull).await;
    let error = outcome.err().expect("no TLS there");
    let words = format!("Get \"https://{}/v2/\": http: server gave HTTP response to HTTPS client", server.host());
    assert_eq!(error.to_string(), words);
}
