//! PodTolerationRestriction: a namespace says what its pods tolerate, and what they may.

use meta::names::Names;
use meta::object::map_at;
use meta::{Object, Reason, Status};
use serde_json::{Value, json};

use crate::plugin::{Lookup, Operation, Plugin, Request};
use crate::resources::of_container;
use crate::settings::{ConfigError, fields};
use crate::tree::{list, spec, text};

const NAME: &str = "PodTolerationRestriction";
const DEFAULTS: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const ALLOWED: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";

#[derive(Default)]
pub(crate) struct PodTolerationRestriction {
    defaults: Vec<Value>,
    allowed: Vec<Value>,
}

impl PodTolerationRestriction {
    pub(crate) fn new(config: &Value) -> Result<PodTolerationRestriction, ConfigError> {
        fields(
            NAME,
            config,
            &["apiVersion", "kind", "default", "whitelist"],
        )?;
        Ok(PodTolerationRestriction {
            defaults: list(config, "default").cloned().collect(),
            allowed: list(config, "whitelist").cloned().collect(),
        })
    }
}

impl Plugin for PodTolerationRestriction {
    fn name(&self) -> &'static str {
        NAME
    }

    fn mutate(
        &self,
        request: &Request<'_>,
        object: &mut Object,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        if !concerns(request) {
            return Ok(());
        }
        let mut extra = Vec::new();
        if request.operation == Operation::Create {
            let own = of_namespace(request, DEFAULTS, lookup)?;
            extra = own.unwrap_or_else(|| self.defaults.clone());
        }
        if !is_best_effort(object) {
            extra.push(json!({"key": "node.kubernetes.io/memory-pressure",
                "operator": "Exists", "effect": "NoSchedule"}));
        }
        if extra.is_empty() {
            return Ok(());
        }
        let mut all: Vec<Value> = list(spec(object), "tolerations").cloned().collect();
        all.append(&mut extra);
        map_at(&mut object.0, "spec").insert("tolerations".into(), merged(&all).into());
        Ok(())
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Object>,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        let Some(pod) = object.filter(|_| concerns(request)) else {
            return Ok(());
        };
        if list(spec(pod), "tolerations").len() == 0 {
            return Ok(());
        }
        let (allowed, scope) = match of_namespace(request, ALLOWED, lookup)? {
            Some(own) => (own, "namespace"),
            None => (self.allowed.clone(), "cluster"),
        };
        let covered = |toleration: &Value| allowed.iter().any(|one| covers(one, toleration));
        if allowed.is_empty() || list(spec(pod), "tolerations").all(covered) {
            return Ok(());
        }
        let why = format!(
            "pod tolerations (possibly merged with namespace default tolerations) conflict with \
             its {scope} whitelist"
        );
        // Upstream's plugin returns a plain error here.
        Err(Status::new(Reason::InternalError, why))
    }
}

fn concerns(request: &Request<'_>) -> bool {
    let written = matches!(request.operation, Operation::Create | Operation::Update);
    written && request.is_on("pods")
}

/// What an annotation of the namespace lists; `None` when it has none.
fn of_namespace(
    request: &Request<'_>,
    annotation: &str,
    lookup: &dyn Lookup,
) -> Result<Option<Vec<Value>>, Status> {
    let Some(namespace) = lookup.get("namespaces", "", request.namespace) else {
        let names = Names::cluster("", "v1", "Namespace", "namespaces");
        return Err(Status::not_found(&names, request.namespace));
    };
    match namespace.annotation(annotation) {
        None => Ok(None),
        Some("") => Ok(Some(Vec::new())),
        Some(text) => serde_json::from_str(text).map_err(Status::internal),
    }
}

fn is_best_effort(pod: &Object) -> bool {
    let holders = ["containers", "initContainers"];
    let containers = holders.iter().flat_map(|field| list(spec(pod), field));
    let asks = |holder: &Value| {
        ["requests", "limits"].iter().any(|which| {
            let amounts = of_container(holder, which);
            ["cpu", "memory"]
                .iter()
                .any(|name| amounts.get(*name).is_some_and(|amount| !amount.is_zero()))
        })
    };
    !containers.chain([spec(pod)]).any(asks)
}

/// All tolerations without those that another one covers.
fn merged(all: &[Value]) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::new();
    for (index, one) in all.iter().enumerate() {
        let later = all.iter().skip(index + 1);
        let mut stronger = later.filter(|other| !same(other, one) && covers(other, one));
        if !kept.iter().any(|other| covers(other, one)) && stronger.next().is_none() {
            kept.push(one.clone());
        }
    }
    kept
}

fn same(one: &Value, other: &Value) -> bool {
    let texts = ["key", "operator", "value", "effect"];
    texts
        .iter()
        .all(|field| text(one, field) == text(other, field))
        && one.get("tolerationSeconds") == other.get("tolerationSeconds")
}

/// Whether `wide` tolerates all that `narrow` does.
fn covers(wide: &Value, narrow: &Value) -> bool {
    if same(wide, narrow) {
        return true;
    }
    let of = |field: &str| (text(wide, field), text(narrow, field));
    let operator = text(wide, "operator");
    let (key, own_key) = of("key");
    if key != own_key && !(key.is_empty() && operator == "Exists") {
        return false;
    }
    let (effect, own_effect) = of("effect");
    if effect != own_effect && !effect.is_empty() {
        return false;
    }
    let seconds = |toleration: &Value| toleration.get("tolerationSeconds")?.as_i64();
    if effect == "NoExecute"
        && let Some(most) = seconds(wide)
        && seconds(narrow).is_none_or(|own| own > most)
    {
        return false;
    }
    match operator {
        "Exists" => true,
        "" | "Equal" => {
            let (value, own_value) = of("value");
            text(narrow, "operator") == "Equal" && value == own_value
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, object, request};

    fn admitted(annotations: Value, tolerations: Value) -> Result<Vec<String>, String> {
        let metadata = json!({"name": "default", "annotations": annotations});
        let world = World::default().with("namespaces", json!({"metadata": metadata}));
        let plugin = PodTolerationRestriction::default();
        let mut pod = object(json!({"spec": {"tolerations": tolerations}}));
        let asked = request(Operation::Create, "pods", "web");
        let judged = plugin
            .mutate(&asked.borrow(), &mut pod, &world)
            .and_then(|()| plugin.validate(&asked.borrow(), Some(&pod), &world));
        let keys = list(spec(&pod), "tolerations").map(|one| text(one, "key").to_owned());
        let keys = keys.collect();
        judged.map(|()| keys).map_err(|status| status.message)
    }

    #[test]
    fn a_namespace_gives_and_limits() {
        let given = json!({DEFAULTS: r#"[{"key": "a", "operator": "Exists"}]"#});
        let own = json!([{"key": "a", "operator": "Equal", "value": "x"},
            {"key": "b", "operator": "Exists"}]);
        assert_eq!(admitted(given, own), Ok(vec!["b".into(), "a".into()]));
        let limited = json!({ALLOWED: r#"[{"key": "a", "operator": "Exists"}]"#});
        let ok = json!([{"key": "a", "operator": "Equal", "value": "x"}]);
        assert_eq!(admitted(limited.clone(), ok), Ok(vec!["a".into()]));
        let refusal = admitted(limited, json!([{"key": "b", "operator": "Exists"}]));
        assert!(refusal.is_err_and(|why| why.ends_with("with its namespace whitelist")));
    }
}
