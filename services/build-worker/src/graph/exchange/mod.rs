//! Caches that other Boxyards made: `--cache-from`, and `--cache-to` for them.
//!
//! A cache is a manifest, in a registry or in a layout of the client, whose config ([`Page`]) says which steps' keys lead
//! to which of its layers; inline the page stands in an image's own config. What comes from there is used by the build
//! that named it, and not recorded for others: whoever trusts a registry does so for themselves.

mod options;
mod page;

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use bus::{Target, calls};
use model::Digest;

use super::Graph;
use super::export::{Built, Response, exported};
use super::trace::Vertex;
use crate::failure::Failure;
use crate::halt;
use crate::patience::patiently;
use options::Mode;
pub use options::check;
use page::{INLINE, Page, Read, Row};

const MAX_PAGE_BYTES: u64 = 8 << 20;

/// What a build knows of other caches, and what it leaves to them.
#[derive(Default)]
pub struct Exchange {
    foreign: Vec<Foreign>,
    /// Results of this build's steps by key.
    used: Mutex<BTreeMap<String, proto::StepRecord>>,
}

struct Foreign {
    /// Of [`proto::BuildOptions::cache_imports`].
    index: u32,
    layers: Vec<String>,
    rows: HashMap<String, Row>,
}

impl Exchange {
    /// A result that counts for this build's caches.
    pub fn note(&self, key: &str, record: &proto::StepRecord) {
        let record = proto::StepRecord { key: key.to_owned(), ..record.clone() };
        self.used.lock().expect("no holder panics").insert(key.to_owned(), record);
    }

    fn records(&self) -> Vec<proto::StepRecord> {
        self.used.lock().expect("no holder panics").values().cloned().collect()
    }
}

