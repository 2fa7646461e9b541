//! Which groups, versions and resources there are: one document per path, and all in one.

use std::sync::Arc;

use http::header::{ACCEPT, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderValue, StatusCode};
use kinds::Verbs;
use meta::Status;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::chain::Call;
use crate::dispatch::no_such_resource;
use crate::registry::{Resource, Resources};
use crate::respond::{self, Answer};
use crate::server::Core;
use crate::subresource;

/// Answers `/api`, `/apis` and what is below.
pub(crate) fn answer(core: &Core, call: &Call, path: &[&str]) -> Result<Answer, Status> {
    let resources = core.registry.now();
    match path {
        ["api"] | ["apis"] if wants_all(call) => all(call, &resources, path[0] == "api"),
        ["api"] => {
            let host = call.headers.get(http::header::HOST);
            let host = host.and_then(|host| host.to_str().ok()).unwrap_or("");
            let tree = json!({
                "kind": "APIVersions", "versions": ["v1"],
                "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": host}],
            });
            respond::value(call, StatusCode::OK, &tree)
        }
        ["apis"] => {
            let named = resources.groups.iter().filter(|(name, _)| !name.is_empty());
            let groups: Vec<Value> = named
                .map(|(name, versions)| group(name, versions))
                .collect();
            let tree = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups});
            respond::value(call, StatusCode::OK, &tree)
        }
        ["apis", name] => {
            let found = resources
                .groups
                .iter()
                .find(|(own, _)| own == name && !own.is_empty());
            let (name, versions) = found.ok_or_else(no_such_resource)?;
            let mut tree = group(name, versions);
            tree["kind"] = "APIGroup".into();
            tree["apiVersion"] = "v1".into();
            respond::value(call, StatusCode::OK, &tree)
        }
        ["api", version] => list(call, &resources, "", version),
        ["apis", group, version] => list(call, &resources, group, version),
        _ => Err(no_such_resource()),
    }
}

fn group(name: &str, versions: &[String]) -> Value {
    let version =
        |version: &String| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let all: Vec<Value> = versions.iter().map(version).collect();
    json!({"name": name, "versions": all, "preferredVersion": all.first()})
}

fn list(call: &Call, resources: &Resources, group: &str, version: &str) -> Result<Answer, Status> {
    let own = resources.of(group, version).ok_or_else(no_such_resource)?;
    let mut entries = Vec::new();
    for resource in own {
        let names = &resource.row.names;
        let mut entry = json!({
            "name": names.plural, "singularName": names.singular,
            "namespaced": names.is_namespaced(), "kind": names.kind, "verbs": verbs(resource),
        });
        if !names.short.is_empty() {
            entry["shortNames"] = json!(names.short);
        }
        if !names.categories.is_empty() {
            entry["categories"] = json!(names.categories);
        }
        entries.push(entry);
        for sub in subresource::of(resource) {
            let mut entry = json!({
                "name": format!("{}/{}", names.plural, sub.name), "singularName": "",
                "namespaced": names.is_namespaced(), "kind": sub.kind(names), "verbs": sub.verbs,
            });
            if let Some((group, version, _)) = sub.answers {
                entry["group"] = group.into();
                entry["version"] = version.into();
            }
            entries.push(entry);
        }
    }
    if group.is_empty() {
        entries.push(
            json!({"name": "bindings", "singularName": "binding", "namespaced": true,
            "kind": "Binding", "verbs": ["create"]}),
        );
        entries.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    }
    let tree = json!({
        "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": meta::GroupVersion { group: group.into(), version: version.into() }.to_string(),
        "resources": entries,
    });
    respond::value(call, StatusCode::OK, &tree)
}

/// The verbs of a resource, as discovery words them.
pub(crate) fn verbs(resource: &Resource) -> &'static [&'static str] {
    match resource.row.verbs {
        Verbs::All => &[
            "create",
            "delete",
            "deletecollection",
            "get",
            "list",
            "patch",
            "update",
            "watch",
        ],
        Verbs::NoDeleteCollection => &[
            "create", "delete", "get", "list", "patch", "update", "watch",
        ],
        Verbs::CreateOnly => &["create"],
    }
}

/// Whether the aggregated form is asked for, and known.
fn wants_all(call: &Call) -> bool {
    aggregated_version(call).is_some()
}

/// The first version of the aggregated form that is asked for before the plain one.
fn aggregated_version(call: &Call) -> Option<&'static str> {
    let accept = call.headers.get(ACCEPT)?.to_str().ok()?;
    for range in accept.split(',').map(|range| range.replace(' ', "")) {
        let mut parts = range.split(';');
        if parts.next() != Some("application/json") {
            continue;
        }
        let parameters: Vec<&str> = parts.collect();
        if !parameters.contains(&"as=APIGroupDiscoveryList") {
            return None;
        }
        match parameters
            .iter()
            .find_map(|parameter| parameter.strip_prefix("v="))
        {
            Some("v2") => return Some("v2"),
            Some("v2beta1") => return Some("v2beta1"),
            _ => {}
        }
    }
    None
}

fn all(call: &Call, resources: &Resources, core_group: bool) -> Result<Answer, Status> {
    let version = aggregated_version(call).unwrap_or("v2");
    let own = resources
        .groups
        .iter()
        .filter(|(name, _)| name.is_empty() == core_group);
    let items: Vec<Value> = own
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let list = resources.of(name, version).unwrap_or_default();
                    let list: Vec<Value> = list.iter().map(aggregated).collect();
                    json!({"version": version, "resources": list, "freshness": "Current"})
                })
                .collect();
            let metadata = match name.as_str() {
                "" => json!({"creationTimestamp": null}),
                name => json!({"name": name, "creationTimestamp": null}),
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let tree = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items,
    });
    let body = crate::cache::encode(&tree);
    let tag = format!("\"{}\"", hash(&body));
    let known = call
        .headers
        .get(IF_NONE_MATCH)
        .and_then(|tag| tag.to_str().ok());
    let mut answer = match known {
        Some(known) if known == tag => {
            respond::plain(StatusCode::NOT_MODIFIED, "application/json", "")
        }
        _ => respond::text(call, StatusCode::OK, body.into())?,
    };
    let media = match version {
        "v2beta1" => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        _ => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
    };
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.append(VARY, HeaderValue::from_static("Accept"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    Ok(answer)
}

fn aggregated(resource: &Arc<Resource>) -> Value {
    let names = &resource.row.names;
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let subresources: Vec<Value> = subresource::of(resource)
        .map(|sub| {
            let answer = match sub.answers {
                Some((group, version, word)) => kind(group, version, word),
                None => kind(&names.group, &names.version, &names.kind),
            };
            json!({"subresource": sub.name, "responseKind": answer, "verbs": sub.verbs})
        })
        .collect();
    let scope = if names.is_namespaced() {
        "Namespaced"
    } else {
        "Cluster"
    };
    let mut tree = json!({
        "resource": names.plural, "responseKind": kind(&names.group, &names.version, &names.kind),
        "scope": scope, "singularResource": names.singular, "verbs": verbs(resource),
    });
    if !names.short.is_empty() {
        tree["shortNames"] = json!(names.short);
    }
    if !names.categories.is_empty() {
        tree["categories"] = json!(names.categories);
    }
    if !subresources.is_empty() {
        tree["subresources"] = subresources.into();
    }
    tree
}

/// A name for bytes that changes with them.
pub(crate) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect()
}
