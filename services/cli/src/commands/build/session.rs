//! A build by a session: the daemon asks for what it lacks, and tells its steps as BuildKit does.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::options::Asked;
use super::source::{is_archive, rest_of_stdin, stdin_head};
use super::{Build, Call, OnError};
use crate::attachables::Session;
use crate::commands::builds::{explain, shell};
use crate::credentials;
use crate::engine::{Engine, empty, next_chunk, streamed};
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::solve::{Excerpt, Mode, Progress};

const TICK: Duration = Duration::from_millis(100);
/// How long a build whose gateway has gone is asked for.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(500);

impl Build {
    pub(super) async fn run_session(self, engine: &Engine) -> Outcome {
        if self.detach {
            return self.run_detached(engine).await;
        }
        let head = if self.context == "-" { stdin_head()? } else { Vec::new() };
        let is_sent = self.context == "-" && is_archive(&head);
        let asks_back = !self.secret.is_empty() || !self.ssh.is_empty() || !self.build_context.is_empty();
        if is_sent && asks_back {
            return Err(Failure::new(
                "ERROR: a context on stdin cannot be built with --secret, --ssh or --build-context",
            ));
        }
        let Asked { mut options, attachables, excerpt, made: _made, caches } = self.asked(head.clone())?;
        if is_sent && !attachables.contents.is_empty() {
            return Err(Failure::new("ERROR: a context on stdin cannot be built with local caches"));
        }
        caches.prepare()?;
        let mut session = None;
        let mut body = empty();
        if is_sent {
            body = streamed(rest_of_stdin(head));
        } else {
            let open = attachables.open(engine).await?;
            options["session_id"] = open.id.clone().into();
            session = Some(open);
        }
        let mode = if self.quiet { Mode::Quiet } else { self.progress };
        let progress = Progress::new(mode);
        let interrupts = signal(SignalKind::interrupt())?;
        let mut following = Following { engine, session, progress, interrupts, told: Told::default() };
        let call = engine
            .post("/boxyard/v1/builds")
            .query("options", &options)
            .header("content-type", "application/x-tar")
            .header("x-registry-config", credentials::build_header())
            .body(body);
        let outcome = following.run(call).await;
        following.session = None;
        following.progress.finish();
        // Also of a build that failed: the steps before the failure have run.
        if self.explain && !following.told.id.is_empty() {
            match explain::text(engine, &following.told.id, false).await {
                Ok(text) => eprint!("\n{text}"),
                Err(failure) => eprintln!("WARNING: the build is not explained: {failure}"),
            }
        }
        match outcome {
            Ok(()) => {
                caches.update(&following.told.response)?;
                self.end(&following.told, &excerpt)
            }
            // The daemon would not begin it.
            Err(failure) if following.told.id.is_empty() => Err(failure),
            Err(failure) => {
                let failure = following.progress.failure(failure, &excerpt);
                if self.on_error == OnError::Shell && following.told.command_failed {
                    // How the shell ends is nothing that the build's end depends on.
                    if let Err(failure) = shell::open(engine, &following.told.id, None, &[]).await
                        && !failure.message.is_empty()
                    {
                        eprintln!("WARNING: no shell in the failed step: {failure}");
                    }
                }
                Err(failure)
            }
        }
    }

    /// Sends all that the build needs and does not wait for it.
    async fn run_detached(self, engine: &Engine) -> Outcome {
        let asks_back = !self.secret.is_empty() || !self.ssh.is_empty() || !self.build_context.is_empty();
        if asks_back || !self.output.is_empty() || self.context == "-" {
            return Err(Failure::new(
                "ERROR: --detach leaves nobody that --secret, --ssh, --build-context, --output or stdin could ask",
            ));
        }
        let Asked { mut options, attachables, made, .. } = self.asked(Vec::new())?;
        if !attachables.contents.is_empty() {
            return Err(Failure::new("ERROR: --detach leaves nobody who could read or write local caches"));
        }
        if options["session_dockerfile"] == true {
            return Err(Failure::new(format!(
                "ERROR: --detach leaves nobody who could send the Dockerfile {} of this machine for a remote context",
                self.file.as_deref().unwrap_or_default()
            )));
        }
        // What came from stdin, or by a pipe, has been read.
        let read = made.first().map(|made| made.path().join("Dockerfile").display().to_string());
        let source = Self { quiet: true, file: read.or_else(|| self.file.clone()), ..self }.source()?;
        options["dockerfile"] = source.dockerfile.clone().into();
        let call = engine
            .post("/boxyard/v1/builds")
            .query("options", &options)
            .flag("detach", true)
            .header("content-type", "application/x-tar")
            .header("x-registry-config", credentials::build_header())
            .body(source.body);
        let answer = call.value().await?;
        output::line(answer["id"].as_str().unwrap_or_default());
        Ok(())
    }

