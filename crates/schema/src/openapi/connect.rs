//! Requests that are passed on to a node, a pod or a service: what their query holds.

use serde_json::{Map, Value, json};

use super::paths::{BODIES, Parameter, in_path};

const CONTAINER: Parameter = (
    "container",
    "string",
    "Name of the container; may be left out where there is only one.",
);
const STREAMS: [Parameter; 3] = [
    ("stderr", "boolean", "Pass on the standard error stream."),
    ("stdin", "boolean", "Pass on the standard input stream."),
    ("stdout", "boolean", "Pass on the standard output stream."),
];
const TTY: Parameter = ("tty", "boolean", "Use a terminal.");
const ATTACH: [Parameter; 5] = [CONTAINER, STREAMS[0], STREAMS[1], STREAMS[2], TTY];
const EXEC: [Parameter; 6] = [
    (
        "command",
        "string",
        "The command and its arguments; no shell runs it.",
    ),
    CONTAINER,
    STREAMS[0],
    STREAMS[1],
    STREAMS[2],
    TTY,
];
const LOG: [Parameter; 9] = [
    CONTAINER,
    (
        "follow",
        "boolean",
        "Send what is written from now on, too.",
    ),
    (
        "insecureSkipTLSVerifyBackend",
        "boolean",
        "Do not verify the certificate of the kubelet that has the log.",
    ),
    ("limitBytes", "integer", "Send so many bytes at most."),
    (
        "previous",
        "boolean",
        "Send the log of the container before it was restarted.",
    ),
    (
        "sinceSeconds",
        "integer",
        "Send what is no older than so many seconds.",
    ),
    ("stream", "string", "All, Stdout or Stderr."),
    ("tailLines", "integer", "Send so many of the last lines."),
    ("timestamps", "boolean", "Begin each line with its time."),
];
const PORTS: [Parameter; 1] = [("ports", "integer", "The ports, for WebSockets.")];
const PATH: [Parameter; 1] = [("path", "string", "Where the request goes below the target.")];
const REST: Parameter = ("path", "string", "path to the resource");

/// What the query of such a request holds, by the kind of its options.
pub(super) fn parameters(options: &str) -> &'static [Parameter] {
    match options {
        "PodAttachOptions" => &ATTACH,
        "PodExecOptions" => &EXEC,
        "PodLogOptions" => &LOG,
        "PodPortForwardOptions" => &PORTS,
        "NodeProxyOptions" | "PodProxyOptions" | "ServiceProxyOptions" => &PATH,
        _ => &[],
    }
}

/// What a log is answered as.
pub(super) fn texts() -> Value {
    let media = BODIES.iter().chain(&["text/plain"]);
    let content: Map<String, Value> = media
        .map(|media| ((*media).to_owned(), json!({"schema": {"type": "string"}})))
        .collect();
    json!({
        "200": {"description": "OK", "content": content},
        "401": {"description": "Unauthorized"},
    })
}

/// The same requests with what follows their path.
pub(super) fn below(item: &Map<String, Value>) -> Map<String, Value> {
    let mut below = item.clone();
    for operation in below.values_mut() {
        let id = operation["operationId"].as_str().unwrap_or("");
        operation["operationId"] = format!("{id}WithPath").into();
        if let Some(parameters) = operation["parameters"].as_array_mut() {
            parameters.push(in_path(&REST));
        }
    }
    below
}
