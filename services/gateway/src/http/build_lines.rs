//! A chunk of a build's log as a line of JSON for Boxyard's own clients. Steps are told as BuildKit's clients print them
//! with `--progress=rawjson` (its `SolveStatus`), with what only a farm knows beside it: worker, reason, key, line, exit code.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proto::build_log::What;
use serde_json::{Map, Value, json};

/// `{"stream": text}`, `{"status": progress line of Docker's}`, `{"aux": {"ID": image}}`, `{"trace": steps}`; the last line is
/// `{"error": why, "code": exit code, "line": where in the Dockerfile, if it is known}` or `{"end": true}`.
pub fn line(chunk: &proto::BuildLog) -> Option<Value> {
    Some(match chunk.what.as_ref()? {
        What::Stream(text) => json!({"stream": text}),
        What::StatusJson(text) => {
            json!({"status": serde_json::from_str::<Value>(text).unwrap_or_else(|_| json!(text))})
        }
        What::AuxId(image) => json!({"aux": {"ID": image}}),
        What::Trace(trace) => json!({"trace": self::trace(trace)}),
        What::Error(message) => {
            let mut told = json!({"error": message, "code": chunk.error_code});
            if let Some(fault) = chunk.fault.as_ref().filter(|fault| fault.first_line > 0) {
                told["line"] = json!(fault.first_line);
            }
            told
        }
        What::End(_) if chunk.response.is_empty() => json!({"end": true}),
        What::End(_) => json!({"end": true, "response": chunk.response}),
    })
}

fn trace(trace: &proto::BuildTrace) -> Value {
    let mut fields = Map::new();
    let mut list = |name: &str, items: Vec<Value>| {
        if !items.is_empty() {
            fields.insert(name.to_owned(), items.into());
        }
    };
    list("vertexes", trace.vertices.iter().map(vertex).collect());
    list("statuses", trace.statuses.iter().map(status).collect());
    list("logs", trace.lines.iter().map(output).collect());
    list("warnings", trace.warnings.iter().map(warning).collect());
    Value::Object(fields)
}

/// A step, as it is told and as it is remembered.
pub fn vertex(vertex: &proto::BuildVertex) -> Value {
    let proto::BuildVertex {
        digest,
        inputs,
        name,
        cached,
        started_ns,
        completed_ns,
        error,
        worker,
        reason,
        line,
        key,
        key_inputs: _,
        code,
        view: _,
    } = vertex;
    let mut fields = Fields::default();
    fields.text("digest", digest).add("inputs", (!inputs.is_empty()).then(|| json!(inputs))).text("name", name);
    fields.time("started", *started_ns).time("completed", *completed_ns).add("cached", cached.then_some(json!(true)));
    fields.text("error", error).text("worker", worker).text("reason", reason).text("key", key);
    fields.number("line", i64::from(*line)).number("code", i64::from(*code));
    fields.0.into()
}

fn status(status: &proto::BuildStatus) -> Value {
    let proto::BuildStatus { id, vertex, name, current, total, timestamp_ns, started_ns, completed_ns } = status;
    let mut fields = Fields::default();
    fields.text("id", id).text("vertex", vertex).text("name", name).number("total", *total);
    fields.add("current", Some(json!(current))).time("timestamp", *timestamp_ns);
    fields.time("started", *started_ns).time("completed", *completed_ns);
    fields.0.into()
}

fn output(output: &proto::BuildOutputLine) -> Value {
    let proto::BuildOutputLine { vertex, timestamp_ns, stream, text } = output;
    let mut fields = Fields::default();
    fields.text("vertex", vertex).number("stream", i64::from(*stream));
    fields.add("data", Some(json!(STANDARD.encode(text)))).time("timestamp", *timestamp_ns);
    fields.0.into()
}

fn warning(warning: &proto::BuildWarning) -> Value {
    let proto::BuildWarning { vertex, level, short, detail, url, first_line, last_line } = warning;
    let detail: Vec<String> = detail.iter().map(|text| STANDARD.encode(text)).collect();
    let range = json!([{"start": {"line": first_line}, "end": {"line": last_line}}]);
    let mut fields = Fields::default();
    fields.text("vertex", vertex).number("level", *level).add("short", Some(json!(STANDARD.encode(short))));
    fields.add("detail", (!detail.is_empty()).then(|| json!(detail))).text("url", url);
    fields.add("range", (*first_line > 0).then_some(range));
    fields.0.into()
}

/// Go's `omitempty`: what is not there is left out.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn add(&mut self, name: &str, value: Option<Value>) -> &mut Self {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), value);
        }
        self
    }

    fn text(&mut self, name: &str, text: &str) -> &mut Self {
        self.add(name, (!text.is_empty()).then(|| json!(text)))
    }

    fn number(&mut self, name: &str, number: i64) -> &mut Self {
        self.add(name, (number != 0).then_some(json!(number)))
    }

    fn time(&mut self, name: &str, ns: i64) -> &mut Self {
        self.add(name, (ns != 0).then(|| json!(engine_api::time(ns))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_told_as_buildkit_prints_it() {
        let vertex = proto::BuildVertex {
            digest: "sha256:a".to_owned(),
            name: "[1/2] RUN x".to_owned(),
            started_ns: 1_000_000_000,
            worker: "w1".to_owned(),
            ..Default::default()
        };
        let lines = vec![proto::BuildOutputLine {
            vertex: "sha256:a".to_owned(),
            timestamp_ns: 2_000_000_000,
            stream: 1,
            text: b"hi\xff".to_vec(),
        }];
        let trace = proto::BuildTrace { vertices: vec![vertex], lines, ..Default::default() };
        let chunk = proto::BuildLog { what: Some(What::Trace(trace)), ..Default::default() };
        let wanted = json!({"trace": {
            "vertexes": [{"digest": "sha256:a", "name": "[1/2] RUN x", "started": "1970-01-01T00:00:01Z", "worker": "w1"}],
            "logs": [{"vertex": "sha256:a", "stream": 1, "data": "aGn/", "timestamp": "1970-01-01T00:00:02Z"}]
        }});
        assert_eq!(line(&chunk), Some(wanted));
    }
}
