//! list: pages of encoded objects, put together without decoding them.

use std::sync::Arc;

use http::StatusCode;
use jiff::Timestamp;
use meta::Status;
use serde_json::{Value, json};

use super::page::{self, Continue, Refusal};
use super::pieces;
use crate::cache::{Entry, Snapshot};
use crate::chain::Call;
use crate::chain::accept::Shape;
use crate::registry::Resource;
use crate::respond::{self, Answer};
use crate::selectors::Filter;
use crate::server::Core;
use crate::table;

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
        Ok(mut page) => {
            page.entries = resource.converted_entries(page.entries).await?;
            answer(call, resource, &page)
        }
        Err(Refusal::Plain(status)) => Err(status),
        Err(Refusal::WithBody(status, body)) => {
            Ok(respond::failure_body(&call.headers, &status, &body))
        }
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
    if !filter.needs_conversion() {
        return Ok(cut(&snapshot, &start, limit, filter));
    }
    let within = snapshot.map.range(&start);
    let within = within.take_while(|entry| entry.key.starts_with(&filter.prefix));
    let within = within.filter(|entry| filter.may_match(entry)).cloned();
    let mut page = Page {
        entries: filter.converted(within.collect()).await?,
        revision: snapshot.revision,
        continue_token: None,
        remaining: None,
    };
    if limit > 0 && page.entries.len() > limit {
        page.entries.truncate(limit);
        let last = page.entries.last().map(|entry| &entry.key);
        page.continue_token = last.map(|key| Continue::after(page.revision, &filter.prefix, key));
    }
    Ok(page)
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
        page.continue_token = Some(Continue::after(
            snapshot.revision,
            &filter.prefix,
            &last.key,
        ));
    }
    if filter.takes_all() {
        page.remaining = Some(1 + matching.count());
    }
    page
}

fn answer(call: &Call, resource: &Arc<Resource>, page: &Page) -> Result<Answer, Status> {
    match call.accept.shape {
        Shape::Object | Shape::Groups => {
            let mut metadata = page.metadata();
            if resource.custom && page.continue_token.is_none() {
                metadata["continue"] = "".into();
            }
            pieces::objects(call, resource, &metadata, &page.entries)
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
            respond::value(call, StatusCode::OK, &call.accept.versioned(tree))
        }
        Shape::Metadata if !call.accept.many => Err(respond::not_of_number(resource, true)),
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
            respond::value(call, StatusCode::OK, &call.accept.versioned(tree))
        }
    }
}
