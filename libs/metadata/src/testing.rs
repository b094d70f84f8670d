//! The same checks on SQLite and on PostgreSQL.

use std::path::Path;

use crate::{Container, Database, Image, now_ms};

/// `async fn name(db: Database) { … }`: each runs on a fresh SQLite file as a test of its own, and all of them on one
/// PostgreSQL, each in a schema of its own, as `on_postgres`.
macro_rules! on_both {
    ($($(#[$meta:meta])* async fn $name:ident($db:ident: Database) $body:block)*) => {
        $(
            $(#[$meta])*
            #[tokio::test]
            async fn $name() {
                let folder = tempfile::tempdir().expect("a folder");
                checks::$name($crate::testing::sqlite(folder.path()).await).await;
            }
        )*

        mod checks {
            #[allow(unused_imports)]
            use super::*;

            $(pub async fn $name($db: Database) $body)*
        }

        #[tokio::test]
        async fn on_postgres() {
            let server = kit::Postgres::start();
            $(
                eprintln!("{}", stringify!($name));
                checks::$name($crate::testing::postgres(&server, stringify!($name)).await).await;
            )*
        }
    };
}

pub(crate) use on_both;

pub async fn sqlite(folder: &Path) -> Database {
    Database::open("sqlite:", folder, |_| {}).await.expect("opens")
}

/// A fresh schema of this name.
pub async fn postgres(server: &kit::Postgres, schema: &str) -> Database {
    // PostgreSQL cuts longer names off.
    let schema = &schema[..schema.len().min(60)];
    server.sql(&format!("CREATE SCHEMA {schema}"));
    postgres_again(server, schema).await
}

/// A second gateway's connection to that schema.
pub async fn postgres_again(server: &kit::Postgres, schema: &str) -> Database {
    let schema = &schema[..schema.len().min(60)];
    let url = format!("{}?options=-c%20search_path%3D{schema}", server.url());
    Database::open(&url, Path::new("/"), |_| {}).await.expect("opens")
}

/// Without names or layers.
pub fn image(id: &str) -> Image {
    Image {
        id: id.to_owned(),
        config: b"{}".to_vec(),
        layers: Vec::new(),
        parent_id: String::new(),
        recorded_ms: 0,
        tags: Vec::new(),
        digests: Vec::new(),
        platform_of: Vec::new(),
    }
}

/// Stands on image `i`.
pub fn container(id: &str, name: &str) -> Container {
    Container {
        id: id.to_owned(),
        name: name.to_owned(),
        node_id: "n".to_owned(),
        image_id: "i".to_owned(),
        spec: Vec::new(),
        request: "{}".to_owned(),
        status: Vec::new(),
        created_ms: now_ms(),
        epoch: 0,
        seq: 0,
    }
}
