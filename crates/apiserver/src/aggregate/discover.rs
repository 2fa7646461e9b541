//! What the server behind a route says that it serves.

use std::sync::Arc;
use std::time::Duration;

use auth::Identity;
use bytes::{Bytes, BytesMut};
use client::Body;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::pass::name_user;
use super::{Listed, Route, Swagger};
use crate::respond;

/// How long a server may take to say what it serves.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// And to send its OpenAPI document, which may have to be made.
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// Greatest document.
const DOCUMENT_BYTES_MAX: usize = 32 << 20;
/// Tries of one look; one success is enough.
const ATTEMPTS: usize = 5;
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// All groups in one document.
const GROUPS: HeaderValue = HeaderValue::from_static(
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
     application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
);

/// What the server serves. When it fails at once, several tries stand for several endpoints.
pub(super) async fn discover(route: &Route) -> Result<Listed, String> {
    let path = format!("/apis/{}/{}", route.group, route.version);
    let tries = |count: usize| {
        let tries = (0..count).map(|_| Box::pin(get(route, &path)));
        futures::future::select_ok(tries)
    };
    let list = match get(route, &path).await {
        Ok(list) => list,
        Err(_) => tries(ATTEMPTS - 1).await?.0,
    };
    // Old servers have none of these documents.
    let index = get(route, "/openapi/v3");
    let more = futures::future::join3(groups(route), index, swagger(route));
    let (groups, index, swagger) = more.await;
    let resources = match groups {
        Some(groups) => entry(&groups, &route.group, &route.version),
        None => resources(&list, &route.group, &route.version),
    };
    let index = index.unwrap_or_default();
    let url = index["paths"][path.trim_start_matches('/')]["serverRelativeURL"].as_str();
    Ok(Listed {
        resources,
        stale: false,
        openapi: url.map(str::to_owned),
        swagger,
    })
}

/// A page that has to be there.
async fn get(route: &Route, path: &str) -> Result<Value, String> {
    let target = route.address.target()?;
    let url = format!("https://{}{path}", target.authority());
    let accept = HeaderMap::from_iter([(ACCEPT, JSON)]);
    match tokio::time::timeout(ANSWER_TIMEOUT, fetch(route, path, accept)).await {
        Ok(Ok((code, _, body))) if code.is_success() => {
            Ok(serde_json::from_slice(&body).unwrap_or_default())
        }
        Ok(Ok((code, ..))) => Err(format!(
            "failing or missing response from {url}: bad status from {url}: {}",
            code.as_u16()
        )),
        Ok(Err(text)) => Err(format!(
            "failing or missing response from {url}: Get {url:?}: {text}"
        )),
        Err(_) => Err(format!(
            "failing or missing response from {url}: Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
    }
}

/// All groups in one document, if the server has it.
async fn groups(route: &Route) -> Option<Value> {
    let accept = HeaderMap::from_iter([(ACCEPT, GROUPS)]);
    let asked = fetch(route, "/apis", accept);
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, asked).await;
    let (code, headers, body) = answer.ok()?.ok()?;
    let media = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let is_meant = media.contains("g=apidiscovery.k8s.io")
        && media.contains("as=APIGroupDiscoveryList")
        && code == StatusCode::OK;
    is_meant
        .then(|| serde_json::from_slice(&body).ok())
        .flatten()
}

/// The document of OpenAPI v2 as far as it is about this route; what is known if it is the same.
async fn swagger(route: &Route) -> Option<Arc<Swagger>> {
    let known = route.listed.load_full();
    let known = known.and_then(|listed| listed.swagger.clone());
    let mut headers = HeaderMap::from_iter([(ACCEPT, JSON)]);
    let etag = known.as_ref().and_then(|known| known.etag.clone());
    headers.extend(etag.map(|etag| (IF_NONE_MATCH, etag)));
    let asked = fetch(route, "/openapi/v2", headers);
    let (code, headers, body) = match tokio::time::timeout(DOCUMENT_TIMEOUT, asked).await {
        Ok(Ok(answer)) => answer,
        _ => return known,
    };
    match code {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return None,
        _ => return known,
    }
    let tag = crate::discovery::hash(&body);
    if let Some(known) = known.filter(|known| known.tag == tag) {
        return Some(known);
    }
    let prefix = format!("/apis/{}/{}/", route.group, route.version);
    let etag = headers.get(ETAG).cloned();
    let read = move || {
        let tree = serde_json::from_slice(&body).ok()?;
        let own = schema::openapi::below(tree, &prefix).to_string();
        let json = Bytes::from(respond::compress(own.as_bytes()).ok()?);
        Some(Arc::new(Swagger { tag, etag, json }))
    };
    tokio::task::spawn_blocking(read).await.ok().flatten()
}

async fn fetch(
    route: &Route,
    path: &str,
    headers: HeaderMap,
) -> Result<(StatusCode, HeaderMap, Bytes), String> {
    let target = route.address.target()?;
    let request = Request::builder().uri(path).body(client::empty());
    let mut request = request.map_err(|error| error.to_string())?;
    *request.headers_mut() = headers;
    // An identity that may see everything, and is nobody's.
    let identity = Identity::user("system:kube-aggregator", &["system:masters"]);
    name_user(request.headers_mut(), &identity);
    let (head, body) = route.pool.send(&target, request).await?.into_parts();
    Ok((head.status, head.headers, whole(body).await?))
}

async fn whole(mut body: Body) -> Result<Bytes, String> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        if let Ok(data) = frame.into_data() {
            whole.extend_from_slice(&data);
        }
        if whole.len() > DOCUMENT_BYTES_MAX {
            return Err("the answer is too long".into());
        }
    }
    Ok(whole.freeze())
}

