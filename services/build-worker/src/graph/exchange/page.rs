//! What a cache says of itself: which steps' keys lead to which of its layers.

use serde::{Deserialize, Serialize};

/// Where an image's config holds the page.
pub const INLINE: &str = "moby.buildkit.cache.v0";

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// Diff ids, in the order of the manifest's layers.
    pub layers: Vec<String>,
    pub records: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub key: String,
    /// Which of the page's layers.
    pub layers: Vec<usize>,
    pub created_ns: i64,
    pub description: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
}

impl Page {
    pub fn of<'a>(records: impl Iterator<Item = &'a proto::StepRecord>) -> (Self, Vec<proto::Layer>) {
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

    /// Also out of an image's config.
    pub fn read(bytes: &[u8]) -> Read {
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) else { return Read::Nothing };
        let inline = value.get(INLINE).cloned();
        if inline.is_none() && value.get("records").is_none() {
            return Read::Nothing;
        }
        let page = serde_json::from_value::<Self>(inline.unwrap_or(value)).ok();
        let is_whole = |page: &Self| page.records.iter().flat_map(|row| &row.layers).all(|at| *at < page.layers.len());
        page.filter(is_whole).map_or(Read::OfOthers, Read::Page)
    }
}

/// What the config of a cache's manifest is.
#[derive(Debug, PartialEq)]
pub enum Read {
    Page(Page),
    /// A cache that another builder made.
    OfOthers,
    /// An image without a cache.
    Nothing,
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
        assert_eq!(Page::read(&bytes), Read::Page(page));
    }

    #[test]
    fn what_others_made_is_told_apart() {
        for (config, wanted) in [
            (r#"{"rootfs":{},"moby.buildkit.cache.v0":{"layers":[],"records":[]}}"#, Read::Page(Page::default())),
            // BuildKit's own: bytes in base64 inside an image, chains by numbers beside one.
            (r#"{"rootfs":{},"moby.buildkit.cache.v0":"W10="}"#, Read::OfOthers),
            (r#"{"layers":[{"blob":"sha256:1"}],"records":[{"digest":"sha256:2"}]}"#, Read::OfOthers),
            (r#"{"layers":[],"records":[{"key":"k","layers":[0],"created_ns":0,"description":""}]}"#, Read::OfOthers),
            (r#"{"rootfs":{}}"#, Read::Nothing),
            ("[]", Read::Nothing),
            ("{", Read::Nothing),
        ] {
            assert_eq!(Page::read(config.as_bytes()), wanted, "{config}");
        }
    }
}
