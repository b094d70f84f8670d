//! The registry over real HTTP on a loopback port, through the product's own client and through a bare one.

use std::sync::Arc;
use std::time::Duration;

use ::blobs::Blobs;
use distribution::Store;
use futures::TryStreamExt as _;
use model::{Digest, ErrorKind};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use tokio::io::AsyncWriteExt as _;

use super::{App, router};
use crate::repositories::Repositories;

const TOKEN: &str = "secret";

struct Served {
    url: String,
    address: std::net::SocketAddr,
    data: tempfile::TempDir,
    blobs: Blobs,
    repositories: Repositories,
    client: Client,
}

async fn serve(free_floor_bytes: u64) -> Served {
    serve_on("127.0.0.1:0", free_floor_bytes).await
}

async fn serve_on(address: &str, free_floor_bytes: u64) -> Served {
    let data = tempfile::tempdir().expect("a folder");
    let blobs = Blobs::open(data.path(), free_floor_bytes).expect("opens");
    let repositories = Repositories::open(data.path()).expect("opens");
    let app = App::new(blobs.clone(), repositories.clone(), TOKEN).expect("a token");
    let listener = tokio::net::TcpListener::bind(address).await.expect("binds");
    let address = listener.local_addr().expect("is bound");
    tokio::spawn(async move { axum::serve(listener, router(Arc::new(app))).await });
    let url = format!("http://{address}");
    // Installs the TLS provider that the bare client needs as well.
    Store::new(&url, TOKEN);
    Served { url, address, data, blobs, repositories, client: Client::new() }
}

impl Served {
    fn store(&self) -> Store {
        Store::new(&self.url, TOKEN)
    }

    fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).bearer_auth(TOKEN)
    }

    fn partial_files(&self) -> usize {
        std::fs::read_dir(self.data.path().join("uploads")).expect("lists").count()
    }

    async fn push_blob(&self, name: &str, bytes: &'static [u8]) -> Digest {
        let digest = Digest::of(bytes);
        let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        let response = self.request(Method::POST, &path).body(bytes).send().await.expect("answers");
        assert_eq!(response.status(), StatusCode::CREATED);
        digest
    }
}

async fn code(response: reqwest::Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: serde_json::Value = serde_json::from_slice(&response.bytes().await.expect("a body")).expect("JSON");
    (status, body["errors"][0]["code"].as_str().expect("a code").to_owned())
}

#[tokio::test]
async fn the_client_reads_back_what_it_stored() {
    let served = serve(0).await;
    let store = served.store();
    let big = vec![42_u8; 5_000_000];
    let digest = Digest::of(&big);
    assert_eq!(store.has(&digest, None).await.expect("answers"), None);
    assert_eq!(store.get(&digest).await.err().map(|e| e.kind()), Some(ErrorKind::NotFound));
    store.put(&digest, big.len() as u64, big.clone().into(), None).await.expect("stores");
    assert_eq!(store.has(&digest, None).await.expect("answers"), Some(5_000_000));
    let read: Vec<_> = store.get(&digest).await.expect("opens").try_collect().await.expect("reads");
    assert_eq!(read.concat(), big);
    assert_eq!(store.get_bytes(&digest, 100).await.expect_err("is too large").kind(), ErrorKind::Exhausted);
    let mut reader = store.get_to_reader(&digest).await.expect("opens");
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut bytes).map(|_| bytes)
    });
    assert_eq!(read.await.expect("runs").expect("reads"), big);

    let chunks = futures::stream::iter((0..50).map(|n| Ok::<_, std::io::Error>(vec![n; 10_000])));
    let (digest, size) = store.upload(reqwest::Body::wrap_stream(chunks), None).await.expect("uploads");
    assert_eq!(size, 500_000);
    assert_eq!(digest, Digest::of(&(0..50).flat_map(|n| vec![n; 10_000]).collect::<Vec<u8>>()));
    let small = store.put_bytes(b"small", None).await.expect("stores");
    assert_eq!(store.get_bytes(&small, 5).await.expect("reads"), b"small");
    assert_eq!(served.partial_files(), 0);
}

