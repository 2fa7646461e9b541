//! Questions about what is not kept: connections, bindings, evictions, tokens.

use admission::Operation;
use meta::Status;
use serde_json::{Map, Value, json};

use super::Asked;
use super::matching::Objects;
use super::validate::{ask_mutating, ask_validating};
use super::view::{GroupVersionKind, View};
use crate::verbs::write::Write;

/// Asks all webhooks about an object that a subresource takes and does not keep.
pub(crate) async fn ask_about(
    write: &Write<'_>,
    operation: Operation,
    name: &str,
    kind: GroupVersionKind,
    object: &Value,
) -> Result<(), Status> {
    let hooks = &write.core.hooks;
    if !hooks.may_mutate() && !hooks.may_refuse() {
        return Ok(());
    }
    let Some(asked) = Asked::seen(write, operation, name, View::Foreign(kind)) else {
        return Ok(());
    };
    let objects = Objects {
        new: Some(object),
        old: None,
    };
    ask_mutating(&asked, objects).await?;
    ask_validating(&asked, objects).await
}

/// Asks about a connection to a pod, node or service, such as an exec.
pub(crate) async fn connection(write: &Write<'_>) -> Result<(), Status> {
    let info = &write.call.info;
    let kind = match (info.resource.as_str(), info.subresource.as_str()) {
        ("pods", "exec") => "PodExecOptions",
        ("pods", "attach") => "PodAttachOptions",
        ("pods", "portforward") => "PodPortForwardOptions",
        ("pods", "proxy") => "PodProxyOptions",
        ("nodes", "proxy") => "NodeProxyOptions",
        ("services", "proxy") => "ServiceProxyOptions",
        // A log is read, not connected to.
        _ => return Ok(()),
    };
    let options = options(write, kind);
    let kind = ("", "v1", kind);
    ask_about(write, Operation::Connect, &info.name, kind, &options).await
}

/// The options of a connection, from its query.
fn options(write: &Write<'_>, kind: &str) -> Value {
    let call = write.call;
    let mut options = Map::new();
    options.insert("kind".into(), kind.into());
    options.insert("apiVersion".into(), "v1".into());
    match kind {
        "PodExecOptions" | "PodAttachOptions" => {
            for stream in ["stdin", "stdout", "stderr", "tty"] {
                if call.query.flag(stream) {
                    options.insert(stream.into(), true.into());
                }
            }
            if let Some(container) = call.query.get("container") {
                options.insert("container".into(), container.into());
            }
            let command: Vec<&str> = call.query.all("command").collect();
            if kind == "PodExecOptions" {
                options.insert("command".into(), json!(command));
            }
        }
        "PodPortForwardOptions" => {
            let ports = call.query.all("ports").flat_map(|list| list.split(','));
            let ports: Vec<u16> = ports.filter_map(|port| port.parse().ok()).collect();
            options.insert("ports".into(), json!(ports));
        }
        _ => {
            options.insert("path".into(), call.info.tail.as_str().into());
        }
    }
    Value::Object(options)
}
