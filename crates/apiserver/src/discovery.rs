//! Which groups, versions and resources there are: one document per path, and all in one.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderValue, StatusCode};
use kinds::Verbs;
use meta::Status;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::chain::accept::{Media, Offer, Shape};
use crate::chain::{Accept, Call};
use crate::dispatch::no_such_resource;
use crate::registry::{Resource, Resources};
use crate::respond::{self, Answer};
use crate::server::Core;
use crate::subresource;

/// Built-in groups in the order that clients see them in.
const GROUPS: [&str; 23] = [
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "storagemigration.k8s.io",
];

/// Whether the group is one of Kubernetes' own: what is not found there is said in an object.
pub(crate) fn is_built_in(group: &str) -> bool {
    GROUPS.contains(&group)
}

/// Answers `/api`, `/apis` and what is below.
pub(crate) fn answer(core: &Core, call: &Call, path: &[&str]) -> Result<Answer, Status> {
    let resources = core.registry.now();
    if let ["api"] | ["apis"] = path {
        let accept = Accept::read(&call.headers, &call.query, Offer::GROUPS);
        let accept = match (accept, path[0]) {
            // Refused below, in the words of the router.
            (Err(_), "api") => Accept::usual(&call.headers, &call.query),
            (accept, _) => accept?,
        };
        if let Shape::Groups = accept.shape {
            return all(core, call, accept, path[0] == "api");
        }
    }
    // The lists of groups are served by the aggregator, which has no such router.
    let routed = match path {
        ["api"] | ["api", _] => true,
        ["apis", group, _] => is_built_in(group),
        _ => false,
    };
    if let (true, Some(refused)) = (
        routed,
        Accept::refused_by_router(&call.headers, &Offer::PRODUCED),
    ) {
        return Err(refused);
    }
    Accept::read(&call.headers, &call.query, Offer::PLAIN)?;
    match path {
        ["api"] => {
            let config = &core.config;
            let host = config.advertise_address;
            let host = host.map(|host| std::net::SocketAddr::new(host, config.port).to_string());
            let mut tree = json!({
                "kind": "APIVersions", "versions": ["v1"],
                "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0",
                    "serverAddress": host.unwrap_or_default()}],
            });
            add_version(call, &mut tree);
            respond::value(call, StatusCode::OK, &tree)
        }
        ["apis"] => {
            let named = in_order(core, &resources).into_iter();
            let named = named.filter(|(name, _)| !name.is_empty());
            let groups: Vec<Value> = named
                .map(|(name, versions)| group(&name, &versions))
                .collect();
            let tree = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups});
            respond::value(call, StatusCode::OK, &tree)
        }
        ["apis", name] => {
            let mut groups = in_order(core, &resources).into_iter();
            let found = groups.find(|(own, _)| own == name && !own.is_empty());
            let Some((name, versions)) = found else {
                return Ok(crate::pages::not_found());
            };
            let mut tree = group(&name, &versions);
            tree["kind"] = "APIGroup".into();
            tree["apiVersion"] = "v1".into();
            respond::value(call, StatusCode::OK, &tree)
        }
        ["apis", group, version]
            if !is_built_in(group) && resources.of(group, version).is_none() =>
        {
            Ok(crate::pages::not_found())
        }
        ["api", version] => list(call, &resources, "", version),
        ["apis", group, version] => list(call, &resources, group, version),
        _ => Err(no_such_resource()),
    }
}

/// Groups as upstream orders them; custom ones follow by name, those of other servers before.
fn in_order(core: &Core, resources: &Resources) -> Vec<(String, Vec<String>)> {
    let mut groups: Vec<(String, Vec<String>)> = resources.groups.clone();
    let mut others = Vec::new();
    for (group, versions) in core.aggregate.groups() {
        match groups.iter_mut().find(|(own, _)| *own == group) {
            Some((_, own)) => {
                let new = versions
                    .into_iter()
                    .filter(|version| !own.contains(version));
                let new: Vec<String> = new.collect();
                own.extend(new);
            }
            None => others.push((group, versions)),
        }
    }
    let place = |name: &str| {
        let known = GROUPS.iter().position(|known| *known == name);
        known.unwrap_or(GROUPS.len())
    };
    groups.sort_by(|(a, _), (b, _)| (place(a), a).cmp(&(place(b), b)));
    let customs = groups.partition_point(|(name, _)| place(name) < GROUPS.len());
    groups.splice(customs..customs, others);
    groups
}