#[tokio::test]
async fn rotten_bytes_are_noticed_by_the_reader() {
    let served = serve(0).await;
    let digest = served.store().put_bytes(b"fresh", None).await.expect("stores");
    let path = served.data.path().join("blobs").join(&digest.hex()[..2]).join(digest.hex());
    std::fs::write(path, "stale").expect("writes");
    let error = served.store().get_bytes(&digest, 100).await.expect_err("is refused");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_wrong_digest_is_refused_and_leaves_nothing() {
    let served = serve(0).await;
    let wrong = Digest::of(b"other");
    let error = served.store().put(&wrong, 4, "this".into(), None).await.expect_err("is refused");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let path = format!("/v2/app/blobs/uploads/?digest={wrong}");
    let response = served.request(Method::POST, &path).body("this").send().await.expect("answers");
    assert_eq!(code(response).await, (400, "DIGEST_INVALID".to_owned()));
    assert_eq!(served.store().has(&wrong, None).await.expect("answers"), None);
    assert_eq!(served.store().has(&Digest::of(b"this"), None).await.expect("answers"), None);
    assert_eq!(served.partial_files(), 0);
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let served = serve(0).await;
    for head in ["Content-Length: 9000000", "Transfer-Encoding: chunked"] {
        let mut connection = tokio::net::TcpStream::connect(served.address).await.expect("connects");
        let head =
            format!("POST /internal/blobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n{head}\r\n\r\n");
        connection.write_all(head.as_bytes()).await.expect("sends");
        connection.write_all(b"100000\r\n").await.expect("sends");
        connection.write_all(&vec![7; 1 << 20]).await.expect("sends");
        wait_until(|| served.partial_files() == 1).await;
        drop(connection);
        wait_until(|| served.partial_files() == 0).await;
    }
    assert_eq!(served.blobs.usage().expect("counts").blob_count, 0);
}

async fn wait_until(condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited in vain");
}

#[tokio::test]
async fn a_full_disk_is_told_in_its_words() {
    let served = serve(u64::MAX / 2).await;
    let big = vec![1; 8 << 20];
    let error = served.store().upload(big.into(), None).await.expect_err("is refused");
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Exhausted, "no space left on device"));
}

