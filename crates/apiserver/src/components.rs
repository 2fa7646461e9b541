//! `/api/v1/componentstatuses`: how the parts of the control plane are, asked anew each time.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Request, StatusCode};
use jiff::Timestamp;
use meta::{Reason, Status};
use serde_json::{Value, json};

use crate::body;
use crate::cache::encode;
use crate::chain::Call;
use crate::chain::accept::Shape;
use crate::registry::{Resource, method_not_allowed};
use crate::respond::{self, Answer};
use crate::selectors::Filter;
use crate::server::Core;
use crate::stream::{Channel, Target};
use crate::table;
use crate::verbs::untyped;

/// Parts that may run elsewhere, and the ports where upstream's tell how they are.
const PARTS: [(&str, u16); 2] = [("controller-manager", 10257), ("scheduler", 10259)];
/// The store, which is part of this process.
const STORE: &str = "etcd-0";
/// How long a part may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers get and list; nothing of this is kept.
pub(crate) fn answer<'a>(
    core: &'a Arc<Core>,
    call: &'a Call,
    resource: &'a Arc<Resource>,
) -> BoxFuture<'a, Result<Answer, Status>> {
    Box::pin(answered(core, call, resource))
}

async fn answered(
    core: &Arc<Core>,
    call: &Call,
    resource: &Arc<Resource>,
) -> Result<Answer, Status> {
    match call.info.verb {
        "get" => {
            let name = call.info.name.as_str();
            let found = status_of(core, name).await.ok_or_else(|| {
                let text = format!("Component not found: {name}");
                Status::new(Reason::NotFound, text)
            })?;
            respond::object(call, resource, StatusCode::OK, encode(&found).into())
        }
        "list" => list(core, call, resource).await,
        _ => Err(method_not_allowed()),
    }
}

async fn list(core: &Arc<Core>, call: &Call, resource: &Arc<Resource>) -> Result<Answer, Status> {
    let filter = Filter::read(call, resource)?;
    let is_meant = |name: &str| {
        let field = |path: &str| (path == "metadata.name").then_some(name);
        filter.labels.matches(|_| None) && filter.fields.matches(field)
    };
    let names = PARTS.iter().map(|(name, _)| *name).chain([STORE]);
    let names: Vec<&'static str> = names.filter(|name| is_meant(name)).collect();
    let mut items = Vec::new();
    for name in names {
        items.extend(status_of(core, name).await);
    }
    let tree = match call.accept.shape {
        Shape::Object | Shape::Groups => {
            let items: Vec<Value> = items.into_iter().map(untyped).collect();
            json!({"kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {},
                "items": items})
        }
        Shape::Table => {
            let (include, now) = (table::Include::read(&call.query)?, Timestamp::now());
            let rows = items
                .into_iter()
                .map(|own| table::row(resource, own, include, now));
            table::table(&resource.row, rows.collect(), json!({}), true)
        }
        Shape::Metadata => {
            let items: Vec<Value> = items.into_iter().map(table::metadata_only).collect();
            json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": {}, "items": items})
        }
    };
    respond::value(call, StatusCode::OK, &call.accept.versioned(tree))
}

/// How a part is; `None` for a name that is no part's.
async fn status_of(core: &Arc<Core>, name: &str) -> Option<Value> {
    let health = match PARTS.iter().find(|(own, _)| *own == name) {
        // As long as this process serves, what runs in it does.
        Some(_) if core.config.parts.contains(&name) => Ok("ok".to_owned()),
        Some((_, port)) => Box::pin(asked(Arc::clone(core), *port)).await,
        None if name == STORE => Ok("ok".to_owned()),
        None => return None,
    };
    let (word, message) = match health {
        Ok(message) => ("True", message),
        Err(message) => ("False", message),
    };
    let condition = json!({"type": "Healthy", "status": word, "message": message});
    Some(
        json!({"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name},
        "conditions": [condition]}),
    )
}

/// Asks a part of this machine.
async fn asked(core: Arc<Core>, port: u16) -> Result<String, String> {
    let target = Target {
        host: "127.0.0.1".to_owned(),
        port,
        channel: Channel::Unverified,
    };
    let asking = health(&core, &target);
    let health = tokio::time::timeout(ANSWER_TIMEOUT, asking).await;
    let health = health.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()));
    let (code, text) =
        health.map_err(|why| format!("Get \"https://127.0.0.1:{port}/healthz\": {why}"))?;
    match code.is_success() {
        true => Ok(text),
        false => {
            let code = code.as_u16();
            Err(format!("unhealthy http status code: {code} body: {text}"))
        }
    }
}

async fn health(core: &Core, target: &Target) -> Result<(StatusCode, String), String> {
    let request = Request::get("/healthz").body(client::empty());
    let request = request.map_err(|error| error.to_string())?;
    let answer = core.dialer.pass_on(target, request, None).await;
    let answer = answer.map_err(|status| {
        let why = status.message.as_str();
        why.strip_prefix("error dialing backend: ")
            .unwrap_or(why)
            .to_owned()
    })?;
    let code = answer.status();
    let body = body::read(answer.into_body())
        .await
        .map_err(|status| status.message)?;
    Ok((code, String::from_utf8_lossy(&body).into_owned()))
}
