//! Ports of a pod: which pod and ports a request means.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use super::path::Query;
use super::{Body, text};
use crate::shared::Shared;

/// Answers `/portForward/<namespace>/<pod>`.
pub(super) fn answer(
    shared: &Arc<Shared>,
    (namespace, pod): (&str, &str),
    query: &Query,
    request: Request<Incoming>,
) -> Response<Body> {
    let Some(view) = shared.pods.by_name(namespace, pod) else {
        return text(StatusCode::NOT_FOUND, "pod does not exist".into());
    };
    let Some(sandbox) = crate::plan::newest_sandbox(&view.sandboxes) else {
        return text(StatusCode::NOT_FOUND, "pod not found".into());
    };
    let target = streaming::Target {
        runtime: shared.runtime.clone(),
        sandbox: sandbox.id.clone(),
        pod: format!("{pod}_{namespace}"),
        uid: sandbox.config.uid.clone(),
    };
    let wanted = streaming::ports_of(query.all("port").chain(query.all("ports")));
    streaming::forward(target, wanted, request)
}