    /// Tells and writes what was made.
    fn end(&self, told: &Told, excerpt: &Excerpt) -> Outcome {
        let call = if self.check { Call::Check } else { self.call };
        if call != Call::Build {
            let answer = told.response["result.json"].as_str().unwrap_or_default();
            return call.print(&serde_json::from_str(answer)?, excerpt);
        }
        let of_response = ["containerimage.config.digest", "containerimage.digest"];
        let of_response = of_response.iter().find_map(|key| told.response[*key].as_str());
        let image = Some(told.image.as_str()).filter(|image| !image.is_empty()).or(of_response);
        if self.quiet {
            image.iter().for_each(output::line);
        }
        if let Some(path) = &self.iidfile {
            let missing = || Failure::new("server did not provide an image ID. Cannot write to file");
            std::fs::write(path, image.ok_or_else(missing)?)?;
        }
        if let Some(path) = &self.metadata_file {
            std::fs::write(path, serde_json::to_string_pretty(&told.response)?)?;
        }
        Ok(())
    }
}

/// What is known of the build itself.
#[derive(Default)]
struct Told {
    id: String,
    image: String,
    /// Of the exporters.
    response: Value,
    /// It ended because a command did not succeed.
    command_failed: bool,
    /// Updates that were shown: an answer that begins again tells them again.
    updates: usize,
}

struct Following<'a> {
    engine: &'a Engine,
    /// None where the context was sent with the request.
    session: Option<Session>,
    progress: Progress,
    interrupts: Signal,
    told: Told,
}

/// How an answer came to its end.
enum End {
    Built,
    Failed(Failure),
    /// It broke off: the build may go on.
    Broken(Failure),
}

impl Following<'_> {
    /// Follows the build to its end, through another gateway if its own has gone.
    async fn run(&mut self, call: crate::engine::Call<'_>) -> Outcome {
        let mut end = self.answer(call, 0).await?;
        let mut since = Instant::now();
        loop {
            let broken = match end {
                End::Built => return Ok(()),
                End::Failed(failure) => return Err(failure),
                End::Broken(broken) => broken,
            };
            if self.told.id.is_empty() || since.elapsed() > PATIENCE {
                return Err(broken);
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                _ = self.interrupts.recv() => return Err(self.cancel().await?),
            }
            end = match self.come_back().await {
                Ok(end) => {
                    // A gateway that answered is another one's end.
                    since = Instant::now();
                    end
                }
                // It has started, and does not know the build: so nobody does.
                Err(failure) if failure.is_not_found() => return Err(failure),
                Err(failure) => End::Broken(failure),
            };
        }
    }

    /// Attaches to the build again, with the session that it knows.
    async fn come_back(&mut self) -> Outcome<End> {
        let mut call = self.engine.post(format!("/boxyard/v1/builds/{}/attach", self.told.id));
        if let Some(session) = &mut self.session {
            session.reopen(self.engine).await?;
            call = call.query("session", &session.id);
        }
        let call = call.header("x-registry-config", credentials::build_header());
        self.answer(call, self.told.updates).await
    }

    /// Shows an answer, from an update on.
    async fn answer(&mut self, call: crate::engine::Call<'_>, mut known: usize) -> Outcome<End> {
        let mut ticks = tokio::time::interval(TICK);
        let send = call.send();
        tokio::pin!(send);
        let response = loop {
            tokio::select! {
                response = &mut send => break response?,
                _ = self.interrupts.recv() => return Ok(End::Failed(cancelled())),
                _ = ticks.tick() => self.progress.tick(),
            }
        };
        let mut body = response.into_body();
        let mut pending = Vec::new();
        loop {
            let chunk = tokio::select! {
                chunk = next_chunk(&mut body) => chunk,
                _ = self.interrupts.recv() => return self.cancel().await.map(End::Failed),
                _ = ticks.tick() => {
                    self.progress.tick();
                    continue;
                }
            };
            match chunk {
                Ok(Some(chunk)) => pending.extend_from_slice(&chunk),
                Ok(None) => return Ok(End::Broken(Failure::new("the daemon's answer broke off"))),
                Err(failure) => return Ok(End::Broken(failure)),
            }
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                if let Some(end) = self.line(&serde_json::from_slice(&line)?, &mut known)? {
                    return Ok(end);
                }
            }
        }
    }

    fn line(&mut self, line: &Value, known: &mut usize) -> Outcome<Option<End>> {
        if let Some(message) = line["error"].as_str() {
            self.told.command_failed = line["code"].as_i64().is_some_and(|code| code != 0);
            self.progress.failed_at(line["line"].as_u64());
            return Ok(Some(End::Failed(Failure::new(message))));
        }
        if line["end"] == true {
            self.told.response = line["response"].clone();
            return Ok(Some(End::Built));
        }
        if let Some(id) = line["id"].as_str() {
            id.clone_into(&mut self.told.id);
        } else if let Some(image) = line["aux"]["ID"].as_str() {
            image.clone_into(&mut self.told.image);
        } else if let Some(text) = line["stream"].as_str() {
            self.progress.note(text.trim_end());
        } else if line["trace"].is_object() {
            match *known {
                0 => {
                    self.told.updates += 1;
                    self.progress.update(&line["trace"])?;
                }
                _ => *known -= 1,
            }
        }
        Ok(None)
    }

    /// The build ends, for whoever else follows it too.
    async fn cancel(&mut self) -> Outcome<Failure> {
        if !self.told.id.is_empty() {
            let cancel = self.engine.post(format!("/boxyard/v1/builds/{}/cancel", self.told.id)).body(empty());
            // One that has just ended cannot be cancelled, and need not be.
            let _ = cancel.send().await;
        }
        Ok(cancelled())
    }
}

fn cancelled() -> Failure {
    Failure::new("Canceled: context canceled")
}
