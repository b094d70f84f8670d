//! `login` and `logout`.

use std::io::{IsTerminal, Read, Write, stdin, stdout};

use clap::Args;
use serde_json::Value;

use crate::credentials::{Credentials, HUB, Kept, Keyring};
use crate::engine::Engine;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::terminal::without_echo;

#[derive(Args, Debug)]
pub struct Login {
    /// Username
    #[arg(short, long)]
    username: Option<String>,
    /// Password or Personal Access Token (PAT)
    #[arg(short, long)]
    password: Option<String>,
    /// Take the Password or Personal Access Token (PAT) from stdin
    #[arg(long)]
    password_stdin: bool,
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

#[derive(Args, Debug)]
pub struct Logout {
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

/// The key by which a server's credentials are kept.
fn key_of(server: Option<&str>) -> String {
    match model::registry_host(server.unwrap_or_default()) {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => HUB.to_owned(),
        host => host.to_owned(),
    }
}

impl Login {
    pub async fn run(mut self, engine: &Engine) -> Outcome {
        self.check()?;
        let mut keyring = Keyring::open()?;
        let server = key_of(self.server.as_deref());
        let typed = self.username.is_some() || self.password.is_some();
        let known = if typed { None } else { keyring.get(&server).unwrap_or_default() };
        if let Some(known) = known.filter(|k| !k.username.is_empty() || !k.identity_token.is_empty()) {
            match login_again(engine, &known).await {
                Ok(status) => return say(&mut keyring, known, &status),
                Err(failure) if !stdin().is_terminal() => return Err(failure),
                Err(failure) => output::error(format!("Login did not succeed, error: {failure}\n").as_bytes()),
            }
        }
        let asked = self.ask(&server)?;
        let status = authenticate(engine, &asked).await?;
        say(&mut keyring, asked, &status)
    }

    /// Docker's rules for the three flags; the password of stdin is read here.
    fn check(&mut self) -> Outcome {
        if self.password.is_some() && self.password_stdin {
            return Err(Failure::new("conflicting options: cannot specify both --password and --password-stdin"));
        }
        if self.password_stdin && self.username.is_none() {
            return Err(Failure::new("the --password-stdin option requires --username to be set"));
        }
        for (name, value) in [("username", &self.username), ("password", &self.password)] {
            if value.as_deref() == Some("") {
                return Err(Failure::new(format!("{name} is empty")));
            }
        }
        if self.password.is_some() {
            output::error(b"WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n");
        }
        if self.password_stdin {
            let mut text = String::new();
            stdin().read_to_string(&mut text)?;
            let text = text.strip_suffix('\n').unwrap_or(&text);
            let text = text.strip_suffix('\r').unwrap_or(text);
            // An empty one is as none: nobody can be asked for it.
            self.password = (!text.is_empty()).then(|| text.to_owned());
        }
        Ok(())
    }

    /// Completes what was given by asking on the terminal.
    fn ask(&self, server: &str) -> Outcome<Credentials> {
        let complete = self.username.is_some() && self.password.is_some();
        if !complete && (!stdin().is_terminal() || self.password_stdin) {
            return Err(Failure::new("Error: Cannot perform an interactive login from a non TTY device"));
        }
        let username = match &self.username {
            Some(name) => name.clone(),
            None => {
                if server == HUB {
                    output::line(
                        "Log in with your Docker ID or email address to push and pull images from Docker Hub.",
                    );
                }
                prompt("Username: ")?
            }
        };
        if username.is_empty() {
            return Err(Failure::new("username is required"));
        }
        let password = match &self.password {
            Some(password) => password.clone(),
            None => without_echo(|| prompt("Password: "))?,
        };
        if password.is_empty() {
            return Err(Failure::new("password is required"));
        }
        Ok(Credentials { username, password, server: server.to_owned(), ..Credentials::default() })
    }
}

fn prompt(text: &str) -> Outcome<String> {
    print!("{text}");
    stdout().flush()?;
    let mut line = String::new();
    stdin().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

async fn authenticate(engine: &Engine, credentials: &Credentials) -> Outcome<Value> {
    engine.post("/auth").json(&credentials.json()).value().await
}

async fn login_again(engine: &Engine, known: &Credentials) -> Outcome<Value> {
    let user = match known.username.as_str() {
        "" => String::new(),
        name => format!(" [Username: {name}]"),
    };
    // Docker's words, on the stream where Docker says them.
    let hint = "\n\n Info -> To login with a different account, run 'boxyard logout' followed by 'boxyard login'\n\n\n";
    output::error(format!("Authenticating with existing credentials...{user}{hint}").as_bytes());
    authenticate(engine, known).await
}

/// Keeps what the registry took, and says so. A token that it gave is kept in the password's place.
fn say(keyring: &mut Keyring, mut proved: Credentials, status: &Value) -> Outcome {
    if let Some(token) = status["IdentityToken"].as_str().filter(|t| !t.is_empty()) {
        proved.password.clear();
        token.clone_into(&mut proved.identity_token);
    }
    let secret = !proved.password.is_empty();
    if keyring.store(&proved)? == Kept::InFile && secret {
        let file = keyring.path().display();
        let warning = format!(
            "\nWARNING! Your credentials are stored unencrypted in '{file}'.\nConfigure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n\n"
        );
        output::error(warning.as_bytes());
    }
    output::line(status["Status"].as_str().filter(|s| !s.is_empty()).unwrap_or("Login Succeeded"));
    Ok(())
}

impl Logout {
    pub async fn run(self) -> Outcome {
        let key = key_of(self.server.as_deref());
        output::line(format!("Removing login credentials for {key}"));
        let mut keyring = Keyring::open()?;
        let mut failures = Vec::new();
        // Older clients kept a server by its whole address.
        let mut keys = vec![key.clone()];
        if key != HUB {
            keys.extend([format!("http://{key}"), format!("https://{key}")]);
        }
        let tried = keys.len();
        for key in keys {
            if let Err(failure) = keyring.erase(&key) {
                failures.push(format!("{key}: {failure}\n"));
            }
        }
        // Docker's rule: what was kept under one of the addresses is gone, or else a warning says that nothing is.
        if failures.len() == tried {
            output::error(format!("WARNING: could not erase credentials:\n{}", failures.concat()).as_bytes());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_servers() {
        for (server, key) in [
            (None, HUB),
            (Some("docker.io"), HUB),
            (Some("https://index.docker.io/v1/"), HUB),
            (Some("http://127.0.0.1:5000/v2/"), "127.0.0.1:5000"),
            (Some("box"), "box"),
        ] {
            assert_eq!(key_of(server), key, "{server:?}");
        }
    }

    #[test]
    fn flags_that_do_not_fit() {
        let login = |username: Option<&str>, password: Option<&str>, password_stdin| Login {
            username: username.map(str::to_owned),
            password: password.map(str::to_owned),
            password_stdin,
            server: None,
        };
        for (mut login, said) in [
            (login(Some("a"), Some("b"), true), "conflicting options"),
            (login(None, None, true), "requires --username"),
            (login(Some(""), Some("b"), false), "username is empty"),
            (login(Some("a"), Some(""), false), "password is empty"),
        ] {
            assert!(login.check().expect_err("refused").message.contains(said));
        }
    }
}
