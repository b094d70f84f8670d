//! `--filter name=value` as the API's JSON: `{"name":{"value":true}}`.

use serde_json::{Map, Value};

use crate::failure::{Failure, Outcome};

#[derive(Default)]
pub struct Filters(Map<String, Value>);

impl Filters {
    pub fn parse(texts: &[String]) -> Outcome<Self> {
        let mut filters = Self::default();
        for text in texts {
            let (name, value) = text.split_once('=').ok_or_else(|| {
                Failure::new(format!(
                    "invalid argument {text:?} for \"-f, --filter\" flag: bad format of filter (expected name=value)"
                ))
                .code(125)
            })?;
            filters.add(name.trim().to_ascii_lowercase().as_str(), value.trim());
        }
        Ok(filters)
    }

    pub fn add(&mut self, name: &str, value: &str) {
        let values = self.0.entry(name.to_owned()).or_insert_with(|| Value::Object(Map::new()));
        if let Some(values) = values.as_object_mut() {
            values.insert(value.to_owned(), Value::Bool(true));
        }
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The query's value; `None` when there is no filter.
    pub fn query(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| Value::Object(self.0.clone()).to_string())
    }
}
