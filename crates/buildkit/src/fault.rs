//! Faults in the form clients print: with the step, and the lines of the Dockerfile.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use build::BuildError;
use prost::Message;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::wire::{Any, RpcStatus};

/// How types of details are called.
const TYPES: &str = "github.com/moby/buildkit/";

/// Where in which file something went wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) vertex: Option<String>,
    pub(crate) filename: String,
    pub(crate) text: String,
    pub(crate) lines: (usize, usize),
}

/// A fault of a build. What is no fault of the protocol has no code of its own.
pub(crate) fn of_build(error: &BuildError, place: &Place) -> Status {
    let message = error.plainly();
    let mut place = place.clone();
    if let BuildError::Parse(build::dockerfile::ParseError::Line { line, .. }) = error {
        place.lines = (*line, *line);
    }
    let mut details = Vec::new();
    if let Some(vertex) = &place.vertex {
        details.push(detail("errdefs.Vertex+json", &json!({ "digest": vertex })));
    }
    if place.lines.0 > 0 {
        let (first, last) = place.lines;
        let source = json!({
            "info": {
                "filename": place.filename,
                "data": BASE64_STANDARD.encode(&place.text),
                "language": "Dockerfile",
            },
            "ranges": [{"start": {"line": first}, "end": {"line": last.max(first)}}],
        });
        details.push(detail("errdefs.Source+json", &source));
    }
    with_details(message, details)
}

/// A subrequest such as `--check`, in the form by which clients know that it is not there.
pub(crate) fn no_subrequest(name: &str) -> Status {
    with_details(
        "this engine builds, and tells nothing else of a Dockerfile".to_owned(),
        vec![detail("errdefs.Subrequest+json", &json!({ "name": name }))],
    )
}

fn detail(kind: &str, value: &Value) -> Any {
    Any {
        type_url: format!("{TYPES}{kind}"),
        value: value.to_string().into_bytes(),
    }
}

fn with_details(message: String, details: Vec<Any>) -> Status {
    of_rpc(RpcStatus {
        code: Code::Unknown as i32,
        message,
        details,
    })
}

/// What a client says of a fault, for another client.
pub(crate) fn of_rpc(status: RpcStatus) -> Status {
    let code = Code::from_i32(status.code);
    let bytes = status.encode_to_vec();
    Status::with_details(code, status.message, bytes.into())
}

/// Plain words.
pub(crate) fn words(message: impl ToString) -> Status {
    Status::unknown(message.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_names_its_step_and_lines() {
        let error = BuildError::Command {
            command: "/bin/sh -c exit 3".to_owned(),
            code: 3,
        };
        let place = Place {
            vertex: Some("sha256:1".to_owned()),
            filename: "Dockerfile".to_owned(),
            text: "FROM x\nRUN exit 3\n".to_owned(),
            lines: (2, 2),
        };
        let status = of_build(&error, &place);
        assert_eq!(
            status.message(),
            "process \"/bin/sh -c exit 3\" did not complete successfully: exit code: 3"
        );
        let rpc = RpcStatus::decode(status.details()).unwrap();
        let kinds: Vec<&str> = rpc.details.iter().map(|d| d.type_url.as_str()).collect();
        assert_eq!(
            kinds,
            [
                "github.com/moby/buildkit/errdefs.Vertex+json",
                "github.com/moby/buildkit/errdefs.Source+json"
            ]
        );
        let source: Value = serde_json::from_slice(&rpc.details[1].value).unwrap();
        assert_eq!(source["ranges"][0]["start"]["line"], 2);
        // What came from a client goes to the other one as it is.
        assert_eq!(of_rpc(rpc).details(), status.details());
    }
}
