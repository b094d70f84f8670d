//! Small servers that ask for a login as providers document it, each in front of a docker-registry that keeps what is
//! pushed. Amazon ECR: private registry authentication. Google Artifact Registry: JSON key authentication. Azure ACR:
//! AAD-OAuth (github.com/Azure/acr/docs). JFrog Artifactory: the Docker repository's token service.

use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kit::{Registry, Reply, Request, Server};

/// Whose way of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    Ecr,
    Google,
    Acr,
    Jfrog,
}

impl Ask {
    pub const ALL: [Self; 4] = [Self::Ecr, Self::Google, Self::Acr, Self::Jfrog];

    /// Where tokens are given; none: the password goes to the registry itself.
    fn realm(self) -> Option<&'static str> {
        match self {
            Self::Ecr => None,
            Self::Google => Some("/v2/token"),
            Self::Acr => Some("/oauth2/token"),
            Self::Jfrog => Some("/artifactory/api/docker/docker-local/v2/token"),
        }
    }

    fn username(self) -> &'static str {
        match self {
            Self::Ecr => "AWS",
            Self::Google => "_json_key",
            Self::Acr => "00000000-0000-0000-0000-000000000000",
            Self::Jfrog => "me@example.org",
        }
    }

    /// The number-th secret that it gave.
    fn secret(self, number: u32) -> String {
        match self {
            Self::Ecr => format!("eyJwYXlsb2FkIjoi.{number}"),
            Self::Google => format!("{{\"type\": \"service_account\", \"private_key_id\": \"{number}\"}}"),
            Self::Acr => format!("refresh.{number}"),
            Self::Jfrog => format!("AKCp8-{number}"),
        }
    }
}

pub struct Provider {
    ask: Ask,
    server: Server,
    number: Arc<Mutex<u32>>,
    _registry: Registry,
}

impl Provider {
    pub fn start(ask: Ask) -> Self {
        let registry = Registry::start();
        let number = Arc::new(Mutex::new(1));
        let (port, current) = (registry.port(), number.clone());
        let server = Server::start(move |request| answer(ask, *lock(&current), port, request));
        Self { ask, server, number, _registry: registry }
    }

    pub fn host(&self) -> String {
        self.server.host()
    }

    pub fn username(&self) -> &'static str {
        self.ask.username()
    }

    /// What stands before an image's name.
    pub fn repository(&self) -> &'static str {
        match self.ask {
            Ask::Ecr => "team",
            Ask::Google => "project/repository",
            Ask::Acr => "samples/team",
            Ask::Jfrog => "docker-local/team/group",
        }
    }

    /// Every secret so far is over; gives the new one.
    pub fn rotate(&self) -> String {
        let mut number = lock(&self.number);
        *number += 1;
        self.ask.secret(*number)
    }

    /// A login there ends in a token that is kept instead of the password.
    pub fn is_identity_kept(&self) -> bool {
        self.ask == Ask::Acr
    }

    pub fn refuses_nobody(&self) -> &'static str {
        match self.ask {
            Ask::Ecr => "no basic auth credentials",
            _ => "unauthorized: authentication required",
        }
    }

    pub fn refuses_a_login(&self) -> &'static str {
        match self.ask {
            Ask::Ecr => "login attempt to http://",
            Ask::Google => "unauthorized: Not authorized.",
            Ask::Acr => "unauthorized: authentication required",
            Ask::Jfrog => "unknown: Bad credentials",
        }
    }

    pub fn refuses_the_old(&self) -> &'static str {
        match self.ask {
            Ask::Ecr => "denied: Your authorization token has expired. Reauthenticate and try again.",
            _ => self.refuses_a_login(),
        }
    }

    /// What was asked and how, after a whole stay.
    pub fn check(&self) {
        let seen = self.server.seen();
        let asked = |line: &str| seen.iter().any(|request| request.line() == line);
        match self.ask {
            Ask::Ecr => assert!(!asked("GET /v2/token")),
            Ask::Google => assert!(seen.iter().any(|r| r.path.contains("account=_json_key"))),
            Ask::Acr => {
                assert!(asked("GET /oauth2/token"), "the login");
                let mut exchanges = seen.iter().filter(|request| request.line() == "POST /oauth2/token");
                assert!(exchanges.clone().count() > 1, "pulls and pushes exchange the identity token");
                assert!(exchanges.all(|request| request.header("authorization").is_none()), "a password rode along");
            }
            Ask::Jfrog => assert!(asked("GET /artifactory/api/docker/docker-local/v2/token")),
        }
    }
}

