//! `/containerLogs`: which log is meant, and sending it.

use std::path::PathBuf;
use std::sync::Arc;

use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;

use super::log_reader::{LogOptions, LogReader};
use super::path::Query;
use super::{Body, text};
use crate::pod::PodExt;
use crate::pods::PodView;
use crate::shared::Shared;

/// Pieces of a log on their way to a slow reader.
const PIECES_MAX: usize = 8;

/// Sends a container's log.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    (namespace, pod, container): (&str, &str, &str),
    query: &Query,
) -> Response<Body> {
    let Some(view) = shared.pods.by_name(namespace, pod) else {
        return text(StatusCode::NOT_FOUND, format!("pod {pod:?} does not exist"));
    };
    if view.pod.container(container).is_none() {
        let message = format!("container {container:?} not found in pod {pod:?}");
        return text(StatusCode::NOT_FOUND, message);
    }
    let options = match options(query) {
        Ok(options) => options,
        Err(message) => return text(StatusCode::UNPROCESSABLE_ENTITY, message),
    };
    let previous = query.has(&["previous"]);
    let id = match container_id(&view, container, previous) {
        Ok(id) => id,
        Err(message) => return text(StatusCode::BAD_REQUEST, message),
    };
    let Some(path) = log_path(&view, &id) else {
        let message = format!("container {container:?} in pod {pod:?} is terminated");
        return text(StatusCode::BAD_REQUEST, message);
    };
    let alive = shared.pods.follow(view.pod.uid());
    let (pieces, body) = mpsc::channel(PIECES_MAX);
    let reader = LogReader {
        path,
        container_id: id,
        options,
        alive,
        pieces,
    };
    // Ends when the reader goes away, since then its channel closes.
    tokio::spawn(reader.run());
    let frames = futures::stream::unfold(body, |mut body| async {
        let piece = body.recv().await?;
        Some((Ok(http_body::Frame::data(piece)), body))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, plain);
    response
}

fn log_path(view: &PodView, id: &str) -> Option<PathBuf> {
    view.containers
        .get(id)
        .map(|container| container.log_path.clone())
}

fn options(query: &Query) -> Result<LogOptions, String> {
    let number = |key: &str| -> Result<Option<u64>, String> {
        match query.get(key).filter(|text| !text.is_empty()) {
            None => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|_| format!("invalid {key}: {text:?}")),
        }
    };
    let ago = number("sinceSeconds")?.and_then(|seconds| i64::try_from(seconds).ok());
    let since = match ago {
        Some(seconds) => Timestamp::now()
            .checked_sub(SignedDuration::from_secs(seconds))
            .ok(),
        None => query.get("sinceTime").and_then(meta::time::parse),
    };
    let stream = match query.get("stream") {
        None | Some("" | "All") => None,
        Some("Stdout") => Some("stdout"),
        Some("Stderr") => Some("stderr"),
        Some(other) => return Err(format!("invalid stream type {other:?}")),
    };
    Ok(LogOptions {
        follow: query.has(&["follow"]),
        timestamps: query.has(&["timestamps"]),
        tail_lines: number("tailLines")?,
        limit_bytes: number("limitBytes")?,
        since,
        stream,
    })
}

/// The id of the container whose log is meant, or in upstream's words why there is none.
fn container_id(view: &PodView, container: &str, previous: bool) -> Result<String, String> {
    let pod = view.pod.name();
    let main = view.status.container_statuses.iter().flatten();
    let all = main.chain(view.status.init_container_statuses.iter().flatten());
    let mut all = all.chain(view.status.ephemeral_container_statuses.iter().flatten());
    let Some(status) = all.find(|status| status.name == container) else {
        return Err(format!(
            "container {container:?} in pod {pod:?} is not available"
        ));
    };
    let plain = |id: Option<&String>| {
        let id = id
            .and_then(|id| id.split_once("://"))
            .map(|(_, id)| id.to_owned());
        id.filter(|id| !id.is_empty())
    };
    let last = status
        .last_state
        .as_ref()
        .and_then(|state| state.terminated.as_ref());
    let last_id = plain(last.and_then(|last| last.container_id.as_ref()));
    if previous {
        return last_id.ok_or_else(|| {
            format!("previous terminated container {container:?} in pod {pod:?} not found")
        });
    }
    let state = status.state.clone().unwrap_or_default();
    if state.running.is_some() {
        let id = plain(status.container_id.as_ref());
        return id
            .ok_or_else(|| format!("container {container:?} in pod {pod:?} is not available"));
    }
    if let Some(ended) = state.terminated {
        let id = plain(ended.container_id.as_ref()).or(last_id);
        return id.ok_or_else(|| format!("container {container:?} in pod {pod:?} is terminated"));
    }
    if let Some(id) = last_id {
        return Ok(id);
    }
    let reason = state
        .waiting
        .and_then(|waiting| waiting.reason)
        .unwrap_or_default();
    let why = match reason.as_str() {
        "ErrImagePull" => "image can't be pulled",
        "ImagePullBackOff" => "trying and failing to pull image",
        reason => reason,
    };
    Err(format!(
        "container {container:?} in pod {pod:?} is waiting to start: {why}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ephemeral_containers_have_logs_too() {
        let status = json!({"ephemeralContainerStatuses": [{"name": "look", "image": "i",
            "imageID": "", "ready": false, "restartCount": 0, "containerID": "sampan://c1",
            "state": {"running": {}}}]});
        let view = PodView {
            status: serde_json::from_value(status).unwrap(),
            ..PodView::default()
        };
        assert_eq!(container_id(&view, "look", false).unwrap(), "c1");
        assert!(container_id(&view, "other", false).is_err());
    }
}
