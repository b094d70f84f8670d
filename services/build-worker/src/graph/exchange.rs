//! Caches that other Boxyards made: `--cache-from`, and `--cache-to` for them.
//!
//! A cache is a manifest in a registry whose config ([`Page`]) says which steps' keys lead to which of its layers; inline
//! the page stands in an image's own config. What comes from there is used by the build that named it, and not recorded
//! for others: whoever trusts a registry does so for themselves.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use bus::{Target, calls};
use model::Digest;
use serde::{Deserialize, Serialize};

use super::Graph;
use super::export::Built;
use super::trace::Vertex;
use crate::failure::Failure;

/// Where an image's config holds the page.
const INLINE: &str = "moby.buildkit.cache.v0";
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

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Page {
    /// Diff ids, in the order of the manifest's layers.
    layers: Vec<String>,
    records: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Row {
    key: String,
    /// Which of the page's layers.
    layers: Vec<usize>,
    created_ns: i64,
    description: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    value: String,
}

/// Which results go into a cache.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Those whose layers the images have.
    Min,
    Max,
}

impl Page {
    fn of<'a>(records: impl Iterator<Item = &'a proto::StepRecord>) -> (Self, Vec<proto::Layer>) {
        let (mut page, mut layers) = (Self::default(), Vec::<proto::Layer>::new());
        for record in records {
            let mut numbers = Vec::new();
            for layer in &record.layers {
                let known = page.layers.iter().position(|id| *id == layer.diff_id);
                numbers.push(known.unwrap_or(page.layers.len()));
                if known.is_none() {
                    page.layers.push(layer.diff_id.clone());
                    layers.push(layer.clone());
                }
            }
            page.records.push(Row {
                key: record.key.clone(),
                layers: numbers,
                created_ns: record.created_ns,
                description: record.description.clone(),
                value: record.value_json.clone(),
            });
        }
        (page, layers)
    }

    /// Also out of an image's config. None where there is no page, or one that somebody else made.
    fn read(bytes: &[u8]) -> Option<Self> {
        let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
        let page: Self = serde_json::from_value(value.get(INLINE).cloned().unwrap_or(value)).ok()?;
        let is_whole = page.records.iter().flat_map(|row| &row.layers).all(|number| *number < page.layers.len());
        is_whole.then_some(page)
    }
}

/// Checks what is asked for before anything is built.
///
/// # Errors
/// `User` for types that nobody knows, and for a registry's cache without a name.
pub fn check(options: &proto::BuildOptions) -> Result<(), Failure> {
    for (what, option) in options
        .cache_imports
        .iter()
        .map(|option| ("importer", option))
        .chain(options.cache_exports.iter().map(|option| ("exporter", option)))
    {
        match option.r#type.as_str() {
            "registry" if option.attributes.get("ref").is_none_or(String::is_empty) => {
                return Err(Failure::user(format!("registry cache {what} requires ref")));
            }
            "registry" => {}
            "inline" if what == "exporter" => {}
            other => return Err(Failure::user(format!("unknown cache {what}: {other:?}"))),
        }
        if what == "exporter" {
            mode(option)?;
        }
    }
    Ok(())
}

