//! How registries ask who one is, and what is sent to whom.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use distribution::registry::{Access, Credentials, Error, Reference, Registries, Settings};
use kit::{Reply, Request, Server};
use model::{Digest, ErrorKind};
use url::form_urlencoded;

use crate::{repository, user};

const MANIFEST: &str = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;

fn basic(username: &str, password: &str) -> String {
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    format!("Basic {pair}")
}

fn pairs(text: &str) -> HashMap<String, String> {
    form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

fn query(request: &Request) -> HashMap<String, String> {
    pairs(request.path.split_once('?').map_or("", |(_, query)| query))
}

/// A registry with a token service at `realm`, which gives a token by `give`; with that token everything is a manifest.
fn with_tokens(realm: &'static str, give: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
    Server::start(move |request| {
        if request.path.starts_with(realm) {
            return give(request);
        }
        match request.header("authorization") {
            Some("Bearer good") => Reply::new(200, MANIFEST),
            _ => {
                let host = request.header("host").unwrap_or_default();
                Reply::unauthorized(&format!(
                    r#"Bearer realm="http://{host}{realm}",service="svc",scope="repository:app:pull""#
                ))
            }
        }
    })
}

async fn manifest(server: &Server, credentials: Credentials) -> Result<Digest, Error> {
    let repository = repository(&server.host(), Access::Pull, credentials).await?;
    Ok(repository.manifest(&Reference::Tag("latest".to_owned())).await?.digest)
}

#[tokio::test(flavor = "multi_thread")]
async fn ecr_takes_a_password_of_twelve_hours() {
    let right = basic("AWS", "ey.twelve.hours");
    let server = Server::start(move |request| match request.header("authorization") {
        Some(given) if given == right => Reply::new(200, MANIFEST),
        _ => Reply::new(401, "Not Authorized\n").with(
            "Www-Authenticate",
            r#"Basic realm="https://1.dkr.ecr.eu-west-1.amazonaws.com/",service="ecr.amazonaws.com""#,
        ),
    });
    manifest(&server, user("AWS", "ey.twelve.hours")).await.expect("taken");
    let error = manifest(&server, user("AWS", "old")).await.expect_err("refused");
    assert_eq!(error.to_string(), "unauthorized: authentication required");
    let error = manifest(&server, Credentials::default()).await.expect_err("refused");
    let words = format!("Get \"http://{}/v2/app/manifests/latest\": no basic auth credentials", server.host());
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Unauthenticated, words));

    let registries = Registries::new(Settings::default());
    assert_eq!(registries.login(&server.host(), &user("AWS", "ey.twelve.hours")).await.expect("a login"), "");
    let error = registries.login(&server.host(), &user("AWS", "old")).await.expect_err("no login");
    let words = format!("login attempt to http://{}/v2/ failed with status: 401 Unauthorized", server.host());
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Unauthenticated, words));
}

#[tokio::test(flavor = "multi_thread")]
async fn gcr_gives_tokens_for_a_key() {
    let key = r#"{"type": "service_account", "private_key": "-----BEGIN"}"#;
    let server = with_tokens("/v2/token", move |request| match request.header("authorization") {
        Some(given) if given == basic("_json_key", key) => {
            Reply::json(serde_json::json!({"token": "good", "expires_in": 43200}))
        }
        None => Reply::json(serde_json::json!({"token": "anonymous"})),
        Some(_) => Reply::new(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"Not authorized."}]}"#),
    });
    manifest(&server, user("_json_key", key)).await.expect("taken");
    let asked = query(&server.seen()[0]);
    let expected = [("service", "svc"), ("scope", "repository:app:pull"), ("account", "_json_key")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(asked, HashMap::from(expected));
    let error = manifest(&server, user("_json_key", "{}")).await.expect_err("refused");
    let words = format!("Get \"http://{}/v2/app/manifests/latest\": unauthorized: Not authorized.", server.host());
    assert_eq!(error.to_string(), words);
    let error = manifest(&server, Credentials::default()).await.expect_err("an anonymous token is not enough");
    assert_eq!(error.to_string(), "unauthorized: authentication required");
}

