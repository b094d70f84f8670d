use std::collections::HashMap;
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::StatusResponse;
use proto::build_log::What;

use super::failed::Failed;
use super::status;
use crate::app::build_log::BuildLogReader;
use crate::app::lease::Lease;
use crate::app::registry::Credentials;
use crate::app::{App, Failure, Outcome, now_ns, random_id};

/// What a build tells its client.
pub enum Told {
    Status(StatusResponse),
    /// It succeeded; the id is empty where no image was asked for. With what the exporters, or a request about the
    /// Dockerfile, answer.
    Built {
        image_id: String,
        response: HashMap<String, String>,
        /// What was built, for each platform, where the options want to know.
        results: Vec<proto::BuiltImage>,
    },
    Failed(Failed),
}

/// A build of a client; when this is dropped before its end, the build is cancelled. So it is when its log cannot be read.
pub struct Build {
    app: Arc<App>,
    pub id: String,
    log: BuildLogReader,
    context: Option<String>,
    image_id: String,
    /// Nothing more is told.
    is_told: bool,
    /// The build itself has ended, not only what can be read of it.
    has_ended: bool,
    /// Of its context.
    _lease: Option<Lease>,
}

impl Build {
    /// Queues a build, under the name that its client gave it where that is free. A session that it names must be there, or
    /// come within seconds.
    ///
    /// # Errors
    /// `AlreadyExists` where another build gets the name at this moment; `Unavailable` without the session.
    pub async fn begin(
        app: &Arc<App>,
        options: &proto::BuildOptions,
        (name, lease): (Option<&str>, Option<Lease>),
    ) -> Outcome<Self> {
        if !options.session_id.is_empty() {
            app.session(&options.session_id).await?;
        }
        let (id, log) = match name {
            Some(name) => Self::named(app, name).await?,
            None => Self::unnamed(app).await?,
        };
        app.queue_build(&id, options, Credentials::default()).await?;
        let context = options.context.as_ref().map(|context| context.digest.clone());
        let image_id = String::new();
        Ok(Self { app: app.clone(), id, log, context, image_id, is_told: false, has_ended: false, _lease: lease })
    }

    async fn unnamed(app: &Arc<App>) -> Outcome<(String, BuildLogReader)> {
        let id = random_id()[..32].to_owned();
        let log = app.follow_build_log(&id).await?;
        Ok((id, log))
    }

    /// A client may use a name again. While a build is remembered by it, the next one gets another; once it is forgotten, what
    /// the bus still has of its log is not the next one's.
    async fn named(app: &Arc<App>, name: &str) -> Outcome<(String, BuildLogReader)> {
        if app.db.build(name).await?.is_some() {
            return Self::unnamed(app).await;
        }
        app.bus.clear_build_log(name).await?;
        let log = app.follow_build_log(name).await?;
        Ok((name.to_owned(), log))
    }

    /// The next word; none after the end, which is the last one.
    pub async fn next(&mut self) -> Option<Told> {
        while !self.is_told {
            let told = match self.log.next().await {
                Some(Ok(chunk)) => {
                    self.has_ended = matches!(chunk.what, Some(What::End(_) | What::Error(_)));
                    self.told(chunk)
                }
                Some(Err(failure)) => Some(Told::Failed(failure.into())),
                None => {
                    let failure = Failure::new(model::ErrorKind::Internal, "the build's log has no end");
                    Some(Told::Failed(failure.into()))
                }
            };
            let Some(told) = told else { continue };
            self.is_told = !matches!(told, Told::Status(_));
            return Some(told);
        }
        None
    }

    fn told(&mut self, chunk: proto::BuildLog) -> Option<Told> {
        let proto::BuildLog { response, results, fault, .. } = chunk;
        match chunk.what? {
            What::AuxId(id) => {
                self.image_id = id;
                None
            }
            What::End(_) => Some(Told::Built { image_id: std::mem::take(&mut self.image_id), response, results }),
            What::Error(why) => {
                let failure = Failure::new(model::ErrorKind::Internal, why);
                Some(Told::Failed(Failed { failure, fault }))
            }
            other => status_of(other).map(Told::Status),
        }
    }
}

/// What a chunk says of steps.
pub fn status_of(what: What) -> Option<StatusResponse> {
    match what {
        What::Trace(trace) => Some(status::response(trace)),
        What::Stream(text) => Some(status::note(&text, now_ns())),
        What::StatusJson(_) | What::AuxId(_) | What::Error(_) | What::End(_) => None,
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        let (app, id, context) = (self.app.clone(), std::mem::take(&mut self.id), self.context.take());
        let has_ended = self.has_ended;
        // At the end of a process its session ends, and the builds with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if !has_ended {
                    app.cancel_build(&id).await;
                }
                app.end_build(&id, context).await;
            });
        }
    }
}
