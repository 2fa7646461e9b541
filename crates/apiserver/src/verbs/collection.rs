//! deletecollection.

use std::sync::Arc;

use client::Body;
use http::StatusCode;
use kinds::Verbs;
use meta::Status;
use serde_json::{Value, json};

use super::delete::{DeleteOptions, Deleted, delete_object};
use super::list;
use super::page::Refusal;
use super::write::Write;
use crate::body;
use crate::chain::Call;
use crate::registry::{Resource, method_not_allowed};
use crate::respond::{self, Answer};
use crate::selectors::Filter;
use crate::server::Core;

/// Deletes all objects that the request means.
pub(crate) async fn delete_collection(
    core: &Arc<Core>,
    call: &Call,
    resource: &Resource,
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
    for entry in &page.entries {
        let mut write = Write::of(core, call, resource.stored())?;
        write.namespace = entry.namespace();
        write.dry_run = options.dry_run;
        match delete_object(&write, entry.name(), &options).await {
            Ok(Deleted::Gone(entry)) => items.push(resource.shown(respond::decode(&entry.json)?)),
            Ok(Deleted::Waits(json)) => items.push(resource.shown(respond::decode(&json)?)),
            // Somebody else was faster.
            Err(status) if status.is_not_found() => {}
            Err(status) => return Err(status),
        }
    }
    let names = &resource.row.names;
    let tree: Value = json!({
        "kind": names.list_kind, "apiVersion": names.api_version(),
        "metadata": {"resourceVersion": page.revision.to_string()}, "items": items,
    });
    respond::value(call, StatusCode::OK, &tree)
}
