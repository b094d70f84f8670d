//! The registry for users over real HTTP, as the distribution-spec words it, with requests that are hostile.

use std::sync::Arc;
use std::time::Duration;

use ::blobs::Blobs;
use model::Digest;
use oci::media_type::{DOCKER_MANIFEST as DOCKER_IMAGE, OCI_INDEX as INDEX, OCI_MANIFEST as IMAGE};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{App, Passwords, public_router, router};
use crate::repositories::{Name, Repositories};

struct Served {
    url: String,
    /// The listener of Boxyard's own processes.
    own_url: String,
    address: std::net::SocketAddr,
    blobs: Blobs,
    repositories: Repositories,
    client: Client,
    data: tempfile::TempDir,
}

async fn serve(passwords: Option<Passwords>) -> Served {
    let _ = distribution::Store::new("http://127.0.0.1:1", "installs the TLS provider");
    let data = tempfile::tempdir().expect("a folder");
    let blobs = Blobs::open(data.path(), 0).expect("opens");
    let repositories = Repositories::open(data.path()).expect("opens");
    let mut app = App::new(blobs.clone(), repositories.clone(), "secret").expect("a token");
    let public = Arc::new(app.public(passwords));
    let mut addresses = Vec::new();
    for router in [public_router(public), router(Arc::new(app))] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        addresses.push(listener.local_addr().expect("is bound"));
        tokio::spawn(async move { axum::serve(listener, router).await });
    }
    let (url, own_url) = (format!("http://{}", addresses[0]), format!("http://{}", addresses[1]));
    Served { url, own_url, address: addresses[0], blobs, repositories, client: Client::new(), data }
}

impl Served {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    async fn send(&self, method: Method, path: &str) -> Response {
        self.request(method, path).send().await.expect("answers")
    }

    async fn push_blob(&self, name: &str, bytes: &'static [u8]) -> Digest {
        let digest = Digest::of(bytes);
        let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        let response = self.request(Method::POST, &path).body(bytes).send().await.expect("answers");
        assert_eq!(response.status(), StatusCode::CREATED);
        digest
    }

    async fn put_manifest(&self, name: &str, reference: &str, kind: &str, manifest: &Value) -> Response {
        let put = self.request(Method::PUT, &format!("/v2/{name}/manifests/{reference}"));
        put.header("content-type", kind).body(manifest.to_string()).send().await.expect("answers")
    }

    /// Pushes a manifest that must be taken.
    async fn push_manifest(&self, name: &str, reference: &str, kind: &str, manifest: &Value) -> Digest {
        let response = self.put_manifest(name, reference, kind, manifest).await;
        assert_eq!(response.status(), StatusCode::CREATED, "{manifest}");
        Digest::of(manifest.to_string().as_bytes())
    }

    async fn begin_upload(&self, name: &str) -> String {
        let response = self.send(Method::POST, &format!("/v2/{name}/blobs/uploads/")).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        response.headers()["location"].to_str().expect("text").to_owned()
    }
}

async fn code(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = serde_json::from_slice(&response.bytes().await.expect("a body")).unwrap_or_default();
    (status, body["errors"][0]["code"].as_str().unwrap_or_default().to_owned())
}

async fn text(response: Response) -> String {
    String::from_utf8(response.bytes().await.expect("a body").to_vec()).expect("text")
}