fn lock(number: &Mutex<u32>) -> MutexGuard<'_, u32> {
    number.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(ask: Ask, number: u32, behind: u16, request: &Request) -> Reply {
    let path = request.path.split('?').next().unwrap_or_default();
    let given = request.header("authorization").unwrap_or_default();
    let right = basic(ask.username(), &ask.secret(number));
    let Some(realm) = ask.realm() else {
        return match given {
            _ if given == right => Reply::from_behind(behind, request),
            _ if (1..number).any(|old| given == basic(ask.username(), &ask.secret(old))) => Reply::new(
                403,
                r#"{"errors":[{"code":"DENIED","message":"Your authorization token has expired. Reauthenticate and try again."}]}"#,
            ),
            _ => Reply::new(401, "Not Authorized\n").with(
                "Www-Authenticate",
                r#"Basic realm="https://1.dkr.ecr.eu-west-1.amazonaws.com/",service="ecr.amazonaws.com""#,
            ),
        };
    };
    // A token names the secret that it was given for, so that it ends with it.
    let token = format!("of-{number}");
    if path == realm {
        return tokens(ask, number, &token, request, given == right);
    }
    if ask == Ask::Acr && request.line() == "POST /oauth2/exchange" {
        return match form(request, "access_token").as_deref() {
            Some("of+the+cloud") => Reply::json(serde_json::json!({"refresh_token": ask.secret(number)})),
            _ => unauthorized("authentication required"),
        };
    }
    if given == format!("Bearer {token}") {
        return Reply::from_behind(behind, request);
    }
    let host = request.header("host").unwrap_or_default();
    let repository = path.strip_prefix("/v2/").unwrap_or_default();
    let end = ["/manifests/", "/blobs/", "/tags/"].iter().find_map(|part| repository.find(part));
    let scope = end.map(|end| format!(",scope=\"repository:{}:pull,push\"", &repository[..end])).unwrap_or_default();
    Reply::unauthorized(&format!(r#"Bearer realm="http://{host}{realm}",service="{host}"{scope}"#))
}

/// The token service. Nobody gets a token, too: it is good for nothing here.
fn tokens(ask: Ask, number: u32, token: &str, request: &Request, is_right: bool) -> Reply {
    if ask == Ask::Acr && request.method == "POST" {
        let is_grant = form(request, "grant_type").as_deref() == Some("refresh_token");
        let is_current = form(request, "refresh_token") == Some(ask.secret(number));
        return match is_grant && is_current {
            true => Reply::json(serde_json::json!({"access_token": token})),
            false => unauthorized("authentication required"),
        };
    }
    match (request.header("authorization"), ask) {
        (None, _) => Reply::json(serde_json::json!({"token": "anonymous"})),
        // The password is a refresh token already; what is kept is that.
        (Some(_), Ask::Acr) if is_right => {
            Reply::json(serde_json::json!({"access_token": token, "refresh_token": ask.secret(number)}))
        }
        (Some(_), _) if is_right => Reply::json(serde_json::json!({"token": token, "expires_in": 3600})),
        (Some(_), Ask::Google) => unauthorized("Not authorized."),
        (Some(_), Ask::Jfrog) => Reply::new(401, r#"{"errors":[{"status":401,"message":"Bad credentials"}]}"#),
        (Some(_), _) => unauthorized("authentication required"),
    }
}

fn unauthorized(message: &str) -> Reply {
    Reply::new(
        401,
        serde_json::json!({"errors": [{"code": "UNAUTHORIZED", "message": message, "detail": []}]}).to_string(),
    )
}

/// One field of a form, still escaped.
fn form(request: &Request, name: &str) -> Option<String> {
    let body = String::from_utf8_lossy(&request.body).into_owned();
    body.split('&').find_map(|field| Some(field.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

/// The machine's own base64, as a second opinion on the product's.
fn basic(username: &str, password: &str) -> String {
    let mut child = Command::new("base64")
        .arg("-w0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("base64 is there");
    let pair = format!("{username}:{password}");
    std::io::Write::write_all(&mut child.stdin.take().expect("piped"), pair.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    format!("Basic {}", String::from_utf8_lossy(&output.stdout))
}
