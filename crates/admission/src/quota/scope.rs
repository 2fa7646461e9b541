//! Quotas for some objects only: by how long pods live, what they are promised, how they matter.

use meta::Object;
use serde_json::Value;

use crate::resources::of_container;
use crate::tree::{list, spec, text};

/// One condition of a quota.
struct Selector<'a> {
    scope: &'a str,
    operator: &'a str,
    values: Vec<&'a str>,
}

/// Whether a quota is about this object, as far as its scopes tell.
pub fn matches_scopes(quota: &Object, group_resource: &str, object: &Object) -> bool {
    selectors(quota)
        .iter()
        .all(|selector| match group_resource {
            "pods" => pod_matches(selector, object),
            "persistentvolumeclaims" => claim_matches(selector, object),
            // No other kind has anything that scopes could mean.
            _ => false,
        })
}

fn selectors(quota: &Object) -> Vec<Selector<'_>> {
    let plain = list(spec(quota), "scopes").filter_map(Value::as_str);
    let plain = plain.map(|scope| Selector {
        scope,
        operator: "Exists",
        values: Vec::new(),
    });
    let expressions = spec(quota).get("scopeSelector").unwrap_or(&Value::Null);
    let expressions = list(expressions, "matchExpressions").map(|expression| Selector {
        scope: text(expression, "scopeName"),
        operator: text(expression, "operator"),
        values: list(expression, "values")
            .filter_map(Value::as_str)
            .collect(),
    });
    plain.chain(expressions).collect()
}

impl Selector<'_> {
    /// Whether any of the names an object has for the scope fits; it may have none.
    fn fits(&self, names: &[&str]) -> bool {
        let listed = |name: &&str| self.values.contains(name);
        match self.operator {
            "Exists" => !names.is_empty(),
            "DoesNotExist" => names.is_empty(),
            "In" => names.iter().any(listed),
            "NotIn" => names.is_empty() || names.iter().any(|name| !listed(name)),
            _ => false,
        }
    }
}

fn pod_matches(selector: &Selector<'_>, pod: &Object) -> bool {
    match selector.scope {
        "Terminating" => is_terminating(pod),
        "NotTerminating" => !is_terminating(pod),
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        "PriorityClass" => {
            let name = text(spec(pod), "priorityClassName");
            let names = [name];
            selector.fits(if name.is_empty() { &[] } else { &names })
        }
        "CrossNamespacePodAffinity" => looks_abroad(pod),
        _ => false,
    }
}

fn claim_matches(selector: &Selector<'_>, claim: &Object) -> bool {
    let names = [
        claim.text("/spec/volumeAttributesClassName"),
        claim.text("/status/currentVolumeAttributesClassName"),
        claim.text("/status/modifyVolumeStatus/targetVolumeAttributesClassName"),
    ];
    let names: Vec<&str> = names.into_iter().filter(|name| !name.is_empty()).collect();
    selector.scope == "VolumeAttributesClass" && selector.fits(&names)
}

/// Whether a pod is to end by itself.
pub(super) fn is_terminating(pod: &Object) -> bool {
    let deadline = spec(pod)
        .get("activeDeadlineSeconds")
        .and_then(Value::as_i64);
    deadline.is_some_and(|seconds| seconds >= 0)
}

/// Whether nothing at all is promised to the pod.
fn is_best_effort(pod: &Object) -> bool {
    match pod.text("/status/qosClass") {
        "" => {}
        class => return class == "BestEffort",
    }
    let spec = spec(pod);
    let states = |container: &Value| {
        ["requests", "limits"].into_iter().any(|which| {
            let amounts = of_container(container, which);
            ["cpu", "memory"]
                .into_iter()
                .any(|name| amounts.get(name).is_some_and(|amount| !amount.is_zero()))
        })
    };
    let mut containers = list(spec, "containers").chain(list(spec, "initContainers"));
    !containers.any(states) && !states(spec)
}

/// Whether the pod's affinity is about pods of other namespaces.
fn looks_abroad(pod: &Object) -> bool {
    let abroad = |term: &Value| {
        list(term, "namespaces").next().is_some()
            || term
                .get("namespaceSelector")
                .is_some_and(|selector| !selector.is_null())
    };
    let affinity = spec(pod).get("affinity").unwrap_or(&Value::Null);
    ["podAffinity", "podAntiAffinity"].into_iter().any(|field| {
        let rules = affinity.get(field).unwrap_or(&Value::Null);
        list(rules, "requiredDuringSchedulingIgnoredDuringExecution").any(abroad)
            || list(rules, "preferredDuringSchedulingIgnoredDuringExecution")
                .any(|weighted| abroad(weighted.get("podAffinityTerm").unwrap_or(&Value::Null)))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fits(quota: Value, pod: Value) -> bool {
        matches_scopes(
            &Object(json!({"spec": quota})),
            "pods",
            &Object(json!({"spec": pod})),
        )
    }

    #[test]
    fn plain_scopes() {
        let busy = || json!({"containers": [{"resources": {"limits": {"cpu": "1"}}}]});
        let idle = || json!({"containers": [{"resources": {"limits": {"cpu": "0"}}}]});
        let scope = |name: &str| json!({"scopes": [name]});
        assert!(fits(json!({}), busy()));
        assert!(fits(scope("BestEffort"), idle()) && !fits(scope("BestEffort"), busy()));
        assert!(fits(scope("NotBestEffort"), busy()) && !fits(scope("NotBestEffort"), idle()));
        let job = || json!({"activeDeadlineSeconds": 60});
        assert!(fits(scope("Terminating"), job()) && !fits(scope("NotTerminating"), job()));
        assert!(!fits(
            json!({"scopes": ["Terminating", "NotBestEffort"]}),
            job()
        ));
        let abroad = json!({"affinity": {"podAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [{"namespaces": ["x"]}]}}});
        assert!(fits(scope("CrossNamespacePodAffinity"), abroad));
    }

    #[test]
    fn priority_classes() {
        let quota = |operator: &str, values: Value| {
            json!({"scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
        };
        let high = || json!({"priorityClassName": "high"});
        assert!(fits(quota("In", json!(["high"])), high()));
        assert!(!fits(quota("In", json!(["high"])), json!({})));
        assert!(!fits(quota("NotIn", json!(["high"])), high()));
        assert!(fits(quota("NotIn", json!(["high"])), json!({})));
        assert!(fits(quota("Exists", json!([])), high()));
        assert!(fits(quota("DoesNotExist", json!([])), json!({})));
    }

    #[test]
    fn scopes_mean_pods() {
        let quota = Object(json!({"spec": {"scopes": ["NotTerminating"]}}));
        assert!(!matches_scopes(&quota, "configmaps", &Object(json!({}))));
        assert!(matches_scopes(
            &Object(json!({})),
            "configmaps",
            &Object(json!({}))
        ));
    }
}
