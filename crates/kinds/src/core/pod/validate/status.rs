//! What may be said in a pod's status.

use std::collections::BTreeSet;

use meta::{Faults, naming};
use serde_json::Value;

use crate::path::Path;
use crate::spot::{Spot, immutable, rules};
use crate::tree::Tree;

const CONTAINERS: [(&str, &str); 3] = [
    ("containerStatuses", "spec.containers"),
    ("initContainerStatuses", "spec.initContainers"),
    ("ephemeralContainerStatuses", ""),
];

/// Faults of a changed status.
pub(crate) fn validate_status(pod: &Value, old: &Value, faults: &mut Faults) {
    let (status, before) = (Spot::new(pod, "status"), old.at("status"));
    validate_conditions(&status, faults);
    if pod.text("spec.nodeName") != old.text("spec.nodeName") {
        faults.forbidden(status.path("nodeName"), "may not be changed directly");
    }
    let nominated = status.text("nominatedNodeName");
    if !nominated.is_empty() && nominated != before.text("nominatedNodeName") {
        let path = status.path("nominatedNodeName");
        rules(
            faults,
            path.clone(),
            nominated,
            naming::dns1123_subdomain(nominated),
        );
        if !old.text("spec.nodeName").is_empty() {
            let rule = "may not be set on pods that are already bound to a node";
            faults.forbidden(path, rule);
        }
    }
    generation(&status, faults);
    if !status.text("qosClass").is_empty() {
        immutable(&status, before, "qosClass", faults);
    }
    for (list, containers) in CONTAINERS {
        validate_ends(pod, old, (list, containers), faults);
    }
    validate_claims(pod, &status, faults);
    for list in ["podIPs", "hostIPs"] {
        validate_addresses(&status, list, before, faults);
    }
    for (list, _) in CONTAINERS {
        for container in status.items(list) {
            validate_user(&container, pod, faults);
            if list == "ephemeralContainerStatuses"
                && container.count("allocatedResourcesStatus") > 0
            {
                let rule = "must not be specified in container status";
                faults.forbidden(container.path("allocatedResourcesStatus"), rule);
            }
        }
    }
}

fn generation(holder: &Spot<'_>, faults: &mut Faults) {
    let generation = holder.int("observedGeneration");
    if generation < 0 {
        let rule = "must be a non-negative integer";
        faults.invalid(holder.path("observedGeneration"), generation, rule);
    }
}

fn validate_conditions(status: &Spot<'_>, faults: &mut Faults) {
    for condition in status.items("conditions") {
        generation(&condition, faults);
        let kind = condition.text("type");
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            // So upstream spells the field here.
            rules(
                faults,
                condition.path("Type"),
                kind,
                naming::qualified_name(kind),
            );
        }
    }
}

/// Addresses of both families at most, one each; what is broken already may stay.
fn validate_addresses(status: &Spot<'_>, list: &str, before: &Value, faults: &mut Faults) {
    let path = status.path(list);
    let all: Vec<_> = status.list(list).iter().map(|one| one.text("ip")).collect();
    if let (Some(first), "hostIPs") = (all.first(), list)
        && *first != status.text("hostIP")
    {
        let rule = "must be equal to `hostIP`";
        faults.invalid(format!("{path}[0].ip"), *first, rule);
    }
    let known: BTreeSet<_> = before.list(list).iter().map(|one| one.text("ip")).collect();
    for address in status.items(list) {
        let ip = address.text("ip");
        if !known.contains(ip) {
            rules(faults, address.path.clone(), ip, naming::ip(ip));
        }
    }
    let sixes = all.iter().filter(|ip| ip.contains(':')).count();
    if all.len() > 2 || all.len() == 2 && sixes != 1 {
        let rule = "may specify no more than one IP for each IP family";
        faults.invalid(path, status.at(list).clone(), rule);
    }
}

fn validate_claims(pod: &Value, status: &Spot<'_>, faults: &mut Faults) {
    let mut seen = BTreeSet::new();
    for claim in status.items("resourceClaimStatuses") {
        let name = claim.text("name");
        let mut known = pod.list("spec.resourceClaims").iter();
        if !known.any(|own| own.text("name") == name) {
            let rule = "must match the name of an entry in `spec.resourceClaims`";
            faults.invalid(claim.path("name"), name, rule);
        }
        if !seen.insert(name.to_owned()) {
            faults.duplicate(claim.path("name"), name);
        }
        if let Some(own) = claim.at("resourceClaimName").as_str() {
            let path = claim.path("resourceClaimName");
            rules(faults, path, own, naming::dns1123_subdomain(own));
        }
    }
}

fn validate_user(container: &Spot<'_>, pod: &Value, faults: &mut Faults) {
    let Some(user) = container.some("user.linux") else {
        return;
    };
    if pod.text("spec.os.name") == "windows" {
        return faults.forbidden(user.path, "cannot be set for a windows pod");
    }
    let most = i64::from(i32::MAX);
    let mut check = |path: Path, number: i64| {
        rules(faults, path, number, naming::in_range(number, 0, most));
    };
    check(user.path("uid"), user.int("uid"));
    check(user.path("gid"), user.int("gid"));
    for group in user.items("supplementalGroups") {
        check(group.path.clone(), group.as_i64().unwrap_or(0));
    }
}

