//! list: pages of encoded objects, put together without decoding them.

use std::sync::Arc;

use bytes::Bytes;
use client::{Body, BoxError};
use http::StatusCode;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use jiff::Timestamp;
use meta::Status;
use serde_json::{Value, json};

use super::page::{self, Continue, Refusal};
use crate::cache::{Entry, Snapshot};
use crate::chain::Call;
use crate::chain::accept::{Shape, Text};
use crate::registry::Resource;
use crate::respond::{self, Answer};
use crate::selectors::Filter;
use crate::server::Core;
use crate::table;

/// Lists up to this size are sent as one piece, longer ones in pieces of about this size.
const PIECE_BYTES: usize = 1 << 20;

/// One page.
pub(crate) struct Page {
    pub(crate) entries: Vec<Arc<Entry>>,
    pub(crate) revision: i64,
    continue_token: Option<String>,
    remaining: Option<usize>,
}

impl Page {
    fn metadata(&self) -> Value {
        let mut metadata = json!({"resourceVersion": self.revision.to_string()});
        if let Some(token) = &self.continue_token {
            metadata["continue"] = token.as_str().into();
        }
        if let Some(remaining) = self.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        metadata
    }
}

/// The objects that the request means.
pub(crate) async fn list(
    core: &Core,
    call: &Call,
    resource: &Arc<Resource>,
) -> Result<Answer, Status> {
    let filter = Filter::read(call, resource)?;
    match page(core, call, resource, &filter).await {
        Ok(page) => answer(call, resource, &page),
        Err(Refusal::Plain(status)) => Err(status),
        Err(Refusal::WithBody(status, body)) => Ok(respond::failure_body(&status, &body)),
    }
}

/// The page that the request asks for.
pub(crate) async fn page(
    core: &Core,
    call: &Call,
    resource: &Resource,
    filter: &Filter,
) -> Result<Page, Refusal> {
    let cache = resource.cache()?;
    let limit = call.query.number("limit")?.unwrap_or(0);
    let limit = usize::try_from(limit).unwrap_or(0);
    let (snapshot, start) = page::snapshot(core, cache, &call.query, &filter.prefix).await?;
    Ok(cut(&snapshot, &start, limit, filter))
}

fn cut(snapshot: &Snapshot, start: &str, limit: usize, filter: &Filter) -> Page {
    let within = snapshot
        .map
        .range(start)
        .take_while(|entry| entry.key.starts_with(&filter.prefix));
    let mut matching = within.filter(|entry| filter.takes_all() || filter.matches(entry));
    let mut page = Page {
        entries: Vec::new(),
        revision: snapshot.revision,
        continue_token: None,
        remaining: None,
    };
    if limit == 0 {
        page.entries = matching.cloned().collect();
        return page;
    }
    page.entries = matching.by_ref().take(limit).cloned().collect();
    if matching.next().is_none() {
        return page;
    }
    if let Some(last) = page.entries.last() {
        page.continue_token = Some(Continue::after(snapshot.revision, &last.key));
    }
    if filter.takes_all() {
        page.remaining = Some(1 + matching.count());
    }
    page
}

fn answer(call: &Call, resource: &Arc<Resource>, page: &Page) -> Result<Answer, Status> {
    let names = &resource.row.names;
    match call.accept.shape {
        Shape::Object => {
            let head = format!(
                "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{},\"items\":[",
                json!(names.list_kind),
                json!(names.api_version()),
                page.metadata()
            );
            objects(call, resource, head, page)
        }
        Shape::Table => {
            let include = table::Include::read(&call.query)?;
            let now = Timestamp::now();
            let row = |entry: &Arc<Entry>| {
                Ok(table::row(
                    resource,
                    respond::decode(&entry.json)?,
                    include,
                    now,
                ))
            };
            let rows = page
                .entries
                .iter()
                .map(row)
                .collect::<Result<_, Status>>()?;
            let tree = table::table(&resource.row, rows, page.metadata(), true);
            respond::value(call, StatusCode::OK, &tree)
        }
        Shape::Metadata => {
            let item = |entry: &Arc<Entry>| Ok(table::metadata_only(respond::decode(&entry.json)?));
            let items = page
                .entries
                .iter()
                .map(item)
                .collect::<Result<Vec<_>, Status>>()?;
            let tree = json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": page.metadata(), "items": items,
            });
            respond::value(call, StatusCode::OK, &tree)
        }
    }
}

fn objects(
    call: &Call,
    resource: &Arc<Resource>,
    head: String,
    page: &Page,
) -> Result<Answer, Status> {
    let total: usize = page.entries.iter().map(|entry| entry.json.len() + 1).sum();
    let mut pieces = Pieces {
        head: Some(head),
        entries: page.entries.clone(),
        next: 0,
        resource: Arc::clone(resource),
    };
    let whole = total <= PIECE_BYTES || call.accept.gzip || call.accept.text == Text::Yaml;
    if whole {
        let json = pieces.take(usize::MAX).unwrap_or_default();
        return respond::text(call, StatusCode::OK, json);
    }
    let frames = std::iter::from_fn(move || pieces.take(PIECE_BYTES))
        .map(|piece| Ok::<_, BoxError>(Frame::data(piece)));
    let body: Body = StreamBody::new(futures::stream::iter(frames)).boxed_unsync();
    let mut answer = respond::plain(StatusCode::OK, "application/json", Bytes::new());
    *answer.body_mut() = body;
    Ok(answer)
}

/// A list's bytes, made as they are sent.
struct Pieces {
    head: Option<String>,
    entries: Vec<Arc<Entry>>,
    next: usize,
    resource: Arc<Resource>,
}

impl Pieces {
    fn take(&mut self, size: usize) -> Option<Bytes> {
        if self.next > self.entries.len() {
            return None;
        }
        let rest = self.entries[self.next..].iter();
        let expected: usize = rest.map(|entry| entry.json.len() + 1).sum();
        let mut piece = Vec::with_capacity(expected.min(size) + 4096);
        if let Some(head) = self.head.take() {
            piece.extend_from_slice(head.as_bytes());
        }
        while piece.len() < size {
            let Some(entry) = self.entries.get(self.next) else {
                piece.extend_from_slice(b"]}");
                self.next += 1;
                break;
            };
            if self.next > 0 {
                piece.push(b',');
            }
            piece.extend_from_slice(&self.resource.shown_json(&entry.json));
            self.next += 1;
        }
        Some(piece.into())
    }
}
