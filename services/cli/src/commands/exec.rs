//! `exec`.

use std::io::{IsTerminal, stdin};

use clap::Args;
use serde_json::json;

use crate::create::values;
use crate::engine::{Engine, escape};
use crate::failure::{Failure, Outcome};
use crate::session::{End, Session, follow_size};
use crate::terminal;

#[derive(Args, Debug)]
pub struct Exec {
    /// Detached mode: run command in the background
    #[arg(short, long)]
    detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long)]
    detach_keys: Option<String>,
    /// Set environment variables
    #[arg(short, long)]
    env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long)]
    env_file: Vec<String>,
    /// Keep STDIN open even if not attached
    #[arg(short, long)]
    interactive: bool,
    /// Give extended privileges to the command
    #[arg(long)]
    privileged: bool,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    tty: bool,
    /// Username or UID (format: "<name|uid>[:<group|gid>]")
    #[arg(short, long)]
    user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long)]
    workdir: Option<String>,
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_name = "CONTAINER COMMAND [ARG...]")]
    container_and_command: Vec<String>,
}

impl Exec {
    pub async fn run(self, engine: &Engine) -> Outcome {
        let (container, command) =
            self.container_and_command.split_first().ok_or_else(|| Failure::new("no container"))?;
        let container = escape(container);
        engine.get(format!("/containers/{container}/json")).send().await?;
        if !self.detach {
            terminal::check_tty(self.interactive, self.tty)?;
        }
        let size = terminal::size().filter(|_| self.tty).map(|(h, w)| json!([h, w]));
        let mut body = json!({
            "User": self.user.as_deref().unwrap_or_default(),
            "Privileged": self.privileged,
            "Tty": self.tty,
            "AttachStdin": self.interactive && !self.detach,
            "AttachStdout": !self.detach,
            "AttachStderr": !self.detach,
            "DetachKeys": self.detach_keys.as_deref().unwrap_or_default(),
            "Env": values::environment(&self.env_file, &self.env)?,
            "WorkingDir": self.workdir.as_deref().unwrap_or_default(),
            "Cmd": command,
        });
        if let (Some(size), Some(map)) = (&size, body.as_object_mut()) {
            map.insert("ConsoleSize".into(), size.clone());
        }
        let created = engine.post(format!("/containers/{container}/exec")).json(&body).value().await?;
        let id = created["Id"].as_str().ok_or_else(|| Failure::new("exec ID empty"))?;
        let mut start = json!({"Detach": self.detach, "Tty": self.tty});
        if let (Some(size), Some(map)) = (size, start.as_object_mut()) {
            map.insert("ConsoleSize".into(), size);
        }
        let call = engine.post(format!("/exec/{id}/start")).json(&start);
        if self.detach {
            call.send().await?;
            return Ok(());
        }
        let raw = call.hijack().await?;
        let session =
            Session { tty: self.tty, stdin: self.interactive, output: true, detach_keys: self.detach_keys.clone() };
        let resize = format!("/exec/{id}/resize");
        let end = tokio::select! {
            end = session.relay(raw) => end?,
            () = follow_size(engine, &resize), if self.tty && stdin().is_terminal() => End::Closed,
        };
        if end == End::Detached {
            return Err(Failure::new("read escape sequence"));
        }
        let ended = engine.get(format!("/exec/{id}/json")).value().await?;
        match ended["ExitCode"].as_i64() {
            Some(0) | None => Ok(()),
            Some(code) => Err(Failure::exit(code as i32)),
        }
    }
}