/// The resources of a group and version in the document of all groups.
fn entry(groups: &Value, group: &str, version: &str) -> Vec<Value> {
    let list = |tree: &Value, field: &str| tree[field].as_array().cloned().unwrap_or_default();
    let mut groups = list(groups, "items").into_iter();
    let found = groups.find(|own| own["metadata"]["name"] == group);
    let mut versions = list(&found.unwrap_or_default(), "versions").into_iter();
    let found = versions.find(|own| own["version"] == version);
    let mut resources = list(&found.unwrap_or_default(), "resources");
    // Go clients of 1.26 fall over resources without one.
    let complete = |own: &mut Value| {
        if own["responseKind"].is_null() {
            own["responseKind"] = json!({"group": "", "version": "", "kind": ""});
        }
    };
    for resource in &mut resources {
        complete(resource);
        let below = resource.get_mut("subresources");
        let below = below.and_then(Value::as_array_mut);
        below.into_iter().flatten().for_each(complete);
    }
    resources
}

/// Resources of an `APIResourceList` as aggregated discovery shows them.
pub(super) fn resources(list: &Value, group: &str, version: &str) -> Vec<Value> {
    let kind = |own: &Value| {
        let or = |field: &str, otherwise: &str| match own[field].as_str() {
            Some(word) if !word.is_empty() => word.to_owned(),
            _ => otherwise.to_owned(),
        };
        json!({"group": or("group", group), "version": or("version", version), "kind": own["kind"]})
    };
    let entries = list["resources"].as_array();
    let entries = || entries.into_iter().flatten();
    let name = |own: &Value| own["name"].as_str().unwrap_or("").to_owned();
    let tops = entries().filter(|own| !name(own).contains('/'));
    let top = |own: &Value| {
        let scope = match own["namespaced"].as_bool() {
            Some(true) => "Namespaced",
            _ => "Cluster",
        };
        let mut tree = json!({
            "resource": own["name"], "responseKind": kind(own), "scope": scope,
            "singularResource": own["singularName"], "verbs": own["verbs"],
        });
        for field in ["shortNames", "categories"] {
            if let Some(words) = own.get(field) {
                tree[field] = words.clone();
            }
        }
        let prefix = format!("{}/", name(own));
        let below: Vec<Value> = entries()
            .filter_map(|sub| {
                let word = name(sub).strip_prefix(&prefix)?.to_owned();
                Some(json!({"subresource": word, "responseKind": kind(sub), "verbs": sub["verbs"]}))
            })
            .collect();
        if !below.is_empty() {
            tree["subresources"] = below.into();
        }
        tree
    };
    tops.map(top).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_aggregated_entries() {
        let list = json!({"resources": [
            {"name": "ships", "singularName": "ship", "namespaced": true, "kind": "Ship",
                "verbs": ["get"], "shortNames": ["sh"]},
            {"name": "ships/status", "singularName": "", "namespaced": true, "kind": "Ship",
                "verbs": ["get", "update"]},
        ]});
        let kind = json!({"group": "g", "version": "v1", "kind": "Ship"});
        let expect = json!([{
            "resource": "ships", "responseKind": kind, "scope": "Namespaced",
            "singularResource": "ship", "verbs": ["get"], "shortNames": ["sh"],
            "subresources": [
                {"subresource": "status", "responseKind": kind, "verbs": ["get", "update"]},
            ],
        }]);
        assert_eq!(json!(resources(&list, "g", "v1")), expect);
    }

    #[test]
    fn entries_of_one_document_are_taken_as_they_are() {
        let ship = json!({"resource": "ships", "scope": "Namespaced", "verbs": ["get"],
            "subresources": [{"subresource": "status", "verbs": ["get"]}]});
        let groups = json!({"items": [
            {"metadata": {"name": "other"}, "versions": [{"version": "v1", "resources": [1]}]},
            {"metadata": {"name": "g"}, "versions": [
                {"version": "v1", "resources": [ship]}, {"version": "v2"},
            ]},
        ]});
        let found = entry(&groups, "g", "v1");
        assert_eq!(found[0]["resource"], "ships");
        let kind = json!({"group": "", "version": "", "kind": ""});
        assert_eq!(found[0]["responseKind"], kind);
        assert_eq!(found[0]["subresources"][0]["responseKind"], kind);
        assert!(entry(&groups, "g", "v2").is_empty() && entry(&groups, "h", "v1").is_empty());
    }
}
