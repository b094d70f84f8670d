//! A credential helper: the program `docker-credential-NAME`, asked by its standard input and output. The protocol is
//! docker-credential-helpers': get, store, erase and list.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::Credentials;
use crate::commands::os_words;
use crate::failure::{Failure, Outcome};

/// What a helper says of a server that it does not know.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// The user name that marks an identity token.
const TOKEN_USER: &str = "<token>";

pub struct Helper<'a> {
    name: &'a str,
}

impl<'a> Helper<'a> {
    pub fn new(name: &'a str) -> Self {
        Self { name }
    }

    pub fn get(&self, server: &str) -> Outcome<Option<Credentials>> {
        let said = match self.ask("get", server, "getting") {
            Err(failure) if failure.message.contains(NOT_FOUND) => return Ok(None),
            said => said?,
        };
        let found: Value = serde_json::from_str(&said).map_err(|e| {
            Failure::new(format!("error getting credentials - docker-credential-{} said no JSON: {e}", self.name))
        })?;
        let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
        let server = server.to_owned();
        Ok(Some(match text("Username") {
            user if user == TOKEN_USER => {
                Credentials { identity_token: text("Secret"), server, ..Credentials::default() }
            }
            username => Credentials { username, password: text("Secret"), server, ..Credentials::default() },
        }))
    }

    pub fn store(&self, credentials: &Credentials) -> Outcome {
        let (username, secret) = match credentials.identity_token.as_str() {
            "" => (credentials.username.as_str(), &credentials.password),
            _ => (TOKEN_USER, &credentials.identity_token),
        };
        let told = json!({"ServerURL": credentials.server, "Username": username, "Secret": secret});
        self.ask("store", &told.to_string(), "storing").map(drop)
    }

    /// Forgets a server; one that it does not know is forgotten already.
    pub fn erase(&self, server: &str) -> Outcome {
        match self.ask("erase", server, "erasing") {
            Err(failure) if failure.message.contains(NOT_FOUND) => Ok(()),
            said => said.map(drop),
        }
    }

    /// Servers and their users.
    pub fn list(&self) -> Outcome<BTreeMap<String, String>> {
        let said = self.ask("list", "unused", "listing")?;
        serde_json::from_str(&said).map_err(|e| {
            Failure::new(format!("error listing credentials - docker-credential-{} said no JSON: {e}", self.name))
        })
    }

    fn ask(&self, action: &str, input: &str, doing: &str) -> Outcome<String> {
        let program = format!("docker-credential-{}", self.name);
        let failed = |why: String, said: &str| {
            Failure::new(format!("error {doing} credentials - err: {why}, out: `{}`", said.trim()))
        };
        // A name is a word of a program's name, never a path.
        if self.name.contains('/') {
            return Err(failed(format!("{program:?} is not the name of a credential helper"), ""));
        }
        let spawned =
            Command::new(&program).arg(action).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(|e| {
                failed(
                    match e.kind() {
                        ErrorKind::NotFound => format!("exec: {program:?}: executable file not found in $PATH"),
                        _ => os_words(&e),
                    },
                    "",
                )
            });
        let mut child = spawned?;
        if let Some(mut pipe) = child.stdin.take() {
            // A helper that does not read its input says why by its exit.
            let _ = pipe.write_all(input.as_bytes());
        }
        let done = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        if !done.status.success() {
            return Err(failed(done.status.to_string().replace("exit status: ", "exit status "), &said));
        }
        Ok(said)
    }
}