#[tokio::test]
async fn writes_and_internal_blobs_need_the_token() {
    let served = serve(0).await;
    let digest = served.store().put_bytes(b"layer", None).await.expect("stores");
    let internal = format!("/v2/boxyard.internal/blobs/{digest}");
    for (method, path) in [
        (Method::GET, internal.as_str()),
        (Method::HEAD, internal.as_str()),
        (Method::POST, "/internal/blobs"),
        (Method::POST, "/v2/app/blobs/uploads/"),
        (Method::PUT, "/v2/app/manifests/v1"),
    ] {
        let response = served.anonymous(method.clone(), path).send().await.expect("answers");
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{method} {path}");
        let response = served.anonymous(method.clone(), path).bearer_auth("guess").send().await.expect("answers");
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{method} {path}");
    }
    // Another repository does not show what is only stored.
    let response = served.anonymous(Method::GET, &format!("/v2/app/blobs/{digest}")).send().await.expect("answers");
    assert_eq!(code(response).await, (404, "BLOB_UNKNOWN".to_owned()));
    let response = served.anonymous(Method::GET, "/v2/").send().await.expect("answers");
    let challenge = format!("Bearer realm=\"{}/token\",service=\"boxyard\"", served.url);
    assert_eq!(response.headers()["www-authenticate"], challenge.as_str());
    let response = served.anonymous(Method::GET, "/token").send().await.expect("answers");
    assert_eq!(response.bytes().await.expect("a body"), r#"{"token":"anonymous","access_token":"anonymous"}"#);
    let path = "/v2/app/blobs/uploads/";
    let response = served.anonymous(Method::POST, path).bearer_auth("anonymous").send().await.expect("answers");
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let response = served.anonymous(Method::GET, "/v2/").basic_auth("any", Some(TOKEN)).send().await.expect("answers");
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn ranges_are_served() {
    let served = serve(0).await;
    let digest = served.push_blob("app", b"0123456789").await;
    let path = format!("/v2/app/blobs/{digest}");
    let get = |range: &'static str| served.anonymous(Method::GET, &path).header("range", range).send();
    let response = get("bytes=2-5").await.expect("answers");
    assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(response.headers()["content-range"], "bytes 2-5/10");
    assert_eq!(response.bytes().await.expect("a body"), "2345");
    assert_eq!(get("bytes=10-").await.expect("answers").status(), StatusCode::RANGE_NOT_SATISFIABLE);
}

#[tokio::test]
async fn a_blob_comes_in_chunks() {
    let served = serve(0).await;
    let response = served.request(Method::POST, "/v2/a/b/blobs/uploads/").send().await.expect("answers");
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let location = response.headers()["location"].to_str().expect("text").to_owned();
    let response = served.request(Method::PATCH, &location).body("hello ").send().await.expect("answers");
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(response.headers()["range"], "0-5");
    let again = served.request(Method::PATCH, &location).header("content-range", "0-5").body("hello ");
    assert_eq!(again.send().await.expect("answers").status(), StatusCode::RANGE_NOT_SATISFIABLE);
    let digest = Digest::of(b"hello world");
    let path = format!("{location}?digest={digest}").replace(':', "%3A");
    let response = served.request(Method::PUT, &path).body("world").send().await.expect("answers");
    assert_eq!(response.status(), StatusCode::CREATED);
    let got = served.anonymous(Method::GET, &format!("/v2/a/b/blobs/{digest}")).send().await.expect("answers");
    assert_eq!(got.bytes().await.expect("a body"), "hello world");
    let response = served.request(Method::PUT, &path).send().await.expect("answers");
    assert_eq!(code(response).await, (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));
}

#[tokio::test]
async fn manifests_come_back_by_tag_and_digest() {
    let served = serve(0).await;
    let config = served.push_blob("team/app", b"{}").await;
    let manifest = format!("{{\"schemaVersion\":2,  \"config\":{{\"digest\":\"{config}\",\"size\":2}},\"layers\":[]}}");
    let digest = Digest::of(manifest.as_bytes());
    let kind = "application/vnd.oci.image.manifest.v1+json";
    for tag in ["v1", "v2"] {
        let put = served.request(Method::PUT, &format!("/v2/team/app/manifests/{tag}"));
        let response = put.header("content-type", kind).body(manifest.clone()).send().await.expect("answers");
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(response.headers()["docker-content-digest"], digest.as_str());
    }
    for reference in ["v1", digest.as_str()] {
        let path = format!("/v2/team/app/manifests/{reference}");
        let response = served.anonymous(Method::GET, &path).send().await.expect("answers");
        assert_eq!(response.headers()["content-type"], kind);
        assert_eq!(response.bytes().await.expect("a body"), manifest);
        let response = served.anonymous(Method::HEAD, &path).send().await.expect("answers");
        assert_eq!(response.headers()["content-length"], manifest.len().to_string().as_str());
    }
    let list = |path: &'static str| async {
        let response = served.anonymous(Method::GET, path).send().await.expect("answers");
        String::from_utf8(response.bytes().await.expect("a body").to_vec()).expect("text")
    };
    assert_eq!(list("/v2/team/app/tags/list").await, r#"{"name":"team/app","tags":["v1","v2"]}"#);
    assert_eq!(list("/v2/team/app/tags/list?n=1&last=v1").await, r#"{"name":"team/app","tags":["v2"]}"#);
    assert_eq!(list("/v2/_catalog").await, r#"{"repositories":["team/app"]}"#);
    assert!(served.repositories.names(&config) && served.repositories.names(&digest));
}

#[tokio::test]
async fn manifests_that_cannot_be_right_are_refused() {
    let served = serve(0).await;
    let missing = Digest::of(b"missing");
    let incomplete = format!("{{\"config\":{{\"digest\":\"{missing}\"}}}}");
    let by_digest = format!("/v2/app/manifests/{missing}");
    for (path, body, expected) in [
        ("/v2/app/manifests/v1", "no json", (400, "MANIFEST_INVALID")),
        ("/v2/app/manifests/v1", incomplete.as_str(), (404, "MANIFEST_BLOB_UNKNOWN")),
        (by_digest.as_str(), "{}", (400, "DIGEST_INVALID")),
        ("/v2/boxyard.internal/manifests/v1", "{}", (405, "UNSUPPORTED")),
    ] {
        let response = served.request(Method::PUT, path).body(body.to_owned()).send().await.expect("answers");
        assert_eq!(code(response).await, (expected.0, expected.1.to_owned()), "{path} {body}");
    }
    let response = served.anonymous(Method::GET, "/v2/app/manifests/v1").send().await.expect("answers");
    assert_eq!(code(response).await, (404, "MANIFEST_UNKNOWN".to_owned()));
}

#[tokio::test]
async fn a_lease_pins_what_is_written_and_what_is_asked_for() {
    let served = serve(0).await;
    let store = served.store();
    let lease = served.blobs.lease("test", Duration::from_secs(60)).expect("leases");
    let written = store.put_bytes(b"written", Some(&lease)).await.expect("stores");
    let (uploaded, _) = store.upload("uploaded".into(), Some(&lease)).await.expect("uploads");
    let asked = store.put_bytes(b"asked", None).await.expect("stores");
    store.has(&asked, Some(&lease)).await.expect("answers");
    let free = store.put_bytes(b"free", None).await.expect("stores");
    let all = [written, uploaded, asked, free.clone()];
    assert_eq!(served.blobs.mark(&all).digests(), [free]);
    served.blobs.end(&lease);
    assert_eq!(served.blobs.mark(&all).digests().len(), 4);
    let error = store.upload("late".into(), Some(&lease)).await.expect_err("the lease is over");
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn a_client_waits_for_a_store_that_is_started_anew() {
    let address = {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        socket.local_addr().expect("is bound").to_string()
    };
    let store = Store::new(format!("http://{address}"), TOKEN);
    let early = tokio::spawn(async move { store.put_bytes(b"early", None).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!early.is_finished(), "it waits");
    let served = serve_on(&address, 0).await;
    let digest = early.await.expect("runs").expect("stores");
    assert_eq!(served.store().get_bytes(&digest, 5).await.expect("reads"), b"early");
}
