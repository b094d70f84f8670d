//! Why a build failed, as BuildKit's clients read it: a gRPC status whose details name the step, and the lines of the
//! Dockerfile that the client prints below its error (BuildKit's solver/errdefs, written as util/grpcerrors does: the type's
//! name, and JSON).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard_buildkit_proto::google::{protobuf, rpc};
use prost::Message as _;
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::grpc::status_of;
use crate::app::Failure;

const SOURCE: &str = "github.com/moby/buildkit/errdefs.Source+json";
const VERTEX: &str = "github.com/moby/buildkit/errdefs.Vertex+json";

/// A failure, and where in the Dockerfile it came from.
#[derive(Debug)]
pub struct Failed {
    pub failure: Failure,
    pub fault: Option<proto::BuildFault>,
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self { failure, fault: None }
    }
}

impl Failed {
    pub fn status(self) -> Status {
        let status = status_of(self.failure);
        match self.fault {
            None => status,
            Some(fault) => with_details(status.code().into(), status.message(), details(&fault)),
        }
    }
}

/// What a client says went wrong on its side, with the details that it was told itself.
pub fn told_by_client(status: rpc::Status) -> Status {
    // No error is none of its kinds.
    let code = if status.code == i32::from(Code::Ok) { Code::Unknown.into() } else { status.code };
    with_details(code, &status.message, status.details)
}

fn with_details(code: i32, message: &str, details: Vec<protobuf::Any>) -> Status {
    let encoded = rpc::Status { code, message: message.to_owned(), details }.encode_to_vec();
    Status::with_details(Code::from_i32(code), message, encoded.into())
}

fn details(fault: &proto::BuildFault) -> Vec<protobuf::Any> {
    let any = |name: &str, value: Value| protobuf::Any { type_url: name.to_owned(), value: value.to_string().into() };
    let position = |line: u32| json!({"line": line});
    let vertex = (!fault.vertex.is_empty()).then(|| any(VERTEX, json!({"digest": fault.vertex})));
    let source = (!fault.text.is_empty() && fault.first_line > 0).then(|| {
        any(
            SOURCE,
            json!({
                "info": {"filename": fault.file, "data": STANDARD.encode(&fault.text), "language": "Dockerfile"},
                "ranges": [{"start": position(fault.first_line), "end": position(fault.last_line)}],
            }),
        )
    });
    vertex.into_iter().chain(source).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_names_the_step_and_its_lines() {
        let fault = proto::BuildFault {
            vertex: "sha256:aa".to_owned(),
            file: "Dockerfile".to_owned(),
            text: "FROM x\nRUN no\n".to_owned(),
            first_line: 2,
            last_line: 2,
        };
        let failed = Failed { failure: Failure::new(model::ErrorKind::Internal, "exit code: 1"), fault: Some(fault) };
        let status = failed.status();
        assert_eq!((status.code(), status.message()), (Code::Unknown, "exit code: 1"));
        let told = rpc::Status::decode(status.details()).expect("a status");
        let read = |at: usize| serde_json::from_slice::<Value>(&told.details[at].value).expect("JSON");
        assert_eq!(read(0), json!({"digest": "sha256:aa"}));
        assert_eq!(told.details[1].type_url, SOURCE);
        assert_eq!(read(1)["info"]["data"], STANDARD.encode("FROM x\nRUN no\n"));
        assert_eq!(read(1)["ranges"][0], json!({"start": {"line": 2}, "end": {"line": 2}}));
        // What a client returns is told again as it is.
        let again = told_by_client(told.clone());
        assert_eq!(rpc::Status::decode(again.details()).expect("a status"), told);
        assert_eq!(told_by_client(rpc::Status::default()).code(), Code::Unknown);
    }

    #[test]
    fn without_a_place_there_are_no_details() {
        let status = Failed::from(Failure::not_found("nothing")).status();
        assert_eq!((status.code(), status.details().len()), (Code::NotFound, 0));
        assert!(details(&proto::BuildFault { first_line: 4, ..Default::default() }).is_empty());
    }
}
