use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use http::StatusCode;

use super::answer::{Answer, empty, json_with, ok};
use super::query::{Query, json_body};
use crate::app::{App, Failure, Outcome, filters};

pub async fn list(State(app): State<Arc<App>>, query: Query) -> Answer {
    ok(&app.list_volumes(&query.filters(filters::OF_VOLUMES)?).await?)
}

pub async fn create(State(app): State<Arc<App>>, body: Bytes) -> Answer {
    let body = json_body(&body)?;
    let driver = body["Driver"].as_str().unwrap_or_default();
    let name = body["Name"].as_str().unwrap_or_default();
    if !matches!(driver, "" | "local" | "default") {
        return Err(Failure::not_found(format!(
            "create {name}: error looking up volume plugin {driver}: plugin \"{driver}\" not found"
        ))
        .into());
    }
    if name.chars().count() == 1 {
        return Err(Failure::invalid(format!(
            "create {name}: volume name is too short, names should be at least two alphanumeric characters"
        ))
        .into());
    }
    let map = |key: &str| {
        let pairs = body[key].as_object().cloned().unwrap_or_default();
        pairs.into_iter().filter_map(|(k, v)| Some((k, v.as_str()?.to_owned()))).collect()
    };
    let spec = proto::VolumeSpec { name: name.to_owned(), labels: map("Labels"), options: map("DriverOpts") };
    check_options(&spec.options)
        .map_err(|failure| Failure::new(failure.kind, format!("create {name}: {}", failure.message)))?;
    Ok(json_with(StatusCode::CREATED, &app.create_volume(spec).await?))
}

pub async fn inspect(State(app): State<Arc<App>>, Path(name): Path<String>) -> Answer {
    ok(&app.inspect_volume(&name).await?)
}

pub async fn remove(State(app): State<Arc<App>>, Path(name): Path<String>, query: Query) -> Answer {
    app.remove_volume(&name, query.flag("force")).await?;
    empty(StatusCode::NO_CONTENT)
}

pub async fn prune(State(app): State<Arc<App>>, query: Query) -> Answer {
    ok(&app.prune_volumes(&query.filters(filters::OF_VOLUME_PRUNE)?).await?)
}

/// Options of the local driver: a folder of the machine in the volume's place (`type=none`, `o=bind`, `device=/path`).
///
/// # Errors
/// `InvalidArgument` for what Docker does not know or misses, `Unimplemented` for other file systems.
fn check_options(options: &HashMap<String, String>) -> Outcome<()> {
    let known = ["type", "o", "device", "size"];
    if let Some(unknown) = options.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(Failure::invalid(format!("invalid option: {unknown:?}")));
    }
    if options.is_empty() {
        return Ok(());
    }
    let given = |key: &str| options.get(key).map_or("", String::as_str);
    if options.contains_key("size") {
        return Err(Failure::invalid("quota size requested but no quota support"));
    }
    if let Some(missing) = ["device", "type"].into_iter().find(|key| given(key).is_empty()) {
        return Err(Failure::invalid(format!("missing required option: {missing:?}")));
    }
    if !given("o").split(',').any(|word| matches!(word, "bind" | "rbind")) {
        let words = format!("volumes of type {} are not built yet, only type=none with o=bind", given("type"));
        return Err(Failure::not_built(words));
    }
    match given("device").starts_with('/') {
        true => Ok(()),
        false => Err(Failure::invalid(format!("invalid device {:?}: not an absolute path", given("device")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_binds_are_options() {
        for (options, wanted) in [
            (&[][..], None),
            (&[("type", "none"), ("o", "bind"), ("device", "/x")], None),
            (&[("type", "none"), ("o", "ro,rbind"), ("device", "/x")], None),
            (&[("type", "none"), ("o", "bind"), ("device", "x")], Some("not an absolute path")),
            (&[("bogus", "y")], Some("invalid option: \"bogus\"")),
            (&[("type", "tmpfs"), ("o", "size=1m")], Some("missing required option: \"device\"")),
            (&[("device", "/x")], Some("missing required option: \"type\"")),
            (&[("type", "nfs"), ("o", "addr=1.2.3.4"), ("device", ":/x")], Some("volumes of type nfs are not built")),
        ] {
            let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            let said = check_options(&options).err().map(|failure| failure.message);
            match (&said, wanted) {
                (None, None) => {}
                (Some(said), Some(words)) => assert!(said.contains(words), "{said}"),
                _ => panic!("{options:?}: {said:?}"),
            }
        }
    }
}
