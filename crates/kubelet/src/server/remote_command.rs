//! Commands in containers: what a request asks for, and which container it means.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use node_api::ExecRequest;

use super::path::Query;
use super::{Body, running_container, text};
use crate::pod::PodExt;
use crate::shared::Shared;

/// `exec` and `attach`.
pub(super) fn answer(
    shared: &Arc<Shared>,
    target: (&str, &str, &str),
    query: &Query,
    attach: bool,
    request: Request<Incoming>,
) -> Response<Body> {
    let (view, container) = match running_container(shared, target) {
        Ok(found) => found,
        Err(fault) => return *fault,
    };
    let spec = view
        .pod
        .container(target.2)
        .map(|(_, container)| container.into_owned());
    let spec_tty = spec.is_some_and(|container| container.tty == Some(true));
    let tty = if attach {
        spec_tty
    } else {
        query.has(&["tty"])
    };
    let wish = ExecRequest {
        container_id: container.id,
        command: query.all("command").map(str::to_owned).collect(),
        tty,
        stdin: query.has(&["input", "stdin"]),
        stdout: query.has(&["output", "stdout"]),
        stderr: query.has(&["error", "stderr"]) && !tty,
    };
    streaming::command(shared.runtime.clone(), wish, attach, request)
}

/// `/run`: a command whose output is the answer.
pub(super) async fn run(
    shared: &Arc<Shared>,
    target: (&str, &str, &str),
    query: &Query,
) -> Response<Body> {
    let (_, container) = match running_container(shared, target) {
        Ok(found) => found,
        Err(fault) => return *fault,
    };
    let command = query.get("cmd").unwrap_or_default();
    let command: Vec<String> = command.split(' ').map(str::to_owned).collect();
    match shared.runtime.exec_sync(&container.id, command, None).await {
        Ok(done) => {
            let output = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
            text(StatusCode::OK, output)
        }
        Err(fault) => text(StatusCode::INTERNAL_SERVER_ERROR, fault.to_string()),
    }
}
