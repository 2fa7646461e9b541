//! The objects that every cluster has. They are written through the same path as any other.

use std::net::IpAddr;

use client::Client;
use futures::future::try_join_all;
use http::Method;
use meta::{Object, Status};
use serde_json::{Value, json};

use super::BuildError;
use crate::server::Core;

const NAMESPACES: [&str; 4] = ["kube-system", "default", "kube-public", "kube-node-lease"];

/// Writes what is missing, and completes what is.
pub(crate) async fn write(core: &Core, client: &Client) -> Result<(), BuildError> {
    for name in NAMESPACES {
        let tree = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        ensure(core, client, tree).await?;
    }
    // All at once: the store commits what waits together.
    let rights = auth::bootstrap::objects().into_iter();
    let rights = rights.map(|tree| reconcile_rights(core, client, tree));
    let classes = admission::system_priority_classes().into_iter();
    let classes = classes.map(|tree| ensure(core, client, tree));
    let (rights, classes) = (try_join_all(rights), try_join_all(classes));
    let range = service_range(core, client);
    let authentication = replace(core, client, extension_authentication(core));
    let service = kubernetes_service(core, client);
    let tracking = ensure(core, client, token_tracking());
    tokio::try_join!(rights, classes, range, authentication, service, tracking).map(drop)
}

/// The path of an object's collection, and of the object; `None` where its kind is not served.
fn paths(core: &Core, tree: &Value) -> Option<(String, String)> {
    let object = Object(tree.clone());
    let group = object
        .api_version()
        .split_once('/')
        .map_or("", |(group, _)| group);
    let resource = core.registry.now().by_kind(group, object.kind())?;
    let names = &resource.row.names;
    let namespace = Some(object.namespace()).filter(|namespace| !namespace.is_empty());
    Some((
        names.path(namespace, None),
        names.path(namespace, Some(object.name())),
    ))
}

fn failed(tree: &Value, status: Status) -> BuildError {
    let object = Object(tree.clone());
    BuildError::Bootstrap {
        what: format!("{} {}", object.kind(), object.name()),
        status: Box::new(status),
    }
}

async fn get(client: &Client, path: &str) -> Result<Option<Value>, Status> {
    match client.get_value(path).await {
        Ok(tree) => Ok(Some(tree)),
        Err(status) if status.is_not_found() => Ok(None),
        Err(status) => Err(status),
    }
}

/// Creates an object that does not exist.
async fn ensure(core: &Core, client: &Client, tree: Value) -> Result<(), BuildError> {
    let Some((collection, path)) = paths(core, &tree) else {
        return Ok(());
    };
    let found = get(client, &path)
        .await
        .map_err(|status| failed(&tree, status))?;
    if found.is_some() {
        return Ok(());
    }
    match client.send_value(Method::POST, &collection, &tree).await {
        // Another server was faster.
        Err(status) if !status.is_already_exists() => Err(failed(&tree, status)),
        _ => Ok(()),
    }
}

/// Makes the parts of an object that are not its metadata what they should be.
async fn replace(core: &Core, client: &Client, tree: Value) -> Result<(), BuildError> {
    let Some((_, path)) = paths(core, &tree) else {
        return Ok(());
    };
    let found = get(client, &path)
        .await
        .map_err(|status| failed(&tree, status))?;
    let Some(mut found) = found else {
        return ensure(core, client, tree).await;
    };
    let before = found.clone();
    if let (Some(found), Some(tree)) = (found.as_object_mut(), tree.as_object()) {
        let parts = tree.iter().filter(|(name, _)| *name != "metadata");
        parts.for_each(|(name, value)| drop(found.insert(name.clone(), value.clone())));
    }
    if found == before {
        return Ok(());
    }
    let sent = client.send_value(Method::PUT, &path, &found).await;
    sent.map(drop).map_err(|status| failed(&tree, status))
}

