//! get.

use std::sync::Arc;

use http::StatusCode;
use meta::Status;

use crate::cache::Entry;
use crate::chain::Call;
use crate::registry::Resource;
use crate::respond::{self, Answer};
use crate::server::Core;

/// One object.
pub(crate) async fn get(core: &Core, call: &Call, resource: &Resource) -> Result<Answer, Status> {
    let entry = found(core, call, resource).await?;
    match resource.conversion {
        None => respond::entry(call, resource, &entry),
        Some(_) => {
            let json = resource.converted_json(entry.json.clone()).await?;
            respond::object(call, resource, StatusCode::OK, json)
        }
    }
}

/// The object that a path names, at least as new as the query asks; 404 when there is none.
pub(crate) async fn found(
    core: &Core,
    call: &Call,
    resource: &Resource,
) -> Result<Arc<Entry>, Status> {
    let cache = resource.cache()?;
    match call.query.get("resourceVersion") {
        Some("0") => {}
        Some(version) => super::page::reached(core, version).await?,
        None => core.feed.fresh().await,
    }
    let entry = cache.get(&resource.key(&call.info.namespace, &call.info.name));
    entry.ok_or_else(|| Status::not_found(&resource.row.names, &call.info.name))
}

/// The newest version of an object; 404 when there is none.
pub(crate) async fn newest(
    core: &Core,
    resource: &Resource,
    namespace: &str,
    name: &str,
) -> Result<Arc<Entry>, Status> {
    core.feed.fresh().await;
    let entry = resource.cache()?.get(&resource.key(namespace, name));
    entry.ok_or_else(|| Status::not_found(&resource.row.names, name))
}
