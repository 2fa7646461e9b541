//! Questions about what is not kept: connections, bindings, evictions, tokens.

use admission::Operation;
use meta::{Object, Status};
use serde_json::{Map, Value, json};

use super::Asked;
use super::mutate::mutate;
use super::validate::validate;
use super::view::{GroupVersionKind, View};
use crate::chain::Query;
use crate::verbs::write::Write;

/// Admits an object that a subresource takes and does not keep: by plugins, policies and
/// webhooks. They may change it.
pub(crate) async fn ask_about(
    write: &Write<'_>,
    operation: Operation,
    name: &str,
    kind: GroupVersionKind<'_>,
    object: Value,
) -> Result<Value, Status> {
    let core = write.core;
    let mut object = Object(object);
    write.complete(operation, name, &mut object, None).await?;
    let asked = match super::may_mutate(core) || super::may_refuse(core) {
        true => Asked::seen(write, operation, name, View::Foreign(kind)),
        false => None,
    };
    if let Some(asked) = &asked {
        let mutated = mutate(asked, object.0, None, |mut object| {
            Box::pin(async move {
                write.complete(operation, name, &mut object, None).await?;
                Ok(object)
            })
        });
        object = Object(Box::pin(mutated).await?);
    }
    write.judge(operation, name, &object).await?;
    if let Some(asked) = &asked {
        let judged = validate(asked, (Some(&object.0), None));
        Box::pin(judged).await?;
    }
    Ok(object.0)
}

/// A connection that admission has let pass.
pub(crate) struct Connected {
    /// Its options, where they are not those that the client asked for.
    changed: Option<Value>,
}

impl Connected {
    /// The query that makes these options.
    pub(crate) fn query(&self, asked: &Query) -> Query {
        let Some(options) = self.changed.as_ref().and_then(Value::as_object) else {
            return asked.clone();
        };
        let mut pairs = Vec::new();
        for (field, value) in options {
            let mut add = |value: &Value| {
                let text = match value {
                    Value::String(text) => text.clone(),
                    value => value.to_string(),
                };
                pairs.push((field.clone(), text));
            };
            match value {
                _ if field == "kind" || field == "apiVersion" => {}
                Value::Array(items) => items.iter().for_each(add),
                value => add(value),
            }
        }
        asked.replaced(&OPTIONS, pairs)
    }

    /// Where a proxied request shall go instead.
    pub(crate) fn path(&self) -> Option<&str> {
        self.changed.as_ref()?.get("path")?.as_str()
    }
}

/// Parameters that are fields of options.
const OPTIONS: [&str; 7] = [
    "stdin",
    "stdout",
    "stderr",
    "tty",
    "container",
    "command",
    "ports",
];

/// Asks about a connection to a pod, node or service, such as an exec.
pub(crate) async fn connection(write: &Write<'_>) -> Result<Connected, Status> {
    let info = &write.call.info;
    let kind = match (info.resource.as_str(), info.subresource.as_str()) {
        ("pods", "exec") => "PodExecOptions",
        ("pods", "attach") => "PodAttachOptions",
        ("pods", "portforward") => "PodPortForwardOptions",
        ("pods", "proxy") => "PodProxyOptions",
        ("nodes", "proxy") => "NodeProxyOptions",
        ("services", "proxy") => "ServiceProxyOptions",
        // A log is read, not connected to.
        _ => return Ok(Connected { changed: None }),
    };
    let options = options(write, kind);
    let kind = ("", "v1", kind);
    let made = ask_about(write, Operation::Connect, &info.name, kind, options.clone()).await?;
    Ok(Connected {
        changed: (made != options).then_some(made),
    })
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