/// Adds the rules and subjects that a built-in role or binding lacks; users may have added more,
/// or have switched this off by annotation.
async fn reconcile_rights(core: &Core, client: &Client, tree: Value) -> Result<(), BuildError> {
    let Some((_, path)) = paths(core, &tree) else {
        return Ok(());
    };
    let found = get(client, &path)
        .await
        .map_err(|status| failed(&tree, status))?;
    let Some(mut found) = found else {
        return ensure(core, client, tree).await;
    };
    let switch = "/metadata/annotations/rbac.authorization.kubernetes.io~1autoupdate";
    if found.pointer(switch).and_then(Value::as_str) == Some("false") {
        return Ok(());
    }
    let mut changed = false;
    for list in ["rules", "subjects"] {
        let wanted = tree
            .get(list)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        // The rules of an aggregated role are its controller's.
        if wanted.is_empty() || (list == "rules" && tree.get("aggregationRule").is_some()) {
            continue;
        }
        let mut own = found
            .get(list)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let before = own.len();
        for one in wanted {
            if !own.contains(&one) {
                own.push(one);
            }
        }
        changed |= own.len() > before;
        found[list] = own.into();
    }
    if !changed {
        return Ok(());
    }
    let sent = client.send_value(Method::PUT, &path, &found).await;
    sent.map(drop).map_err(|status| failed(&tree, status))
}

/// The default range of services, which is ready as long as it is the one we give from.
async fn service_range(core: &Core, client: &Client) -> Result<(), BuildError> {
    let tree = service_cidr(core);
    ensure(core, client, tree.clone()).await?;
    let Some((_, path)) = paths(core, &tree) else {
        return Ok(());
    };
    let found = get(client, &path)
        .await
        .map_err(|status| failed(&tree, status))?;
    let Some(mut found) = found else {
        return Ok(());
    };
    let conditions = found.pointer("/status/conditions");
    let conditions = conditions.and_then(Value::as_array).into_iter().flatten();
    let known = conditions.filter(|one| one.get("type") == Some(&"Ready".into()));
    let ours = found.pointer("/spec/cidrs") == tree.pointer("/spec/cidrs");
    if known.count() > 0 || !ours || found.pointer("/metadata/deletionTimestamp").is_some() {
        return Ok(());
    }
    found["status"] = json!({"conditions": [{
        "type": "Ready", "status": "True", "reason": "",
        "message": "Kubernetes default Service CIDR is ready",
        "lastTransitionTime": meta::time::now(),
    }]});
    let path = format!("{path}/status");
    let sent = client.send_value(Method::PUT, &path, &found).await;
    sent.map(drop).map_err(|status| failed(&tree, status))
}

fn service_cidr(core: &Core) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": [core.config.service_cidr]},
    })
}

/// Since when the use of tokens in secrets is recorded.
fn token_tracking() -> Value {
    let today = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let name = "kube-apiserver-legacy-service-account-token-tracking";
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "kube-system"},
        "data": {"since": today},
    })
}

/// Tells servers behind this one whom it believes now.
pub(crate) async fn publish_trust(core: &Core, client: &Client) -> Result<(), BuildError> {
    replace(core, client, extension_authentication(core)).await
}

/// Whom this server believes, for servers behind it.
fn extension_authentication(core: &Core) -> Value {
    let (clients, proxies) = core.authenticator.believed();
    let names = &core.config.authentication.request_headers;
    let list = |names: &[String]| json!(names).to_string();
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {
            "client-ca-file": *clients,
            "requestheader-client-ca-file": *proxies,
            "requestheader-allowed-names": list(&names.allowed_names),
            "requestheader-extra-headers-prefix": list(&names.extra_prefixes),
            "requestheader-group-headers": list(&names.group_headers),
            "requestheader-uid-headers": list(&names.uid_headers),
            "requestheader-username-headers": list(&names.username_headers),
        },
    })
}

/// The Service under which pods find this server, and where it leads.
async fn kubernetes_service(core: &Core, client: &Client) -> Result<(), BuildError> {
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let port = core.config.port;
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {
            "type": "ClusterIP", "clusterIP": core.allocations.range.nth(0).to_string(),
            "sessionAffinity": "None",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
        },
    });
    ensure(core, client, service).await?;
    // Pods cannot reach a loopback address, and validation refuses it as an endpoint.
    let reachable = |address: &IpAddr| !address.is_loopback() && !address.is_unspecified();
    let Some(address) = core.config.advertise_address.filter(reachable) else {
        return Ok(());
    };
    let ports = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
    let mirrored = json!({"endpointslice.kubernetes.io/skip-mirror": "true"});
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": mirrored},
        "subsets": [{"addresses": [{"ip": address.to_string()}], "ports": ports}],
    });
    replace(core, client, endpoints).await?;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": match address { IpAddr::V4(_) => "IPv4", IpAddr::V6(_) => "IPv6" },
        "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}],
        "ports": ports,
    });
    replace(core, client, slice).await
}