fn image(config: &Digest) -> Value {
    json!({"schemaVersion": 2, "mediaType": IMAGE, "layers": [],
           "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2}})
}

#[tokio::test]
async fn everybody_pushes_and_pulls_but_sees_nothing_of_boxyards_own() {
    let served = serve(None).await;
    assert_eq!(served.send(Method::GET, "/v2/").await.status(), StatusCode::OK);
    let own = distribution::Store::new(&served.own_url, "secret").put_bytes(b"internal", None).await.expect("stores");
    for (method, path) in [
        (Method::GET, format!("/v2/boxyard.internal/blobs/{own}")),
        (Method::HEAD, format!("/v2/boxyard.internal/blobs/{own}")),
        (Method::POST, "/v2/boxyard.internal/blobs/uploads/".to_owned()),
        (Method::GET, "/v2/boxyard.internal/tags/list".to_owned()),
        (Method::GET, format!("/v2/app/blobs/{own}")),
        (Method::POST, "/internal/blobs".to_owned()),
        (Method::GET, "/token".to_owned()),
    ] {
        assert_eq!(served.send(method.clone(), &path).await.status(), StatusCode::NOT_FOUND, "{method} {path}");
    }
    // A mount of it, and an upload under its digest with other bytes, show nothing either.
    for from in ["&from=boxyard.internal", "&from=app", ""] {
        let path = format!("/v2/app/blobs/uploads/?mount={own}{from}");
        assert_eq!(served.send(Method::POST, &path).await.status(), StatusCode::ACCEPTED, "{path}");
    }
    let path = format!("/v2/app/blobs/uploads/?digest={own}");
    let response = served.request(Method::POST, &path).body("other").send().await.expect("answers");
    assert_eq!(code(response).await, (400, "DIGEST_INVALID".to_owned()));
    assert_eq!(served.send(Method::GET, &format!("/v2/app/blobs/{own}")).await.status(), StatusCode::NOT_FOUND);
    // Who names a lease from outside pins nothing.
    let lease = served.blobs.lease("test", Duration::from_secs(60)).expect("leases");
    let digest = served.push_blob("app", b"mine").await;
    let get = served.request(Method::GET, &format!("/v2/app/blobs/{digest}")).header("boxyard-lease", &lease);
    assert_eq!(get.send().await.expect("answers").status(), StatusCode::OK);
    assert_eq!(served.blobs.mark(std::slice::from_ref(&digest)).digests(), [digest]);
}

#[tokio::test]
async fn with_passwords_nothing_goes_without_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("htpasswd");
    std::fs::write(&file, format!("me:{}\n", bcrypt::hash("secret", 4).expect("hashes"))).expect("writes");
    let served = serve(Some(Passwords::open(file).expect("opens"))).await;
    for path in ["/v2/", "/v2/_catalog", "/v2/app/tags/list", "/v2/app/manifests/v1"] {
        let response = served.send(Method::GET, path).await;
        assert_eq!(response.headers()["www-authenticate"], "Basic realm=\"Boxyard\"", "{path}");
        assert_eq!(code(response).await, (401, "UNAUTHORIZED".to_owned()), "{path}");
        let wrong = served.request(Method::GET, path).basic_auth("me", Some("guess"));
        assert_eq!(wrong.send().await.expect("answers").status(), StatusCode::UNAUTHORIZED);
        let right = served.request(Method::GET, path).basic_auth("me", Some("secret"));
        assert_ne!(right.send().await.expect("answers").status(), StatusCode::UNAUTHORIZED);
    }
    let token = served.request(Method::GET, "/v2/").bearer_auth("secret");
    assert_eq!(token.send().await.expect("answers").status(), StatusCode::UNAUTHORIZED, "a token is for the inside");
    let inside = served.client.get(format!("{}/v2/_catalog", served.own_url)).send().await.expect("answers");
    assert_eq!(inside.status(), StatusCode::UNAUTHORIZED, "the inner listener is no way round");
}

#[tokio::test]
async fn chunks_must_follow_one_another() {
    let served = serve(None).await;
    let location = served.begin_upload("a/b").await;
    let chunk = |range: &str, body: &'static str| {
        served.request(Method::PATCH, &location).header("content-range", range).body(body).send()
    };
    for (range, body, status) in [
        ("1-5", "hello", 416),
        ("0-9", "hello", 400),
        ("x", "hello", 400),
        ("4-0", "hello", 416),
        ("0-4", "hello", 202),
        ("0-4", "hello", 416),
        ("6-10", "world", 416),
        ("5-9", "world", 202),
    ] {
        assert_eq!(chunk(range, body).await.expect("answers").status(), status, "{range} {body}");
    }
    let response = served.send(Method::GET, &location).await;
    assert_eq!((response.status().as_u16(), &response.headers()["range"]), (204, &"0-9".parse().expect("a header")));
    let other = location.replace("/a/b/", "/a/c/");
    assert_eq!(code(served.send(Method::GET, &other).await).await, (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));
    let put = format!("{location}?digest={}", Digest::of(b"helloworld"));
    assert_eq!(served.send(Method::PUT, &put).await.status(), StatusCode::CREATED);
    let location = served.begin_upload("a/b").await;
    assert_eq!(served.send(Method::DELETE, &location).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(served.send(Method::GET, &location).await.status(), StatusCode::NOT_FOUND);
}

/// Sends a head and half a body on a bare connection, and hangs up.
async fn break_off(served: &Served, head: String, body: &[u8]) {
    let mut connection = tokio::net::TcpStream::connect(served.address).await.expect("connects");
    connection.write_all(head.as_bytes()).await.expect("writes");
    connection.write_all(body).await.expect("writes");
    connection.shutdown().await.expect("hangs up");
    let mut answer = Vec::new();
    let _ = connection.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 20"), "half a body is no success");
}

#[tokio::test]
async fn a_broken_chunk_is_gone_on_with_where_it_broke() {
    let served = serve(None).await;
    let location = served.begin_upload("app").await;
    break_off(&served, format!("PATCH {location} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n"), b"hello").await;
    let mut received = String::new();
    for _ in 0..200 {
        let status = served.send(Method::GET, &location).await;
        received =
            status.headers().get("range").map_or(String::new(), |range| range.to_str().expect("text").to_owned());
        if received == "0-4" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(received, "0-4");
    let put = format!("{location}?digest={}", Digest::of(b"helloworld"));
    let response = served.request(Method::PUT, &put).body("world").send().await.expect("answers");
    assert_eq!(response.status(), StatusCode::CREATED);
    // One request that breaks off leaves nothing.
    let digest = Digest::of(b"0123456789");
    let head = format!("POST /v2/app/blobs/uploads/?digest={digest} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n");
    break_off(&served, head, b"01234").await;
    assert_eq!(served.send(Method::HEAD, &format!("/v2/app/blobs/{digest}")).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_index_wants_its_children_and_old_clients_get_the_usual_one() {
    let served = serve(None).await;
    let config = served.push_blob("app", b"{}").await;
    let child = image(&config);
    let digest = Digest::of(child.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": IMAGE, "digest": digest, "size": child.to_string().len(),
         "platform": {"os": "linux", "architecture": "amd64"}}]});
    let refused = served.put_manifest("app", "multi", INDEX, &index).await;
    assert_eq!(code(refused).await, (404, "MANIFEST_BLOB_UNKNOWN".to_owned()));
    served.push_manifest("app", digest.as_str(), IMAGE, &child).await;
    served.push_manifest("app", "multi", INDEX, &index).await;
    let get = |accept: &'static str| served.request(Method::GET, "/v2/app/manifests/multi").header("accept", accept);
    for (accept, kind) in [(INDEX, INDEX), ("*/*", INDEX), (IMAGE, IMAGE), (DOCKER_IMAGE, IMAGE)] {
        let response = get(accept).send().await.expect("answers");
        assert_eq!(response.headers()["content-type"], kind, "{accept}");
    }
    let response = get(INDEX).send().await.expect("answers");
    let tag = response.headers()["etag"].clone();
    let again = get(INDEX).header("if-none-match", tag).send().await.expect("answers");
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn manifests_that_cannot_be_right_are_refused() {
    let served = serve(None).await;
    let config = served.push_blob("app", b"{}").await;
    let good = image(&config);
    let response = served.put_manifest("app", "v1", DOCKER_IMAGE, &good).await;
    assert_eq!(code(response).await, (400, "MANIFEST_INVALID".to_owned()), "it is another media type");
    let response = served.put_manifest("app", "v1", IMAGE, &json!({"schemaVersion": 1, "fsLayers": []})).await;
    assert_eq!(code(response).await, (400, "MANIFEST_INVALID".to_owned()), "schema 1");
    let response = served.put_manifest("other", "v1", IMAGE, &good).await;
    assert_eq!(code(response).await, (404, "MANIFEST_BLOB_UNKNOWN".to_owned()), "the blob is in another repository");
    let large = json!({"config": good["config"], "annotations": {"x": "x".repeat(5 << 20)}});
    let response = served.put_manifest("app", "v1", IMAGE, &large).await;
    assert_eq!(code(response).await, (413, "SIZE_INVALID".to_owned()));
    let endless = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 64 << 10]));
    let put = served.request(Method::PUT, "/v2/app/manifests/v1").body(reqwest::Body::wrap_stream(endless));
    // The answer may come as a reset, since the client sends on.
    if let Ok(response) = put.send().await {
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
    for (path, status) in [("/v2/app/manifests/.x", 400), ("/v2/App/manifests/v1", 400), ("/v2/a/../b/tags/list", 404)]
    {
        assert_eq!(served.send(Method::GET, path).await.status(), status, "{path}");
    }
    for path in ["/v2/..%2F..%2Fetc/tags/list", "/v2/app/blobs/..%2F..%2Fx", "/v2/a/%2e%2e/b/manifests/v1"] {
        assert!(served.send(Method::GET, path).await.status().is_client_error(), "{path}");
    }
    assert_eq!(text(served.send(Method::GET, "/v2/_catalog").await).await, r#"{"repositories":["app"]}"#);
}

#[tokio::test]
async fn referrers_are_listed_and_go() {
    let served = serve(None).await;
    let config = served.push_blob("app", b"{}").await;
    let subject = served.push_manifest("app", "v1", IMAGE, &image(&config)).await;
    let refers = |kind: &str| {
        json!({"schemaVersion": 2, "mediaType": IMAGE, "artifactType": kind, "layers": [],
               "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
               "subject": {"mediaType": IMAGE, "digest": subject, "size": 1}, "annotations": {"a": "b"}})
    };
    let response = served.put_manifest("app", "sig", IMAGE, &refers("text/signature")).await;
    assert_eq!(response.headers()["oci-subject"], subject.as_str());
    let sbom = served.push_manifest("app", "sbom", IMAGE, &refers("text/sbom")).await;
    let list = |query: &str| format!("/v2/app/referrers/{subject}{query}");
    let listed = |text: String| serde_json::from_str::<Value>(&text).expect("JSON")["manifests"].clone();
    let all = listed(text(served.send(Method::GET, &list("")).await).await);
    assert_eq!(all.as_array().map(Vec::len), Some(2));
    let response = served.send(Method::GET, &list("?artifactType=text/sbom")).await;
    assert_eq!(response.headers()["oci-filters-applied"], "artifactType");
    assert_eq!(response.headers()["content-type"], INDEX);
    let size = refers("text/sbom").to_string().len();
    let expected = json!([{"mediaType": IMAGE, "digest": sbom, "size": size,
                           "artifactType": "text/sbom", "annotations": {"a": "b"}}]);
    assert_eq!(listed(text(response).await), expected);
    let gone = served.send(Method::DELETE, &format!("/v2/app/manifests/{sbom}")).await;
    assert_eq!(gone.status(), StatusCode::ACCEPTED);
    assert_eq!(listed(text(served.send(Method::GET, &list("?artifactType=text/sbom")).await).await), json!([]));
    let none = format!("/v2/none/referrers/{subject}");
    assert_eq!(listed(text(served.send(Method::GET, &none).await).await), json!([]));
}

#[tokio::test]
async fn deletion_and_what_is_left_for_nobody() {
    let served = serve(None).await;
    let config = served.push_blob("app", b"{}").await;
    let left = served.push_blob("app", b"left").await;
    let digest = served.push_manifest("app", "v1", IMAGE, &image(&config)).await;
    served.push_manifest("app", "v2", IMAGE, &image(&config)).await;
    let sweep = |grace: Duration| {
        let (repositories, blobs) = (served.repositories.clone(), served.blobs.clone());
        async move {
            let swept = tokio::task::spawn_blocking(move || repositories.remove_unnamed(&blobs, grace)).await;
            swept.expect("runs").expect("sweeps")
        }
    };
    assert_eq!(sweep(Duration::from_secs(60)).await, [], "young links stay");
    assert_eq!(sweep(Duration::ZERO).await, std::slice::from_ref(&left), "named ones stay");
    assert_eq!(served.send(Method::GET, &format!("/v2/app/blobs/{left}")).await.status(), StatusCode::NOT_FOUND);

    // A tag goes alone, a manifest with its tags; both also out of the memory of manifests.
    assert_eq!(served.send(Method::GET, "/v2/app/manifests/v2").await.status(), StatusCode::OK);
    assert_eq!(served.send(Method::DELETE, "/v2/app/manifests/v2").await.status(), StatusCode::ACCEPTED);
    assert_eq!(served.send(Method::GET, "/v2/app/manifests/v2").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(served.send(Method::GET, "/v2/app/manifests/v1").await.status(), StatusCode::OK);
    let path = format!("/v2/app/manifests/{digest}");
    assert_eq!(served.send(Method::DELETE, &path).await.status(), StatusCode::ACCEPTED);
    assert_eq!(code(served.send(Method::DELETE, &path).await).await, (404, "MANIFEST_UNKNOWN".to_owned()));
    assert_eq!(served.send(Method::GET, "/v2/app/manifests/v1").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(served.blobs.take_released(), [digest]);
    assert_eq!(sweep(Duration::ZERO).await, std::slice::from_ref(&config), "nothing names it now");
    assert_eq!(served.repositories.catalog().expect("lists"), [] as [&str; 0], "an empty repository is none");

    let blob = served.push_blob("app", b"blob").await;
    let path = format!("/v2/app/blobs/{blob}");
    assert_eq!(served.send(Method::DELETE, &path).await.status(), StatusCode::ACCEPTED);
    assert_eq!(code(served.send(Method::DELETE, &path).await).await, (404, "BLOB_UNKNOWN".to_owned()));
}

#[tokio::test]
async fn asking_for_a_blob_before_a_push_keeps_it() {
    let served = serve(None).await;
    let blob = served.push_blob("app", b"old").await;
    let name = Name::parse("app").expect("valid");
    let link = served.data.path().join("repositories/app/blobs").join(blob.hex());
    let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    std::fs::File::options().write(true).open(link).and_then(|file| file.set_modified(hour_ago)).expect("ages");
    assert_eq!(served.send(Method::HEAD, &format!("/v2/app/blobs/{blob}")).await.status(), StatusCode::OK);
    let (repositories, blobs) = (served.repositories.clone(), served.blobs.clone());
    let sweep = move || repositories.remove_unnamed(&blobs, Duration::from_secs(600));
    assert_eq!(tokio::task::spawn_blocking(sweep).await.expect("runs").expect("sweeps"), []);
    assert!(served.repositories.has_blob(&name, &blob));
}

#[tokio::test]
async fn large_blobs_come_whole_and_in_parts() {
    let served = serve(None).await;
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let digest = Digest::of(&bytes);
    let path = format!("/v2/app/blobs/uploads/?digest={digest}");
    let pushed = served.request(Method::POST, &path).body(bytes.clone()).send().await.expect("answers");
    assert_eq!(pushed.status(), StatusCode::CREATED);
    let path = format!("/v2/app/blobs/{digest}");
    assert_eq!(served.send(Method::GET, &path).await.bytes().await.expect("a body"), bytes);
    let get = |range: &'static str| served.request(Method::GET, &path).header("range", range);
    let part = get("bytes=1000000-2000000").send().await.expect("answers");
    assert_eq!(part.bytes().await.expect("a body"), bytes[1_000_000..=2_000_000]);
    let other = get("bytes=0-9").header("if-range", "\"other\"").send().await.expect("answers");
    assert_eq!(other.status(), StatusCode::OK, "a range of another content is not served");
    let same = get("bytes=0-9").header("if-range", format!("\"{digest}\"")).send().await.expect("answers");
    assert_eq!(same.status(), StatusCode::PARTIAL_CONTENT);
}
