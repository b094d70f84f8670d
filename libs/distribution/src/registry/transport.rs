use std::error::Error as StdError;
use std::io;

use url::Url;

use super::Error;

/// A request that got no answer, in the words of Go's HTTP client, which are Docker's.
pub(super) fn failed(method: &str, url: &Url, error: &reqwest::Error) -> Error {
    let address = address(url);
    let (why, retry) = if error.is_timeout() && error.is_connect() {
        (format!("dial tcp {address}: i/o timeout"), true)
    } else {
        trust::causes(error).find_map(|cause| words(cause, &address, url)).unwrap_or_else(|| (last(error), true))
    };
    Error::Transport { request: request(method, url), why, retry }
}

/// An answer's headers or its next bytes did not come in time.
pub(super) fn silent(method: &str, url: &Url) -> Error {
    let why = "net/http: timeout awaiting response".to_owned();
    Error::Transport { request: request(method, url), why, retry: true }
}

/// `Get "https://host/v2/"`, without what the URL may hold of secrets.
pub(super) fn request(method: &str, url: &Url) -> String {
    let mut shown = url.clone();
    // Upload sessions and signed addresses are in the query.
    shown.set_query(None);
    let _ = (shown.set_password(None), shown.set_username(""));
    let mut letters = method.to_ascii_lowercase();
    letters[..1].make_ascii_uppercase();
    format!("{letters} \"{shown}\"")
}

fn address(url: &Url) -> String {
    let host = match url.host_str().unwrap_or_default() {
        "localhost" => "127.0.0.1",
        host => host,
    };
    format!("{host}:{}", url.port_or_known_default().unwrap_or_default())
}

/// The words for one link of the chain of causes, and whether it may pass.
fn words(cause: &(dyn StdError + 'static), address: &str, url: &Url) -> Option<(String, bool)> {
    if let Some(tls) = trust::tls_words(cause, url.host_str().unwrap_or_default()) {
        return Some((tls, false));
    }
    if let Some(io) = cause.downcast_ref::<io::Error>() {
        return match io.kind() {
            io::ErrorKind::ConnectionRefused => {
                Some((format!("dial tcp {address}: connect: connection refused"), true))
            }
            io::ErrorKind::HostUnreachable => Some((format!("dial tcp {address}: connect: no route to host"), true)),
            io::ErrorKind::NetworkUnreachable => {
                Some((format!("dial tcp {address}: connect: network is unreachable"), true))
            }
            io::ErrorKind::ConnectionReset => Some((format!("read tcp {address}: connection reset by peer"), true)),
            io::ErrorKind::BrokenPipe => Some((format!("write tcp {address}: broken pipe"), true)),
            io::ErrorKind::UnexpectedEof => Some(("unexpected EOF".to_owned(), true)),
            _ => None,
        };
    }
    match cause.to_string().as_str() {
        "dns error" => {
            let host = url.host_str().unwrap_or_default();
            Some((format!("dial tcp: lookup {host}: no such host"), true))
        }
        "connection closed before message completed" => Some(("EOF".to_owned(), true)),
        _ => None,
    }
}

fn last(error: &reqwest::Error) -> String {
    trust::causes(error).last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_a_url_are_not_told() {
        let url = Url::parse("https://user:word@host:5000/v2/a/blobs/uploads/1?_state=secret").expect("a URL");
        assert_eq!(request("PATCH", &url), "Patch \"https://host:5000/v2/a/blobs/uploads/1\"");
    }

    #[tokio::test]
    async fn a_closed_port_gets_gos_words() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = Url::parse(&format!("http://{}/v2/", listener.local_addr().expect("bound"))).expect("a URL");
        drop(listener);
        let _ = rustls::crypto::ring::default_provider().install_default();
        let error = reqwest::Client::new().get(url.clone()).send().await.expect_err("nobody listens");
        let words = failed("GET", &url, &error).to_string();
        assert_eq!(words, format!("Get \"{url}\": dial tcp {}: connect: connection refused", address(&url)));
    }
}
