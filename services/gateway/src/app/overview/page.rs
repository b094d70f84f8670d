//! Long lists go by pages: newest first, each page says where the next begins.

use serde_json::{Value, json};

use super::shape::{Components, Shape};
use crate::app::{Failure, Outcome};

const DEFAULT: usize = 100;
const MOST: usize = 1000;

/// What is asked for: the rows behind a time and an id.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    pub after: Option<(i64, String)>,
    pub limit: usize,
}

/// A page of a list.
#[derive(Clone, Debug, serde::Serialize)]
pub struct List<T> {
    pub items: Vec<T>,
    /// How many there are in all pages.
    pub total: usize,
    /// Where the next page begins.
    pub next: Option<String>,
}

impl Page {
    /// Reads `limit` and `after`, as a list has given it.
    ///
    /// # Errors
    /// `InvalidArgument` for what no list has given, and for a limit that is none.
    pub fn read(limit: Option<&str>, after: Option<&str>) -> Outcome<Self> {
        let wrong = |what: &str, text: &str| Failure::invalid(format!("invalid {what}: {text}"));
        let limit = match limit {
            None => DEFAULT,
            Some(text) => text.parse().ok().filter(|n| (1..=MOST).contains(n)).ok_or_else(|| wrong("limit", text))?,
        };
        let after = match after {
            None => None,
            Some(text) => {
                let (time, id) = text.split_once('.').ok_or_else(|| wrong("after", text))?;
                Some((time.parse().map_err(|_| wrong("after", text))?, id.to_owned()))
            }
        };
        Ok(Self { after, limit })
    }

    /// Chooses this page's rows of all; `key` is a row's time and id.
    pub fn of<R>(&self, mut all: Vec<R>, key: impl Fn(&R) -> (i64, String)) -> List<R> {
        let order = |(time, id): (i64, String)| (std::cmp::Reverse(time), id);
        all.sort_by_cached_key(|row| order(key(row)));
        let total = all.len();
        if let Some(after) = &self.after {
            let begin = all.partition_point(|row| order(key(row)) <= order(after.clone()));
            all.drain(..begin);
        }
        let is_more = all.len() > self.limit;
        all.truncate(self.limit);
        let next = all.last().filter(|_| is_more).map(|last| cursor(key(last)));
        List { items: all, total, next }
    }
}

/// Where the page behind this row begins.
pub fn cursor((time, id): (i64, String)) -> String {
    format!("{time}.{id}")
}

impl<T> List<T> {
    /// A list that is never long.
    pub fn whole(items: Vec<T>) -> Self {
        Self { total: items.len(), items, next: None }
    }

    pub fn map<U>(self, f: impl FnMut(T) -> U) -> List<U> {
        List { items: self.items.into_iter().map(f).collect(), total: self.total, next: self.next }
    }
}

impl<T: Shape> Shape for List<T> {
    fn schema(components: &mut Components) -> Value {
        json!({
            "type": "object", "required": ["items", "total", "next"], "additionalProperties": false,
            "properties": {
                "items": Vec::<T>::schema(components),
                "total": {"type": "integer", "minimum": 0, "description": "How many there are in all pages."},
                "next": {"type": ["string", "null"], "description": "Given as `after`, it asks for the next page."}
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_together_are_the_whole_in_order() {
        let rows: Vec<(i64, String)> = [(1, "b"), (3, "z"), (3, "a"), (2, "x"), (1, "a")]
            .into_iter()
            .map(|(time, id)| (time, id.to_owned()))
            .collect();
        let mut seen = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = Page::read(Some("2"), after.as_deref()).expect("reads");
            let list = page.of(rows.clone(), Clone::clone);
            assert_eq!(list.total, 5);
            seen.extend(list.items);
            after = list.next;
            if after.is_none() {
                break;
            }
        }
        let names: Vec<String> = seen.iter().map(|(time, id)| format!("{time}{id}")).collect();
        assert_eq!(names, ["3a", "3z", "2x", "1a", "1b"]);
    }

    #[test]
    fn what_no_list_has_given_is_refused() {
        for (limit, after) in [(Some("0"), None), (Some("1001"), None), (Some("x"), None), (None, Some("x"))] {
            assert!(Page::read(limit, after).is_err(), "{limit:?} {after:?}");
        }
    }
}