/// Containers that have ended for good stay ended.
fn validate_ends(pod: &Value, old: &Value, (list, specs): (&str, &str), faults: &mut Faults) {
    let all = ["spec.containers", "spec.initContainers"];
    let mut all = all.iter().flat_map(|list| old.list(list));
    let mut rules = all.by_ref().flat_map(|one| one.list("restartPolicyRules"));
    if !specs.is_empty() && rules.any(|rule| rule.text("action") == "RestartAllContainers") {
        return;
    }
    let path = Spot::new(pod, "status").path(list);
    let now = pod.at("status").list(list);
    for (index, status) in old.at("status").list(list).iter().enumerate() {
        let ended = status.at("state.terminated");
        let name = status.text("name");
        let mut same_name = now.iter().filter(|one| one.text("name") == name);
        let revived = same_name.any(|one| !one.has("state.terminated"));
        if ended.is_null() || !revived {
            continue;
        }
        let mut own = if specs.is_empty() {
            [].iter()
        } else {
            old.list(specs).iter()
        };
        let own = own.find(|one| one.text("name") == name);
        if !own.is_some_and(|own| restarts(own, old, ended.int("exitCode"))) {
            let rule = "may not be transitioned to non-terminated state";
            faults.forbidden(format!("{path}[{index}].state"), rule);
        }
    }
}

/// Whether a container that ended so is started again.
fn restarts(container: &Value, pod: &Value, code: i64) -> bool {
    let says = |rule: &Value| {
        let codes = rule.at("exitCodes");
        let listed = codes
            .list("values")
            .iter()
            .any(|one| one.as_i64() == Some(code));
        match codes.text("operator") {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    };
    let mut rules = container.list("restartPolicyRules").iter();
    if let Some(rule) = rules.find(|rule| says(rule)) {
        return rule.text("action") == "Restart";
    }
    let own = container.at("restartPolicy").as_str();
    match own.unwrap_or(pod.text("spec.restartPolicy")) {
        "OnFailure" => code != 0,
        "Never" => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(spec: Value, before: Value, now: Value, expected: &[&str]) {
        let old = json!({"spec": spec, "status": before});
        let new = json!({"spec": spec, "status": now});
        let mut faults = Faults::new();
        validate_status(&new, &old, &mut faults);
        let found: Vec<_> = faults.0.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_has_ended_stays_ended() {
        let state = |list: &str, state: Value| json!({ list: [{"name": "c", "state": state}] });
        let ended = |code: i64| json!({"terminated": {"exitCode": code}});
        let try_again = |spec: Value, list: &str, code: i64, expected: &[&str]| {
            let running = json!({"running": {}});
            check(
                spec,
                state(list, ended(code)),
                state(list, running),
                expected,
            );
        };
        let main = |policy: &str, own: Value| {
            let mut container = json!({"name": "c"});
            container
                .as_object_mut()
                .unwrap()
                .extend(own.as_object().unwrap().clone());
            json!({"restartPolicy": policy, "containers": [container]})
        };
        let refused = [
            "status.containerStatuses[0].state: Forbidden: may not be transitioned to \
              non-terminated state",
        ];
        let list = "containerStatuses";
        try_again(main("Always", json!({})), list, 0, &[]);
        try_again(main("Never", json!({})), list, 1, &refused);
        try_again(main("OnFailure", json!({})), list, 0, &refused);
        try_again(main("OnFailure", json!({})), list, 1, &[]);
        try_again(
            main("Never", json!({"restartPolicy": "OnFailure"})),
            list,
            1,
            &[],
        );
        try_again(
            main("Always", json!({"restartPolicy": "Never"})),
            list,
            1,
            &refused,
        );
        let rule = |action: &str| {
            json!({"restartPolicy": "Never", "restartPolicyRules": [
                {"action": action, "exitCodes": {"operator": "In", "values": [42]}}]})
        };
        try_again(main("Never", rule("Restart")), list, 42, &[]);
        try_again(main("Never", rule("Restart")), list, 1, &refused);
        try_again(main("Never", rule("RestartAllContainers")), list, 1, &[]);
        let sidecar = json!({"restartPolicy": "Never",
            "initContainers": [{"name": "c", "restartPolicy": "Always"}]});
        try_again(sidecar, "initContainerStatuses", 0, &[]);
        let refused = [
            "status.ephemeralContainerStatuses[0].state: Forbidden: may not be \
                        transitioned to non-terminated state",
        ];
        let list = "ephemeralContainerStatuses";
        try_again(main("Always", json!({})), list, 0, &refused);
    }

    #[test]
    fn a_status_says_what_can_be() {
        let none = json!({});
        check(
            none.clone(),
            none.clone(),
            json!({"observedGeneration": -1, "conditions": [{"type": "a b"}, {"type": "Ready"}]}),
            &[
                &format!(
                    "status.conditions[0].Type: Invalid value: \"a b\": {}",
                    naming::qualified_name("a b")[0]
                ),
                "status.observedGeneration: Invalid value: -1: must be a non-negative integer",
            ],
        );
        check(
            none.clone(),
            none.clone(),
            json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}],
                "hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.3"}]}),
            &[
                "status.podIPs: Invalid value: [{\"ip\":\"10.0.0.1\"},{\"ip\":\"10.0.0.2\"}]: may \
                 specify no more than one IP for each IP family",
                "status.hostIPs[0].ip: Invalid value: \"10.0.0.3\": must be equal to `hostIP`",
            ],
        );
        check(
            none.clone(),
            none,
            json!({"resourceClaimStatuses": [{"name": "x"}]}),
            &[
                "status.resourceClaimStatuses[0].name: Invalid value: \"x\": must match the name \
                 of an entry in `spec.resourceClaims`",
            ],
        );
    }
}
