//! What the graph builder tells of its steps, as BuildKit's StatusResponse.

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1 as wire;
use bollard_buildkit_proto::pb::{Position, Range};

const SECOND_NS: i64 = 1_000_000_000;

pub fn response(trace: proto::BuildTrace) -> wire::StatusResponse {
    let proto::BuildTrace { vertices, statuses, lines, warnings } = trace;
    wire::StatusResponse {
        vertexes: vertices.into_iter().map(vertex).collect(),
        statuses: statuses.into_iter().map(status).collect(),
        logs: lines.into_iter().map(line).collect(),
        warnings: warnings.into_iter().map(warning).collect(),
    }
}

/// A note of the farm itself, such as why a build waits: a step that is over as soon as it is told.
pub fn note(text: &str, now_ns: i64) -> wire::StatusResponse {
    let text = text.trim();
    let vertex = wire::Vertex {
        digest: model::Digest::of(text.as_bytes()).to_string(),
        name: format!("[internal] {text}"),
        started: time(now_ns),
        completed: time(now_ns),
        ..Default::default()
    };
    wire::StatusResponse { vertexes: vec![vertex], ..Default::default() }
}

/// None for what has not happened.
pub fn time(ns: i64) -> Option<Timestamp> {
    let nanos = i32::try_from(ns.rem_euclid(SECOND_NS)).unwrap_or_default();
    (ns != 0).then_some(Timestamp { seconds: ns.div_euclid(SECOND_NS), nanos })
}

fn vertex(vertex: proto::BuildVertex) -> wire::Vertex {
    // Who ran a step, and why, is for Boxyard's own clients.
    let proto::BuildVertex { digest, inputs, name, cached, started_ns, completed_ns, error, .. } = vertex;
    let (started, completed) = (time(started_ns), time(completed_ns));
    wire::Vertex { digest, inputs, name, cached, started, completed, error, progress_group: None }
}

fn status(status: proto::BuildStatus) -> wire::VertexStatus {
    let proto::BuildStatus { id, vertex, name, current, total, timestamp_ns, started_ns, completed_ns } = status;
    let (started, completed) = (time(started_ns), time(completed_ns));
    wire::VertexStatus { id, vertex, name, current, total, timestamp: time(timestamp_ns), started, completed }
}

fn line(line: proto::BuildOutputLine) -> wire::VertexLog {
    let proto::BuildOutputLine { vertex, timestamp_ns, stream, text } = line;
    wire::VertexLog { vertex, timestamp: time(timestamp_ns), stream: i64::from(stream), msg: text }
}

fn warning(warning: proto::BuildWarning) -> wire::VertexWarning {
    let proto::BuildWarning { vertex, level, short, detail, url, first_line, last_line } = warning;
    let position = |line: u32| Some(Position { line: i32::try_from(line).unwrap_or(i32::MAX), character: 0 });
    let ranges = (first_line > 0).then(|| Range { start: position(first_line), end: position(last_line) });
    wire::VertexWarning {
        vertex,
        level,
        short: short.into_bytes(),
        detail: detail.into_iter().map(String::into_bytes).collect(),
        url,
        info: None,
        ranges: ranges.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_none_or_exact() {
        assert_eq!(time(0), None);
        assert_eq!(time(1_500_000_000), Some(Timestamp { seconds: 1, nanos: 500_000_000 }));
        assert_eq!(time(-1), Some(Timestamp { seconds: -1, nanos: 999_999_999 }));
    }

    #[test]
    fn a_trace_says_the_same_in_buildkits_words() {
        let trace = proto::BuildTrace {
            vertices: vec![proto::BuildVertex {
                digest: "sha256:a".to_owned(),
                name: "[1/2] RUN x".to_owned(),
                cached: true,
                started_ns: 5,
                ..Default::default()
            }],
            lines: vec![proto::BuildOutputLine { stream: 2, text: b"x\n".to_vec(), ..Default::default() }],
            warnings: vec![proto::BuildWarning {
                short: "w".to_owned(),
                first_line: 3,
                last_line: 4,
                ..Default::default()
            }],
            ..Default::default()
        };
        let response = response(trace);
        let vertex = &response.vertexes[0];
        assert_eq!((vertex.name.as_str(), vertex.cached, vertex.completed), ("[1/2] RUN x", true, None));
        assert_eq!((response.logs[0].stream, response.logs[0].msg.as_slice()), (2, &b"x\n"[..]));
        let range = response.warnings[0].ranges[0];
        assert_eq!((range.start.map(|p| p.line), range.end.map(|p| p.line)), (Some(3), Some(4)));
    }
}