/// The oldest answers name no version in JSON; their messages have one all the same.
fn add_version(call: &Call, tree: &mut Value) {
    if call.accept.media == Media::Protobuf {
        tree["apiVersion"] = "v1".into();
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
        if resource.cache.is_some() {
            entry["storageVersionHash"] = storage_version_hash(resource).into();
        }
        entries.push(entry);
        for sub in subresource::of(resource) {
            let mut entry = json!({
                "name": format!("{}/{}", names.plural, sub.name), "singularName": "",
                "namespaced": names.is_namespaced(), "kind": sub.kind(names), "verbs": sub.verbs,
            });
            if let Some((group, version, _)) = other_kind(names, sub) {
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
    let group_version = meta::GroupVersion {
        group: group.into(),
        version: version.into(),
    };
    let mut tree = json!({"kind": "APIResourceList", "resources": entries,
        "groupVersion": group_version.to_string()});
    match group {
        "" => add_version(call, &mut tree),
        _ => tree["apiVersion"] = "v1".into(),
    }
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
        Verbs::Read => &["get", "list"],
    }
}

/// What a subresource answers when that is of another group and version.
fn other_kind(
    names: &meta::Names,
    sub: &subresource::Subresource,
) -> Option<(&'static str, &'static str, &'static str)> {
    let other = |(group, version, _): &(&str, &str, &str)| {
        *group != names.group || *version != names.version
    };
    sub.answers.filter(other)
}

/// Changes when objects are stored in another version.
fn storage_version_hash(resource: &Resource) -> String {
    let names = &resource.stored().row.names;
    // Upstream keeps these in a version that nobody is served any more.
    let version = match (&*names.group, &*names.kind) {
        ("admissionregistration.k8s.io", kind) if kind.starts_with("MutatingAdmission") => {
            "v1beta1"
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => "v1beta1",
        _ => &names.version,
    };
    let digest = Sha256::digest(format!("{}/{version}/{}", names.group, names.kind));
    STANDARD.encode(&digest[..8])
}

fn all(core: &Core, call: &Call, accept: Accept, core_group: bool) -> Result<Answer, Status> {
    let resources = core.registry.now();
    let version = if accept.beta { "v2beta1" } else { "v2" };
    let own = in_order(core, &resources).into_iter();
    let own = own.filter(|(name, _)| name.is_empty() == core_group);
    let items: Vec<Value> = own
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    if let Some(tree) = core.aggregate.version(&name, version) {
                        return tree;
                    }
                    let list = resources.of(&name, version).unwrap_or_default();
                    let mut list: Vec<Value> = list.iter().map(aggregated).collect();
                    if name.is_empty() {
                        list.insert(0, bindings());
                    }
                    json!({"version": version, "resources": list, "freshness": "Current"})
                })
                .collect();
            let metadata = match name.as_str() {
                "" => json!({}),
                name => json!({"name": name}),
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let tree = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items,
    });
    let tag = format!("\"{}\"", hash(&crate::cache::encode(&tree)));
    let known = call.headers.get(IF_NONE_MATCH);
    let known = known.and_then(|tag| tag.to_str().ok()).unwrap_or("");
    let mut answer = match known.split(',').any(|known| known.trim() == tag) {
        true => respond::plain(StatusCode::NOT_MODIFIED, accept.media.name(), ""),
        false => respond::value_as(&accept, StatusCode::OK, &tree)?,
    };
    let media = format!(
        "{};g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList",
        accept.media.name()
    );
    let headers = answer.headers_mut();
    if let Ok(media) = HeaderValue::from_str(&media) {
        headers.insert(CONTENT_TYPE, media);
    }
    headers.append(VARY, HeaderValue::from_static("Accept"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    Ok(answer)
}

/// `bindings`, which are created and never kept.
fn bindings() -> Value {
    json!({"resource": "bindings", "scope": "Namespaced", "singularResource": "binding",
        "responseKind": {"group": "", "version": "", "kind": "Binding"}, "verbs": ["create"]})
}

fn aggregated(resource: &Arc<Resource>) -> Value {
    let names = &resource.row.names;
    // Empty: the group and version in which it stands.
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let subresources: Vec<Value> = subresource::of(resource)
        .map(|sub| {
            let answer = match other_kind(names, sub) {
                Some((group, version, word)) => kind(group, version, word),
                None => kind("", "", &sub.kind(names)),
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
        "resource": names.plural, "responseKind": kind("", "", &names.kind),
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
