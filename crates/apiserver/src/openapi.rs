//! `/openapi/v3`: the index, and one document per group and version.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use http::{HeaderValue, StatusCode};
use meta::{GroupVersion, Status};
use schema::openapi::KindDoc;
use serde_json::{Map, Value, json};

use crate::chain::Call;
use crate::discovery;
use crate::dispatch::no_such_resource;
use crate::registry::{Resource, Resources};
use crate::respond::{self, Answer};
use crate::server::Core;
use crate::subresource;

/// Answers `/openapi/v3` and what is below.
pub(crate) fn answer(core: &Arc<Core>, call: &Call, path: &[&str]) -> Result<Answer, Status> {
    let resources = core.registry.now();
    match path {
        [] => index(&resources, call),
        ["api", version] => one(&resources, call, "", version),
        ["apis", group, version] => one(&resources, call, group, version),
        _ => Err(no_such_resource()),
    }
}

fn index(resources: &Resources, call: &Call) -> Result<Answer, Status> {
    let mut paths = Map::new();
    for group_version in resources.group_versions() {
        let path = match group_version.group.as_str() {
            "" => format!("api/{}", group_version.version),
            _ => format!("apis/{group_version}"),
        };
        let tag = tag(resources, &group_version);
        let url = format!("/openapi/v3/{path}?hash={tag}");
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    respond::value(call, StatusCode::OK, &json!({"paths": paths}))
}

/// Changes whenever the document may: with the names of its kinds, and with this program.
fn tag(resources: &Resources, group_version: &GroupVersion) -> String {
    let own = resources.of(&group_version.group, &group_version.version);
    let own = own.unwrap_or_default().iter();
    let text: String = own
        .map(|resource| format!("{:?}{}", resource.row.names, resource.stamp))
        .collect();
    discovery::hash(format!("{}{text}", env!("CARGO_PKG_VERSION")).as_bytes())
}

fn one(resources: &Resources, call: &Call, group: &str, version: &str) -> Result<Answer, Status> {
    let own = resources.of(group, version).ok_or_else(no_such_resource)?;
    let group_version = GroupVersion {
        group: group.into(),
        version: version.into(),
    };
    let tag = format!("\"{}\"", tag(resources, &group_version));
    let known = call
        .headers
        .get(IF_NONE_MATCH)
        .and_then(|tag| tag.to_str().ok());
    let mut answer = match known {
        Some(known) if known == tag => {
            respond::plain(StatusCode::NOT_MODIFIED, "application/json", "")
        }
        _ => respond::value(call, StatusCode::OK, &document(&group_version, own))?,
    };
    let headers = answer.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    if call.query.get("hash").is_some() {
        let for_ever = HeaderValue::from_static("public, immutable");
        headers.insert(CACHE_CONTROL, for_ever);
    }
    Ok(answer)
}

fn document(group_version: &GroupVersion, own: &[Arc<Resource>]) -> Value {
    let subresources: Vec<Vec<&str>> = own
        .iter()
        .map(|resource| subresource::of(resource).map(|sub| sub.name).collect())
        .collect();
    let kinds: Vec<KindDoc<'_>> = own
        .iter()
        .zip(&subresources)
        .map(|(resource, subresources)| KindDoc {
            names: &resource.row.names,
            subresources,
            verbs: discovery::verbs(resource),
        })
        .collect();
    schema::openapi::document_with(group_version, &kinds, &|names| {
        let mut found = own.iter().filter(|resource| resource.row.names == *names);
        found.next().and_then(|resource| resource.ty.clone())
    })
}
