//! deletecollection.

use std::sync::Arc;

use client::Body;
use futures::future::try_join_all;
use http::StatusCode;
use kinds::Verbs;
use meta::Status;
use serde_json::{Value, json};

use super::delete::{DeleteOptions, Deleted, delete_object};
use super::list;
use super::page::Refusal;
use super::pieces::untyped;
use super::write::Write;
use crate::body;
use crate::cache::Entry;
use crate::chain::Call;
use crate::registry::{Resource, method_not_allowed};
use crate::respond::{self, Answer};
use crate::selectors::Filter;
use crate::server::Core;

/// Deletions under way at one time: the store commits what waits together.
const DELETIONS_AT_ONCE: usize = 32;

/// Deletes all objects that the request means.
pub(crate) async fn delete_collection(
    core: &Arc<Core>,
    call: &Call,
    resource: &Arc<Resource>,
    body: Body,
) -> Result<Answer, Status> {
    if resource.row.verbs != Verbs::All {
        return Err(method_not_allowed());
    }
    let bytes = body::read(body).await?;
    let options = DeleteOptions::read(call, &bytes)?;
    let filter = Filter::read(call, resource)?;
    let page = match list::page(core, call, resource, &filter).await {
        Ok(page) => page,
        Err(Refusal::Plain(status) | Refusal::WithBody(status, _)) => return Err(status),
    };
    let mut items = Vec::with_capacity(page.entries.len());
    for some in page.entries.chunks(DELETIONS_AT_ONCE) {
        let deletions = some
            .iter()
            .map(|entry| delete_one(core, call, resource, &options, entry));
        for deleted in try_join_all(deletions).await? {
            items.extend(deleted);
        }
    }
    let names = &resource.row.names;
    let mut tree: Value = json!({
        "kind": names.list_kind, "apiVersion": names.api_version(),
        "metadata": {"resourceVersion": page.revision.to_string()}, "items": items,
    });
    if resource.custom {
        tree["metadata"]["continue"] = "".into();
    }
    respond::value(call, StatusCode::OK, &tree)
}

/// Deletes one of them; `None` when somebody else was faster.
async fn delete_one(
    core: &Arc<Core>,
    call: &Call,
    resource: &Resource,
    options: &DeleteOptions,
    entry: &Entry,
) -> Result<Option<Value>, Status> {
    let mut write = Write::of(core, call, resource)?;
    write.namespace = entry.namespace();
    write.dry_run = options.dry_run;
    write.delete_options = Some(&options.tree);
    let json = match delete_object(&write, entry.name(), options).await {
        Ok(Deleted::Gone(entry)) => entry.json.clone(),
        Ok(Deleted::Waits(json)) => json,
        Err(status) if status.is_not_found() => return Ok(None),
        Err(status) => return Err(status),
    };
    let tree = resource.shown(resource.converted(respond::decode(&json)?).await?);
    Ok(Some(match resource.custom {
        true => tree,
        false => untyped(tree),
    }))
}