fn mode(option: &proto::CacheOption) -> Result<Mode, Failure> {
    match option.attributes.get("mode").map(String::as_str) {
        None | Some("" | "min") => Ok(Mode::Min),
        Some("max") => Ok(Mode::Max),
        Some(other) => Err(Failure::user(format!("invalid cache export mode: {other}"))),
    }
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
            let reference = option.attributes.get("ref").cloned().unwrap_or_default();
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            let place = format!("{} cache {index}", self.executor.build_id);
            let mut vertex = Vertex::new(&self.trace, &place, format!("importing cache manifest from {reference}"));
            if let Ok(foreign) = vertex.around(self.import_cache(index)).await {
                exchange.foreign.extend(foreign);
            }
        }
        exchange
    }

    async fn import_cache(&self, index: u32) -> Result<Option<Foreign>, Failure> {
        let reply = self.fetch_cache(index, Vec::new()).await?;
        let config = reply.config.ok_or_else(|| Failure::internal("a cache without a config"))?;
        let digest: Digest = config.digest.parse().map_err(Failure::caused)?;
        let bytes = self.executor.layers.store.get_bytes(&digest, MAX_PAGE_BYTES).await.map_err(Failure::caused)?;
        Ok(Page::read(&bytes).map(|page| Foreign {
            index,
            layers: page.layers,
            rows: page.records.into_iter().map(|row| (row.key.clone(), row)).collect(),
        }))
    }

    async fn fetch_cache(&self, index: u32, diff_ids: Vec<String>) -> Result<proto::CacheFetchReply, Failure> {
        let request = proto::CacheImport {
            build_id: self.executor.build_id.clone(),
            attempt: self.executor.attempt,
            index,
            diff_ids,
            lease: self.executor.layers.lease.clone(),
        };
        let call = self.executor.bus.call_while_wanted::<calls::CacheImport>(&Target::Gateway, &request, None);
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

    /// Writes the caches that the build was asked for; all layers are stored.
    ///
    /// # Errors
    /// What a registry says.
    pub(super) async fn export_caches(&self, built: &[Built]) -> Result<(), Failure> {
        for (index, option) in self.options.cache_exports.iter().enumerate() {
            if option.r#type != "registry" {
                continue;
            }
            let place = format!("{} cache export {index}", self.executor.build_id);
            let mut vertex = Vertex::new(&self.trace, &place, "exporting cache to registry".to_owned());
            vertex.start().await;
            let exported = self.export_cache(&vertex, index, (mode(option)?, built)).await;
            vertex.complete(exported.as_ref().err()).await;
            let ignores = option.attributes.get("ignore-error").is_some_and(|word| word == "true");
            match exported {
                Err(error) if !ignores || matches!(error, Failure::Cancelled | Failure::Lost) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    async fn export_cache(&self, vertex: &Vertex, index: usize, wanted: (Mode, &[Built])) -> Result<(), Failure> {
        let records = self.exported(wanted);
        let (page, layers) = Page::of(records.iter());
        let config = serde_json::to_vec(&page).map_err(Failure::caused)?;
        let lease = self.executor.layers.lease.clone();
        let id = self.executor.layers.store.put_bytes(&config, Some(&lease)).await.map_err(Failure::caused)?;
        let image = proto::Image { id: id.to_string(), layers, ..proto::Image::default() };
        let request = proto::BuildExport {
            build_id: self.executor.build_id.clone(),
            attempt: self.executor.attempt,
            index: u32::try_from(index).unwrap_or(u32::MAX),
            images: vec![proto::BuiltImage { image: Some(image), ..proto::BuiltImage::default() }],
            form: Some(proto::ImageForm { oci: true, ..proto::ImageForm::default() }),
            cache: true,
            lease,
            ..proto::BuildExport::default()
        };
        let sent = async { self.ask(&request).await.map(drop) };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, layers: &[&str]) -> proto::StepRecord {
        let layer = |id: &&str| proto::Layer { diff_id: (*id).to_owned(), ..proto::Layer::default() };
        proto::StepRecord { key: key.to_owned(), layers: layers.iter().map(layer).collect(), ..Default::default() }
    }

    #[test]
    fn pages_name_each_layer_once() {
        let records = [record("a", &["x"]), record("b", &["y", "x"]), record("c", &[])];
        let (page, layers) = Page::of(records.iter());
        assert_eq!(page.layers, ["x", "y"]);
        assert_eq!(layers.len(), 2);
        assert_eq!(
            page.records.iter().map(|row| row.layers.clone()).collect::<Vec<_>>(),
            [vec![0], vec![1, 0], vec![]]
        );
        let bytes = serde_json::to_vec(&page).expect("JSON");
        assert_eq!(Page::read(&bytes), Some(page));
        for other in [
            &b"{}"[..],
            b"[]",
            br#"{"layers":[],"records":[{"key":"k","layers":[0],"created_ns":0,"description":""}]}"#,
        ] {
            assert_eq!(Page::read(other), None);
        }
    }

    #[test]
    fn what_nobody_knows_is_refused() {
        let option = |kind: &str, attributes: &[(&str, &str)]| proto::CacheOption {
            r#type: kind.to_owned(),
            attributes: attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        };
        let wrong = |imports, exports| {
            let options = proto::BuildOptions { cache_imports: imports, cache_exports: exports, ..Default::default() };
            check(&options).expect_err("refused").to_string()
        };
        assert_eq!(wrong(vec![option("s3", &[])], vec![]), "unknown cache importer: \"s3\"");
        assert_eq!(wrong(vec![option("registry", &[])], vec![]), "registry cache importer requires ref");
        let full = option("registry", &[("ref", "x"), ("mode", "full")]);
        assert_eq!(wrong(vec![], vec![full]), "invalid cache export mode: full");
    }
}
