//! The stream of a watch: newline-separated events.

use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use meta::{Reason, Status};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::Body;
use crate::wire::Decode;

/// Longest single event, in bytes; an object is at most 3 MiB.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// One event of a watch.
#[derive(Clone, Debug)]
pub enum WatchEvent<K> {
    Added(K),
    Modified(K),
    Deleted(K),
    /// Everything up to this resource version has been delivered.
    Bookmark(String),
}

/// An open watch.
pub struct Watch<K> {
    lines: Lines,
    kind: std::marker::PhantomData<fn() -> K>,
}

/// The events of a body, line by line; the same for all kinds.
struct Lines {
    body: Body,
    buffer: BytesMut,
    /// How far `buffer` has been searched for a newline.
    searched: usize,
}

#[derive(Deserialize)]
struct Frame<'frame> {
    #[serde(rename = "type")]
    kind: &'frame str,
    #[serde(borrow)]
    object: &'frame RawValue,
}

#[derive(Deserialize)]
struct BookmarkObject {
    metadata: crate::api::ListMeta,
}

impl<K: Decode> Watch<K> {
    /// Reads events from a response's body.
    pub fn new(body: Body) -> Watch<K> {
        Watch {
            lines: Lines {
                body,
                buffer: BytesMut::new(),
                searched: 0,
            },
            kind: std::marker::PhantomData,
        }
    }

    /// The next event; `None` when the server ended the watch. Safe to cancel.
    pub async fn next(&mut self) -> Option<Result<WatchEvent<K>, Status>> {
        let line = self.lines.next().await?;
        Some(line.and_then(|line| decode(&line)))
    }
}

impl Lines {
    /// The next line that is not empty; `None` at the end.
    async fn next(&mut self) -> Option<Result<BytesMut, Status>> {
        loop {
            if let Some(length) = self.line_length() {
                let line = self.buffer.split_to(length);
                self.buffer.advance(1);
                self.searched = 0;
                if line.is_empty() {
                    continue;
                }
                return Some(Ok(line));
            }
            if self.buffer.len() > EVENT_BYTES_MAX {
                return Some(Err(Status::internal("watch event is too large")));
            }
            match self.body.frame().await? {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Err(error) => {
                    let message = format!("watch broke off: {error}");
                    return Some(Err(Status::new(Reason::ServiceUnavailable, message)));
                }
            }
        }
    }

    fn line_length(&mut self) -> Option<usize> {
        let found = self.buffer[self.searched..]
            .iter()
            .position(|byte| *byte == b'\n');
        let length = found.map(|at| self.searched + at);
        if length.is_none() {
            self.searched = self.buffer.len();
        }
        length
    }
}

fn decode<K: Decode>(line: &[u8]) -> Result<WatchEvent<K>, Status> {
    let broken = |error: serde_json::Error| {
        Status::internal(format!("watch event does not decode: {error}"))
    };
    let frame: Frame<'_> = serde_json::from_slice(line).map_err(broken)?;
    let text = frame.object.get();
    let event = match frame.kind {
        "ADDED" => WatchEvent::Added,
        "MODIFIED" => WatchEvent::Modified,
        "DELETED" => WatchEvent::Deleted,
        "BOOKMARK" => {
            let object: BookmarkObject = serde_json::from_str(text).map_err(broken)?;
            return Ok(WatchEvent::Bookmark(object.metadata.resource_version));
        }
        "ERROR" => return Err(Status::from_body(500, text.as_bytes())),
        other => return Err(Status::internal(format!("unknown watch event {other:?}"))),
    };
    K::decode(text.as_bytes()).map(event).map_err(broken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[tokio::test]
    async fn events_are_cut_at_newlines() {
        let text = concat!(
            r#"{"type":"ADDED","object":{"a":1}}"#,
            "\n\n",
            r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7"}}}"#,
            "\n",
            r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"old"}}"#,
            "\n"
        );
        let mut watch: Watch<Value> = Watch::new(crate::full(text));
        assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Added(v))) if v["a"] == 1));
        assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Bookmark(v))) if v == "7"));
        let expired = watch.next().await.unwrap().unwrap_err();
        assert!(expired.is_expired(), "{expired:?}");
        assert!(watch.next().await.is_none());
    }
}
