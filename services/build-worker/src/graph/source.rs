//! What a build begins with: the Dockerfile, and the context that its files come from.

use std::sync::Arc;

use dockerfile::{Dialect, Dockerfile};
use tokio::sync::OnceCell;

use super::Graph;
use super::files::Origin;
use super::trace::Vertex;
use crate::context::{self, Context};
use crate::failure::Failure;
use crate::layers::Unchanged;

pub struct Source {
    pub file: Dockerfile,
    context: Origin,
    /// Told once, by the first step that reads it.
    told: OnceCell<()>,
}

impl Graph {
    /// Brings the Dockerfile, and with it the context.
    ///
    /// # Errors
    /// `User` for a Dockerfile that is missing or wrong.
    pub(super) async fn source(&self) -> Result<Source, Failure> {
        let name = match self.options.dockerfile.as_str() {
            "" => "Dockerfile",
            name => name.rsplit('/').next().unwrap_or(name),
        };
        let place = |what: &str| format!("{} {what}", self.executor.build_id);
        let shown = format!("[internal] load build definition from {name}");
        let mut vertex = Vertex::new(&self.trace, &place("definition"), shown);
        let context = vertex.around(self.context()).await?;
        if context.has_ignore {
            let shown = "[internal] load .dockerignore".to_owned();
            Vertex::new(&self.trace, &place("ignore"), shown).around(async { Ok(()) }).await?;
        }
        let file = Dockerfile::parse_as(&context.dockerfile, Dialect::BuildKit)?;
        Ok(Source { file, context: self.origin_of(context).await?, told: OnceCell::new() })
    }

    async fn context(&self) -> Result<Arc<Context>, Failure> {
        if self.options.session_context {
            return Err(Failure::user("contexts of a client's session are not built yet"));
        }
        if let Some(kept) = self.executor.contexts.find(&context::key(&self.options)) {
            return Ok(kept);
        }
        let folder = self.executor.machine.build_folder(&self.executor.build_id).join("context");
        tokio::select! {
            () = self.executor.ends.cancel.cancelled() => Err(Failure::Cancelled),
            context = Context::fetch(&self.executor.layers.store, &self.options, folder) => context.map(Arc::new),
        }
    }

    /// A tar in the layer store is there for every worker; what was fetched from elsewhere becomes a layer to be so.
    async fn origin_of(&self, context: Arc<Context>) -> Result<Origin, Failure> {
        if context.blob.is_some() {
            let _ = self.executor.context.set(context.clone());
            return Ok(Origin::Context(context));
        }
        let made = self.executor.layers.adopt(context.folder.clone(), Vec::new(), Unchanged::EmptyLayer).await?;
        let made = made.ok_or_else(|| Failure::internal("a context without a layer"))?;
        made.upload.await.map_err(Failure::caused)??;
        Ok(Origin::Layers(vec![made.layer]))
    }

    /// The files that the build was given.
    pub(super) async fn build_context(&self, source: &Source) -> Origin {
        let tell = async {
            let place = format!("{} context", self.executor.build_id);
            let mut vertex = Vertex::new(&self.trace, &place, "[internal] load build context".to_owned());
            vertex.start().await;
            vertex.complete(None).await;
        };
        source.told.get_or_init(|| tell).await;
        source.context.clone()
    }
}