#[tokio::test(flavor = "multi_thread")]
async fn acr_exchanges_an_identity_token() {
    let server = with_tokens("/oauth2/token", |request| {
        let form = pairs(&String::from_utf8_lossy(&request.body));
        let asked = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        if request.method == "POST" && asked("grant_type") == "refresh_token" && asked("refresh_token") == "kept" {
            assert_eq!((asked("service"), asked("scope")), ("svc", "repository:app:pull"));
            assert_eq!(request.header("authorization"), None, "a password rode along");
            return Reply::json(serde_json::json!({"access_token": "good"}));
        }
        Reply::new(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":null}]}"#)
    });
    let identity = |token: &str| Credentials {
        username: "00000000-0000-0000-0000-000000000000".to_owned(),
        identity_token: token.to_owned(),
        ..Credentials::default()
    };
    manifest(&server, identity("kept")).await.expect("exchanged");
    assert_eq!(server.lines(), ["POST /oauth2/token", "GET /v2/app/manifests/latest"]);
    assert!(manifest(&server, identity("revoked")).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn jfrog_has_its_token_service_on_a_path() {
    let server =
        with_tokens("/artifactory/api/docker/docker-local/v2/token", |request| match request.header("authorization") {
            Some(given) if given == basic("me", "AKCp-key") => Reply::json(serde_json::json!({"token": "good"})),
            _ => Reply::new(401, r#"{"errors":[{"status":401,"message":"Bad credentials"}]}"#),
        });
    manifest(&server, user("me", "AKCp-key")).await.expect("taken");
    assert!(manifest(&server, user("me", "other")).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_may_end_in_an_identity_token() {
    let server = with_tokens("/token", |request| match request.header("authorization") {
        Some(given) if given == basic("me", "word") => {
            let asked = query(request);
            assert_eq!((asked.get("offline_token").map(String::as_str), asked.get("scope")), (Some("true"), None));
            Reply::json(serde_json::json!({"token": "good", "refresh_token": "keep me"}))
        }
        _ => Reply::new(401, r#"{"details":"incorrect username or password"}"#),
    });
    let registries = Registries::new(Settings::default());
    assert_eq!(registries.login(&server.host(), &user("me", "word")).await.expect("a login"), "keep me");
    let error = registries.login(&server.host(), &user("me", "no")).await.expect_err("no login");
    let words = format!("Get \"http://{}/v2/\": unauthorized: incorrect username or password", server.host());
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Unauthenticated, words));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_token_is_sent_as_it_is() {
    let server = with_tokens("/token", |_| Reply::new(500, "not to be asked"));
    let own = |token: &str| Credentials { registry_token: token.to_owned(), ..Credentials::default() };
    manifest(&server, own("good")).await.expect("taken");
    let error = manifest(&server, own("bad")).await.expect_err("refused");
    assert_eq!(error.to_string(), "unauthorized: authentication required");
    assert_eq!(server.lines(), ["GET /v2/app/manifests/latest"; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_serves_many_requests_until_it_is_refused() {
    let given = Arc::new(AtomicUsize::new(0));
    let counter = given.clone();
    let server = Server::start(move |request| {
        if request.path.starts_with("/token") {
            return Reply::json(serde_json::json!({"token": format!("t{}", counter.fetch_add(1, Ordering::SeqCst))}));
        }
        // The first token is withdrawn for this tag.
        let wanted = if request.path.ends_with("/late") { "Bearer t1" } else { "Bearer t" };
        match request.header("authorization") {
            Some(token) if token.starts_with(wanted) => Reply::new(200, MANIFEST),
            _ => {
                let host = request.header("host").unwrap_or_default();
                Reply::unauthorized(&format!(r#"Bearer realm="http://{host}/token",service="svc""#))
            }
        }
    });
    let repository = repository(&server.host(), Access::Pull, Credentials::default()).await.expect("answers");
    let tag = |name: &str| Reference::Tag(name.to_owned());
    for name in ["1", "2", "3"] {
        repository.manifest(&tag(name)).await.expect("with the same token");
    }
    assert_eq!(given.load(Ordering::SeqCst), 1);
    repository.manifest(&tag("late")).await.expect("with a new token");
    assert_eq!(given.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_refuses_for_ever_is_not_asked_for_ever() {
    let server = Server::start(|request| {
        if request.path.starts_with("/token") {
            return Reply::json(serde_json::json!({"token": "worthless"}));
        }
        let host = request.header("host").unwrap_or_default();
        Reply::unauthorized(&format!(r#"Bearer realm="http://{host}/token",service="svc""#))
    });
    let error = manifest(&server, user("me", "word")).await.expect_err("refused");
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::Unauthenticated, "unauthorized: authentication required")
    );
    assert!(server.seen().len() <= 4, "{:?}", server.lines());
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_none_are_told() {
    type Case = (fn() -> Reply, &'static str);
    let cases: [Case; 5] = [
        (|| Reply::new(200, "{}"), "authorization server did not include a token in the response"),
        (|| Reply::new(200, "<html>"), "unable to decode token response"),
        (|| Reply::json(serde_json::json!({"token": 7})), "unable to decode token response"),
        (|| Reply::json(serde_json::json!({"token": "two\r\nlines: x"})), "gave a token that no header can hold"),
        (|| Reply::new(200, vec![b' '; 1 << 20]).endless(), "is larger than 1048576 bytes"),
    ];
    for (reply, words) in cases {
        let server = with_tokens("/token", move |_| reply());
        let error = manifest(&server, Credentials::default()).await.expect_err(words);
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(server.lines(), ["GET /token"], "{error}");
    }
    let server = Server::start(|_| Reply::unauthorized(r#"Bearer realm="file:///etc/passwd",service="svc""#));
    let error = manifest(&server, Credentials::default()).await.expect_err("no address");
    assert!(error.to_string().contains("unable to parse auth realm"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_service_that_is_down_is_asked_five_times_in_all() {
    let server = with_tokens("/token", |_| Reply::new(503, ""));
    let error = manifest(&server, Credentials::default()).await.expect_err("no token");
    let words = format!("Get \"http://{}/v2/app/manifests/latest\": ", server.host());
    assert_eq!(error.to_string(), format!("{words}received unexpected HTTP status: 503 Service Unavailable"));
    assert_eq!(server.lines(), ["GET /token"; 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_do_not_follow_a_redirect() {
    let blob = b"behind the redirect".to_vec();
    let (digest, size, kept) = (Digest::of(&blob), blob.len() as u64, blob.clone());
    let elsewhere = Server::start(move |_| Reply::new(200, kept.clone()));
    let target = elsewhere.url("/bucket/blob?signature=x");
    let right = basic("me", "word");
    let server = Server::start(move |request| match request.header("authorization") {
        Some(given) if given == right => Reply::new(307, "").with("Location", target.clone()),
        _ => Reply::unauthorized(r#"Basic realm="x""#),
    });
    let repository = repository(&server.host(), Access::Pull, user("me", "word")).await.expect("answers");
    assert_eq!(repository.blob_bytes(&digest, size, 1 << 20).await.expect("redirected"), blob);
    let [moved] = &elsewhere.seen()[..] else { panic!("{:?}", elsewhere.lines()) };
    assert_eq!(moved.header("authorization"), None);
    assert!(server.seen()[0].header("authorization").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_gets_no_credentials() {
    let mirror = Server::start(|_| Reply::unauthorized(r#"Basic realm="give it to me""#));
    let settings = Settings { mirrors: vec![mirror.url("")], ..Settings::default() };
    let registries = Registries::new(settings);
    let mut attempts = registries.attempts("docker.io", true).await.expect("endpoints");
    let endpoint = attempts.next().expect("the mirror");
    let repository = registries.connect(endpoint, "library/app", user("me", "word"), Access::Pull).await;
    let error = repository.expect("answers").manifest(&Reference::Tag("1".to_owned())).await.expect_err("refused");
    assert!(attempts.may_go_on(&error), "{error}");
    assert!(mirror.seen().iter().all(|request| request.header("authorization").is_none()));
}