impl Graph {
    /// Reads the caches that the build was given. One that is not there is told, and does no harm.
    pub(super) async fn import_caches(&self) -> Exchange {
        let mut exchange = Exchange::default();
        for (index, option) in self.options.cache_imports.iter().enumerate() {
            let shown = shown(option);
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            let place = format!("{} cache {index}", self.executor.build_id);
            let mut vertex = Vertex::new(&self.trace, &place, format!("importing cache manifest from {shown}"));
            vertex.may_fail = true;
            let importing = async {
                self.import_cache(index).await.map_err(|error| match error {
                    Failure::User(why) => {
                        Failure::User(format!("failed to configure {} cache importer: {shown}: {why}", option.r#type))
                    }
                    other => other,
                })
            };
            if let Ok(foreign) = vertex.around(importing).await {
                exchange.foreign.extend(foreign);
            }
        }
        exchange
    }

    async fn import_cache(&self, index: u32) -> Result<Option<Foreign>, Failure> {
        let reply = self.fetch_cache(index, Vec::new()).await?;
        let config = reply.config.ok_or_else(|| Failure::internal("a cache without a config"))?;
        let digest: Digest = config.digest.parse().map_err(Failure::caused)?;
        let get = self.executor.layers.store.get_bytes(&digest, MAX_PAGE_BYTES);
        let bytes = halt::wait(get).await?.map_err(Failure::caused)?;
        match Page::read(&bytes) {
            Read::Nothing => Ok(None),
            Read::OfOthers => Err(Failure::user("it is the cache of another builder and is not used")),
            Read::Page(Page { layers, records }) => {
                let rows = records.into_iter().map(|row| (row.key.clone(), row)).collect();
                Ok(Some(Foreign { index, layers, rows }))
            }
        }
    }

    async fn fetch_cache(&self, index: u32, diff_ids: Vec<String>) -> Result<proto::CacheFetchReply, Failure> {
        let request = proto::CacheImport {
            build_id: self.executor.build_id.clone(),
            attempt: self.executor.attempt,
            index,
            diff_ids,
            lease: self.executor.layers.lease.clone(),
        };
        let call = async {
            // A registry that is away is not waited for.
            if is_local(self.options.cache_imports.get(index as usize)) {
                return self.executor.client.ask_through::<calls::CacheImport>(&request).await;
            }
            let bus = &self.executor.worker.bus;
            patiently(|| bus.call_while_wanted::<calls::CacheImport>(&Target::Gateway, &request, None)).await
        };
        tokio::select! {
            () = self.executor.ends.cancel.cancelled() => Err(Failure::Cancelled),
            reply = call => reply.map_err(|error| match error.kind() {
                model::ErrorKind::Conflict => error.into(),
                _ => Failure::user(error.message()),
            }),
        }
    }

    /// A result out of another cache, whose layers come now. One that cannot be had is none.
    pub(super) async fn found_elsewhere(&self, key: &str) -> Result<Option<proto::StepRecord>, Failure> {
        for foreign in &self.exchange.foreign {
            let Some(row) = foreign.rows.get(key) else { continue };
            let diff_ids: Vec<String> = row.layers.iter().map(|number| foreign.layers[*number].clone()).collect();
            let fetched = match diff_ids.is_empty() {
                true => Ok(Vec::new()),
                false => self.fetch_cache(foreign.index, diff_ids.clone()).await.map(|reply| reply.layers),
            };
            let layers = match fetched {
                Ok(layers) if layers.iter().map(|layer| &layer.diff_id).eq(&diff_ids) => layers,
                Err(error @ (Failure::Cancelled | Failure::Lost)) => return Err(error),
                Err(error) => {
                    tracing::info!(%error, build_id = %self.executor.build_id, "a cached layer did not come");
                    continue;
                }
                Ok(_) => continue,
            };
            if self.executor.layers.pin(&layers).await? {
                let Row { key, created_ns, description, value, .. } = row.clone();
                return Ok(Some(proto::StepRecord {
                    key,
                    layers,
                    created_ns,
                    description,
                    value_json: value,
                    ..proto::StepRecord::default()
                }));
            }
        }
        Ok(None)
    }

    /// Hands out the caches that the build was asked for; all layers are stored.
    ///
    /// # Errors
    /// What a registry says, or the client.
    pub(super) async fn export_caches(&self, built: &[Built]) -> Result<Response, Failure> {
        let mut response = Response::new();
        for (index, option) in self.options.cache_exports.iter().enumerate() {
            let name = match option.r#type.as_str() {
                "inline" => continue,
                "local" => "exporting cache to client directory",
                _ => "exporting cache to registry",
            };
            let export = options::export(option)?;
            let place = format!("{} cache export {index}", self.executor.build_id);
            let mut vertex = Vertex::new(&self.trace, &place, name.to_owned());
            vertex.may_fail = export.ignores_error;
            vertex.start().await;
            let exported = self.export_cache(&vertex, index, (&export, built)).await;
            vertex.complete(exported.as_ref().err()).await;
            match exported {
                Err(error) if !export.ignores_error || matches!(error, Failure::Cancelled | Failure::Lost) => {
                    return Err(error);
                }
                Err(_) => {}
                Ok(told) => {
                    // Of several each has its own; BuildKit's clients know the last one.
                    let numbered = told.iter().map(|(key, value)| (format!("{key}.{index}"), value.clone()));
                    response.extend(numbered.collect::<Vec<_>>());
                    response.extend(told);
                }
            }
        }
        Ok(response)
    }

    async fn export_cache(
        &self,
        vertex: &Vertex,
        index: usize,
        (export, built): (&options::Export, &[Built]),
    ) -> Result<Response, Failure> {
        let records = self.exported((export.mode, built));
        let (page, layers) = Page::of(records.iter());
        let config = serde_json::to_vec(&page).map_err(Failure::caused)?;
        let lease = self.executor.layers.lease.clone();
        let put = self.executor.layers.store.put_bytes(&config, Some(&lease));
        let id = halt::wait(put).await?.map_err(Failure::caused)?;
        let image = proto::Image { id: id.to_string(), layers, ..proto::Image::default() };
        let request = proto::BuildExport {
            build_id: self.executor.build_id.clone(),
            attempt: self.executor.attempt,
            index: u32::try_from(index).unwrap_or(u32::MAX),
            images: vec![proto::BuiltImage { image: Some(image), ..proto::BuiltImage::default() }],
            form: Some(export.form.clone()),
            cache: true,
            lease,
            ..proto::BuildExport::default()
        };
        let sent = async {
            let reply = match is_local(self.options.cache_exports.get(index)) {
                true => {
                    let call = self.executor.client.ask_through::<calls::BuildExport>(&request);
                    exported(halt::wait(call).await?)?
                }
                false => self.ask(&request).await?,
            };
            Ok(reply.response)
        };
        vertex.status(&format!("writing cache manifest {id}"), sent).await
    }

    fn exported(&self, (mode, built): (Mode, &[Built])) -> Vec<proto::StepRecord> {
        let in_images =
            |layer: &proto::Layer| built.iter().flat_map(|built| &built.layers).any(|has| has.diff_id == layer.diff_id);
        let mut records = self.exchange.records();
        records.retain(|record| mode == Mode::Max || record.layers.iter().all(in_images));
        records
    }

    /// The image with its cache in its own config, where `--cache-to type=inline` asks for that.
    pub(super) fn with_inline_cache(&self, built: Built) -> Result<Built, Failure> {
        if !self.options.cache_exports.iter().any(|option| option.r#type == "inline") {
            return Ok(built);
        }
        let records = self.exported((Mode::Min, std::slice::from_ref(&built)));
        let (mut page, _) = Page::of(records.iter());
        // The layers of the page are those of the image's manifest.
        let all: Vec<String> = built.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        for row in &mut page.records {
            let number = |old: &usize| all.iter().position(|id| *id == page.layers[*old]);
            row.layers = row.layers.iter().filter_map(number).collect();
        }
        page.layers = all;
        let mut config: serde_json::Value = serde_json::from_slice(&built.config).map_err(Failure::caused)?;
        config[INLINE] = serde_json::to_value(&page).map_err(Failure::caused)?;
        Ok(Built { config: serde_json::to_vec(&config).map_err(Failure::caused)?, ..built })
    }
}

/// The client has it.
fn is_local(option: Option<&proto::CacheOption>) -> bool {
    option.is_some_and(|option| option.r#type == "local")
}

/// A cache as the log names it.
fn shown(option: &proto::CacheOption) -> String {
    let attribute = |name: &str| option.attributes.get(name).cloned().unwrap_or_default();
    match option.r#type.as_str() {
        "local" => format!("local:{}", attribute("src")),
        _ => attribute("ref"),
    }
}
