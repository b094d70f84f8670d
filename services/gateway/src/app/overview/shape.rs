//! Shapes of `/boxyard/v1` that know their own schema, so that what is sent and what the OpenAPI document says of it
//! cannot differ: both are made from one declaration.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// The named schemas of a document.
pub type Components = BTreeMap<&'static str, Value>;

/// What can be sent as JSON and says its JSON Schema (draft 2020-12, as OpenAPI 3.1 has it).
pub trait Shape {
    /// The schema; what it names is added to `components`.
    fn schema(components: &mut Components) -> Value;
}

macro_rules! plain {
    ($($kind:ty => $schema:tt),+ $(,)?) => {
        $(impl Shape for $kind {
            fn schema(_: &mut Components) -> Value {
                json!($schema)
            }
        })+
    };
}

plain! {
    String => {"type": "string"},
    bool => {"type": "boolean"},
    u32 => {"type": "integer", "minimum": 0},
    u64 => {"type": "integer", "minimum": 0},
    i32 => {"type": "integer"},
    f64 => {"type": "number"},
    Map<String, Value> => {"type": "object"},
}

impl<T: Shape> Shape for Option<T> {
    fn schema(components: &mut Components) -> Value {
        json!({"anyOf": [T::schema(components), {"type": "null"}]})
    }
}

impl<T: Shape> Shape for Vec<T> {
    fn schema(components: &mut Components) -> Value {
        json!({"type": "array", "items": T::schema(components)})
    }
}

impl<T: Shape> Shape for BTreeMap<String, T> {
    fn schema(components: &mut Components) -> Value {
        json!({"type": "object", "additionalProperties": T::schema(components)})
    }
}

/// A moment, sent as RFC 3339; `None` in an `Option` where it has not come.
#[derive(Clone, Copy, Debug)]
pub struct Time(pub i64);

impl Time {
    pub fn of_ms(ms: i64) -> Option<Self> {
        Self::of_ns(ms.saturating_mul(1_000_000))
    }

    /// Zero is "never" in all records.
    pub fn of_ns(ns: i64) -> Option<Self> {
        (ns != 0).then_some(Self(ns))
    }
}

impl serde::Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&engine_api::time(self.0))
    }
}

impl Shape for Time {
    fn schema(_: &mut Components) -> Value {
        json!({"type": "string", "format": "date-time"})
    }
}

/// Declares structs with their schema: every field is always sent, and no other.
#[macro_export]
macro_rules! shape {
    ($($(#[doc = $about:literal])+ pub struct $name:ident {
        $($(#[doc = $text:literal])+ pub $field:ident: $kind:ty,)+
    })+) => {$(
        $(#[doc = $about])+
        #[derive(Clone, Debug, serde::Serialize)]
        pub struct $name {
            $($(#[doc = $text])+ pub $field: $kind,)+
        }

        impl $crate::app::overview::shape::Shape for $name {
            fn schema(components: &mut $crate::app::overview::shape::Components) -> serde_json::Value {
                use $crate::app::overview::shape::{Shape, described};
                if !components.contains_key(stringify!($name)) {
                    // Holds the place, for a shape that holds itself.
                    components.insert(stringify!($name), serde_json::Value::Null);
                    let mut properties = serde_json::Map::new();
                    $(properties.insert(
                        stringify!($field).trim_start_matches("r#").to_owned(),
                        described(<$kind as Shape>::schema(components), concat!($($text),+)),
                    );)+
                    components.insert(stringify!($name), described(serde_json::json!({
                        "type": "object", "properties": properties, "required": [$(stringify!($field).trim_start_matches("r#")),+],
                        "additionalProperties": false
                    }), concat!($($about),+)));
                }
                serde_json::json!({"$ref": concat!("#/components/schemas/", stringify!($name))})
            }
        }
    )+};
}

/// Declares enums that are sent as one of a few words.
#[macro_export]
macro_rules! words {
    ($($(#[doc = $about:literal])+ pub enum $name:ident { $($variant:ident = $word:literal,)+ })+) => {$(
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
        pub enum $name {
            $(#[serde(rename = $word)] $variant,)+
        }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            pub fn of(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.word() == word)
            }
        }

        impl $crate::app::overview::shape::Shape for $name {
            fn schema(_: &mut $crate::app::overview::shape::Components) -> serde_json::Value {
                serde_json::json!({"type": "string", "enum": [$($word),+]})
            }
        }
    )+};
}

/// A schema with its description.
pub fn described(mut schema: Value, text: &str) -> Value {
    schema["description"] = text.trim().into();
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    shape! {
        /// A thing.
        pub struct Thing {
            /// Its name.
            pub name: String,
            /// More of its kind.
            pub more: Vec<Thing>,
            /// When it began.
            pub at: Option<Time>,
        }
    }

    #[test]
    fn a_shape_and_its_schema_name_the_same_fields() {
        let mut components = Components::new();
        assert_eq!(Thing::schema(&mut components), json!({"$ref": "#/components/schemas/Thing"}));
        let schema = &components["Thing"];
        assert_eq!(schema["description"], "A thing.");
        assert_eq!(schema["required"], json!(["name", "more", "at"]));
        assert_eq!(schema["properties"]["more"]["items"], json!({"$ref": "#/components/schemas/Thing"}));
        let thing = Thing { name: "a".to_owned(), more: Vec::new(), at: Time::of_ms(1000) };
        let sent = serde_json::to_value(&thing).expect("serializes");
        assert_eq!(sent, json!({"name": "a", "more": [], "at": "1970-01-01T00:00:01Z"}));
    }
}
