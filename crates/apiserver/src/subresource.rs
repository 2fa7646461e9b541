//! What lies below an object's path.

pub(crate) mod binding;
mod coding;
pub(crate) mod connect;
pub(crate) mod eviction;
pub(crate) mod face;
mod links;
pub(crate) mod proxy;
pub(crate) mod scale;
mod scale_owners;
pub(crate) mod token;

use std::sync::Arc;

use client::Body;
use http::request::Parts;
use meta::{Names, Status};

use crate::chain::{Call, RequestInfo};
use crate::dispatch::no_such_resource;
use crate::registry::{Resource, method_not_allowed};
use crate::respond::Answer;
use crate::server::Core;
use crate::verbs;

/// One subresource, as discovery shows it.
pub(crate) struct Subresource {
    pub(crate) name: &'static str,
    pub(crate) verbs: &'static [&'static str],
    /// Group, version and kind of what it answers, when that is not the object itself.
    pub(crate) answers: Option<(&'static str, &'static str, &'static str)>,
}

impl Subresource {
    /// The kind of what it answers.
    pub(crate) fn kind(&self, names: &Names) -> String {
        match self.answers {
            Some((_, _, kind)) => kind.to_owned(),
            None => names.kind.clone(),
        }
    }
}

const READ_WRITE: &[&str] = &["get", "patch", "update"];
const CREATE: &[&str] = &["create"];
const CONNECT: &[&str] = &["create", "get"];
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];

const STATUS: Subresource = Subresource {
    name: "status",
    verbs: READ_WRITE,
    answers: None,
};
const SCALE: Subresource = Subresource {
    name: "scale",
    verbs: READ_WRITE,
    answers: Some(("autoscaling", "v1", "Scale")),
};

const fn subresource(
    name: &'static str,
    verbs: &'static [&'static str],
    answers: Option<(&'static str, &'static str, &'static str)>,
) -> Subresource {
    Subresource {
        name,
        verbs,
        answers,
    }
}

/// Those that only some kinds have, by resource.
const OWN: &[(&str, Subresource)] = &[
    (
        "pods",
        subresource("attach", CONNECT, Some(("", "v1", "PodAttachOptions"))),
    ),
    (
        "pods",
        subresource("exec", CONNECT, Some(("", "v1", "PodExecOptions"))),
    ),
    ("pods", subresource("log", &["get"], None)),
    (
        "pods",
        subresource(
            "portforward",
            CONNECT,
            Some(("", "v1", "PodPortForwardOptions")),
        ),
    ),
    (
        "pods",
        subresource("proxy", PROXY, Some(("", "v1", "PodProxyOptions"))),
    ),
    (
        "nodes",
        subresource("proxy", PROXY, Some(("", "v1", "NodeProxyOptions"))),
    ),
    (
        "services",
        subresource("proxy", PROXY, Some(("", "v1", "ServiceProxyOptions"))),
    ),
    (
        "pods",
        subresource("binding", CREATE, Some(("", "v1", "Binding"))),
    ),
    ("pods", subresource("ephemeralcontainers", READ_WRITE, None)),
    (
        "pods",
        subresource("eviction", CREATE, Some(("policy", "v1", "Eviction"))),
    ),
    ("pods", subresource("resize", READ_WRITE, None)),
    ("namespaces", subresource("finalize", &["update"], None)),
    (
        "serviceaccounts",
        subresource(
            "token",
            CREATE,
            Some(("authentication.k8s.io", "v1", "TokenRequest")),
        ),
    ),
    (
        "certificatesigningrequests.certificates.k8s.io",
        subresource("approval", READ_WRITE, None),
    ),
];

/// The subresources of a resource, by name.
pub(crate) fn of(resource: &Resource) -> impl Iterator<Item = &'static Subresource> {
    let row = &resource.row;
    let name = row.names.group_resource();
    let own = OWN.iter().filter(|(of, _)| *of == name).map(|(_, sub)| sub);
    let status = row.has_status.then_some(&STATUS);
    let scale = row.scale.is_some().then_some(&SCALE);
    let mut all: Vec<_> = own.chain(status).chain(scale).collect();
    all.sort_by_key(|sub| sub.name);
    all.into_iter()
}

/// Answers a request for a subresource.
pub(crate) async fn answer(
    core: &Arc<Core>,
    call: &Call,
    resource: &Arc<Resource>,
    parts: Parts,
    body: Body,
) -> Result<Answer, Status> {
    let info = &call.info;
    let known = of(resource).find(|sub| sub.name == info.subresource);
    let known = known.ok_or_else(|| match resource.custom {
        true => Status::not_found(&resource.row.names, &info.name),
        false => no_such_resource(),
    })?;
    // Proxies pass every method on, also those that have no verb.
    let is_head = parts.method == http::Method::HEAD && !resource.custom;
    if (is_head || !known.verbs.contains(&info.verb)) && known.name != "proxy" {
        return Err(not_allowed(resource, info));
    }
    match (known.name, info.verb) {
        ("proxy", _) => Box::pin(proxy::answer(core, call, resource, parts, body)).await,
        ("log" | "exec" | "attach" | "portforward", _) => {
            Box::pin(connect::connect(core, call, resource, parts, body)).await
        }
        ("scale", _) => Box::pin(scale::answer(core, call, resource, body)).await,
        ("binding", _) => Box::pin(binding::bind(core, call, resource, body)).await,
        ("eviction", _) => Box::pin(eviction::evict(core, call, resource, body)).await,
        ("token", _) => Box::pin(token::request(core, call, resource, body)).await,
        (_, "get") => verbs::get::get(core, call, resource).await,
        (_, "update") => Box::pin(verbs::update::update(core, call, resource, body)).await,
        (_, "patch") => Box::pin(verbs::patch::patch(core, call, resource, body)).await,
        _ => Err(method_not_allowed()),
    }
}

/// 405; custom resources have upstream's other words for it.
fn not_allowed(resource: &Resource, info: &RequestInfo) -> Status {
    let mut status = method_not_allowed();
    if resource.custom {
        let names = &resource.row.names;
        status.message = format!(
            "{} is not supported on resources of kind {:?}",
            info.verb,
            names.group_resource()
        );
        status.group.clone_from(&names.group);
        status.kind.clone_from(&names.plural);
    }
    status
}

/// Whether a path is a subresource's without an object's, as `bindings` is.
pub(crate) fn is_rootless(info: &RequestInfo) -> bool {
    info.group.is_empty() && info.version == "v1" && info.resource == "bindings"
}

/// `POST /api/v1/namespaces/x/bindings`: the pod is named in the body.
pub(crate) async fn rootless(core: &Arc<Core>, call: &Call, body: Body) -> Result<Answer, Status> {
    let info = &call.info;
    let is_known = info.name.is_empty() && !info.namespace.is_empty();
    if !is_known {
        return Err(no_such_resource());
    }
    if info.verb != "create" {
        return Err(method_not_allowed());
    }
    let pods = core.registry.now().find("", "v1", "pods");
    let pods = pods.ok_or_else(no_such_resource)?;
    Box::pin(binding::bind(core, call, &pods, body)).await
}
