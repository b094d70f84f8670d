//! What a build's client may show a git server: its secrets `GIT_AUTH_TOKEN` and `GIT_AUTH_HEADER`, or those of one host
//! (`GIT_AUTH_TOKEN.example.org`), as BuildKit knows them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::process::Command;
use url::Url;

const HEADER: &str = "GIT_AUTH_HEADER";
const TOKEN: &str = "GIT_AUTH_TOKEN";
/// The user that a token stands for.
const TOKEN_USER: &str = "x-access-token";

/// A header for one server. It is shown in no list of processes: git gets it by its environment.
#[derive(Clone, Default)]
pub struct Access(Option<(String, String)>);

impl Access {
    /// The secrets that are meant for the server of a repository, the first that there is counts: the one of its host before
    /// the general one, a whole header before a token. None for a server that is not reached by http(s).
    pub fn secrets(url: &str) -> Vec<String> {
        let Some((_, host)) = server(url) else { return Vec::new() };
        [HEADER, TOKEN].iter().flat_map(|kind| [format!("{kind}.{host}"), (*kind).to_owned()]).collect()
    }

    /// What the value of one of these secrets lets a build show.
    pub fn of(url: &str, secret: &str, value: &[u8]) -> Self {
        let Some((scope, _)) = server(url) else { return Self::default() };
        let value = String::from_utf8_lossy(value).trim().to_owned();
        let value = match secret.starts_with(TOKEN) {
            true => format!("basic {}", STANDARD.encode(format!("{TOKEN_USER}:{value}"))),
            false => value,
        };
        Self(Some((scope, value)))
    }

    /// Lets a git command show it to that server, and to no other.
    pub fn give(&self, command: &mut Command) {
        if let Some((scope, value)) = &self.0 {
            command
                .env("GIT_CONFIG_COUNT", "1")
                .env("GIT_CONFIG_KEY_0", format!("http.{scope}.extraheader"))
                .env("GIT_CONFIG_VALUE_0", format!("Authorization: {value}"));
        }
    }

    /// Text without the secret, whoever has put it there.
    pub fn hide(&self, text: &str) -> String {
        match &self.0 {
            Some((_, value)) if !value.is_empty() => text.replace(value.as_str(), "xxxxx"),
            _ => text.to_owned(),
        }
    }
}

/// The URL of a repository's server, and the host as secrets are named by it.
fn server(url: &str) -> Option<(String, String)> {
    let url = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let host = match url.port() {
        Some(port) => format!("{}:{port}", url.host_str()?),
        None => url.host_str()?.to_owned(),
    };
    Some((format!("{}://{host}/", url.scheme()), host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str, secrets: &[(&str, &str)]) -> Option<(String, String)> {
        let value = |name: &String| secrets.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
        let found = Access::secrets(url).into_iter().find_map(|name| Some((value(&name)?, name)));
        found.and_then(|(value, name)| Access::of(url, &name, value.as_bytes()).0)
    }

    #[test]
    fn the_secret_of_the_host_counts_first_and_goes_to_that_server_only() {
        let scope = || "https://h/".to_owned();
        for (url, secrets, given) in [
            ("https://h/r.git", &[][..], None),
            ("https://h/r.git", &[("GIT_AUTH_HEADER", "Bearer x\n")], Some((scope(), "Bearer x".to_owned()))),
            (
                "https://h/r.git",
                &[("GIT_AUTH_TOKEN", "t")],
                Some((scope(), "basic eC1hY2Nlc3MtdG9rZW46dA==".to_owned())),
            ),
            (
                "https://h/r.git",
                &[("GIT_AUTH_TOKEN.h", "no"), ("GIT_AUTH_HEADER", "a"), ("GIT_AUTH_HEADER.h", "b")],
                Some((scope(), "b".to_owned())),
            ),
            ("https://h/r.git", &[("GIT_AUTH_HEADER.other", "a")], None),
            ("http://h:81/r.git", &[("GIT_AUTH_HEADER.h:81", "a")], Some(("http://h:81/".to_owned(), "a".to_owned()))),
            ("git@h:r.git", &[("GIT_AUTH_HEADER", "a")], None),
            ("ssh://h/r.git", &[("GIT_AUTH_HEADER", "a")], None),
        ] {
            assert_eq!(of(url, secrets), given, "{url} {secrets:?}");
        }
    }

    #[test]
    fn what_git_says_does_not_show_it() {
        let access = Access(Some(("https://h/".to_owned(), "Bearer x".to_owned())));
        assert_eq!(access.hide("sent Bearer x to h"), "sent xxxxx to h");
        assert_eq!(Access::default().hide("a"), "a");
    }
}
