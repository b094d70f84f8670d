use serde_json::{Map, Value, json};

/// One line of GET /events.
pub fn event(kind: &str, action: &str, id: &str, attributes: &Map<String, Value>, time_ns: i64) -> Value {
    let mut event = Map::new();
    if matches!(kind, "container" | "image") {
        event.insert("status".into(), action.into());
        event.insert("id".into(), id.into());
        if let Some(image) = attributes.get("image") {
            event.insert("from".into(), image.clone());
        }
    }
    event.insert("Type".into(), kind.into());
    event.insert("Action".into(), action.into());
    event.insert("Actor".into(), json!({"ID": id, "Attributes": attributes}));
    event.insert("scope".into(), "local".into());
    event.insert("time".into(), (time_ns / 1_000_000_000).into());
    event.insert("timeNano".into(), time_ns.into());
    Value::Object(event)
}
