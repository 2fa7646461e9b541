//! What a node's conditions, silence and taints call for. Pure.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// A node that was heard of and then kept silent for this long is unknown.
pub(super) const GRACE: Duration = Duration::from_secs(50);
/// The same for a node whose kubelet has never posted a status.
pub(super) const STARTUP_GRACE: Duration = Duration::from_secs(60);

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Condition types that mean trouble when true, and their taints.
const TROUBLES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    (
        "NetworkUnavailable",
        "node.kubernetes.io/network-unavailable",
    ),
];
/// Conditions that a kubelet posts; without it they are unknown.
const POSTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// `status` of condition `Ready`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Readiness {
    /// Never posted.
    Absent,
    True,
    False,
    Unknown,
}

/// What one look at a node calls for.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Conditions to write; empty when they stand.
    pub conditions: Vec<NodeCondition>,
    /// All taints as they should be; `None` when they are.
    pub taints: Option<Vec<Taint>>,
    /// The taints begin to drive pods away, which happens to few nodes at a time.
    pub begins_eviction: bool,
    /// The node may fall silent after this long.
    pub again_in: Option<Duration>,
}

/// What a node's condition `Ready` says.
pub(super) fn readiness(node: &Node) -> Readiness {
    readiness_in(conditions(node))
}

fn readiness_in(conditions: &[NodeCondition]) -> Readiness {
    match status_of(conditions, "Ready") {
        None => Readiness::Absent,
        Some("True") => Readiness::True,
        Some("False") => Readiness::False,
        Some(_) => Readiness::Unknown,
    }
}

fn conditions(node: &Node) -> &[NodeCondition] {
    let status = node.status.as_ref();
    status
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default()
}

fn status_of<'a>(conditions: &'a [NodeCondition], kind: &str) -> Option<&'a str> {
    let found = conditions.iter().find(|one| one.type_ == kind)?;
    Some(&found.status)
}

/// Judges a node that was last heard of `silence` ago. Pods are driven away only when `evict`;
/// when not, taints that do are lifted.
pub(super) fn plan(node: &Node, silence: Duration, evict: bool, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let grace = match readiness(node) {
        Readiness::Absent => STARTUP_GRACE,
        _ => GRACE,
    };
    if silence < grace {
        plan.again_in = Some(grace - silence);
    } else {
        plan.conditions = fallen_silent(node, now);
    }
    let mut after = conditions(node).to_vec();
    after.retain(|old| plan.conditions.iter().all(|new| new.type_ != old.type_));
    after.extend(plan.conditions.iter().cloned());
    let known = node.spec.as_ref().and_then(|spec| spec.taints.as_deref());
    let known = known.unwrap_or_default();
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    let wanted = wanted_taints(&after, cordoned, evict, known);
    let driving = |taints: &[Taint]| taints.iter().any(|taint| ours(taint) && executes(taint));
    plan.begins_eviction = driving(&wanted) && !driving(known);
    let next = merged(known, &wanted, now);
    if next != known {
        plan.taints = Some(next);
    }
    plan
}

/// The same taints without those that drive pods away.
pub(super) fn without_eviction(taints: &[Taint]) -> Vec<Taint> {
    let stays = |taint: &&Taint| !(ours(taint) && executes(taint));
    taints.iter().filter(stays).cloned().collect()
}

fn fallen_silent(node: &Node, now: Timestamp) -> Vec<NodeCondition> {
    let mut changed = Vec::new();
    for kind in POSTED {
        let known = conditions(node).iter().find(|one| one.type_ == kind);
        if known.is_some_and(|known| known.status == "Unknown") {
            continue;
        }
        let (reason, message) = match known {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => (
                "NodeStatusNeverUpdated",
                "Kubelet never posted node status.",
            ),
        };
        let heartbeat = known.map_or(node.metadata.creation_timestamp.clone(), |known| {
            known.last_heartbeat_time.clone()
        });
        changed.push(NodeCondition {
            type_: kind.into(),
            status: "Unknown".into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_heartbeat_time: heartbeat,
            last_transition_time: Some(Time(now)),
        });
    }
    changed
}

fn executes(taint: &Taint) -> bool {
    taint.effect == "NoExecute"
}

/// Whether this controller sets and lifts the taint.
fn ours(taint: &Taint) -> bool {
    let key = taint.key.as_str();
    match taint.effect.as_str() {
        "NoExecute" => [NOT_READY, UNREACHABLE].contains(&key),
        "NoSchedule" => {
            [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key)
                || TROUBLES.iter().any(|(_, trouble)| *trouble == key)
        }
        _ => false,
    }
}

fn wanted_taints(
    conditions: &[NodeCondition],
    cordoned: bool,
    evict: bool,
    known: &[Taint],
) -> Vec<Taint> {
    let taint = |key: &str, effect: &str| Taint {
        key: key.into(),
        effect: effect.into(),
        ..Taint::default()
    };
    let mut wanted = Vec::new();
    match readiness_in(conditions) {
        Readiness::True => {}
        Readiness::False => {
            wanted.push(taint(NOT_READY, "NoSchedule"));
            wanted.extend(evict.then(|| taint(NOT_READY, "NoExecute")));
        }
        Readiness::Unknown => {
            wanted.push(taint(UNREACHABLE, "NoSchedule"));
            wanted.extend(evict.then(|| taint(UNREACHABLE, "NoExecute")));
        }
        // Admission taints new nodes; that stands until a kubelet has spoken.
        Readiness::Absent => {
            let fresh = |one: &&Taint| one.key == NOT_READY && one.effect == "NoSchedule";
            wanted.extend(known.iter().find(fresh).cloned());
        }
    }
    for (kind, key) in TROUBLES {
        if status_of(conditions, kind) == Some("True") {
            wanted.push(taint(key, "NoSchedule"));
        }
    }
    if cordoned {
        wanted.push(taint(UNSCHEDULABLE, "NoSchedule"));
    }
    wanted
}

/// Known taints of ours that are not wanted go, wanted ones that are not known come; all others
/// stay as they are.
fn merged(known: &[Taint], wanted: &[Taint], now: Timestamp) -> Vec<Taint> {
    let same = |one: &Taint, other: &Taint| one.key == other.key && one.effect == other.effect;
    let stays = |taint: &&Taint| !ours(taint) || wanted.iter().any(|one| same(one, taint));
    let mut next: Vec<Taint> = known.iter().filter(stays).cloned().collect();
    for taint in wanted {
        if !next.iter().any(|one| same(one, taint)) {
            next.push(Taint {
                time_added: Some(Time(now)),
                ..taint.clone()
            });
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const FRESH: Duration = Duration::from_secs(5);
    const STALE: Duration = Duration::from_secs(70);

    fn node(ready: Value, taints: Value) -> Node {
        let conditions = match ready {
            Value::Null => json!([]),
            ready => json!([{"type": "Ready", "status": ready},
                {"type": "DiskPressure", "status": "False"}]),
        };
        serde_json::from_value(
            json!({"metadata": {"name": "n"}, "spec": {"taints": taints},
            "status": {"conditions": conditions}}),
        )
        .unwrap()
    }

    fn taints(plan: &Plan) -> Vec<String> {
        let taints = plan.taints.as_deref().unwrap_or_default();
        let short = |taint: &Taint| {
            let key = taint.key.trim_start_matches("node.kubernetes.io/");
            format!("{key}:{}", taint.effect)
        };
        taints.iter().map(short).collect()
    }

    fn look(node: &Node, silence: Duration) -> Plan {
        plan(node, silence, true, Timestamp::now())
    }

    #[test]
    fn a_ready_node_loses_the_taint_of_its_birth() {
        let birth = json!([{"key": NOT_READY, "effect": "NoSchedule"},
            {"key": "team", "effect": "NoSchedule", "value": "a"}]);
        assert_eq!(
            taints(&look(&node(json!("True"), birth.clone()), FRESH)),
            ["team:NoSchedule"]
        );
        let unposted = look(&node(Value::Null, birth), FRESH);
        assert_eq!(unposted.taints, None);
        assert_eq!(unposted.again_in, Some(STARTUP_GRACE - FRESH));
    }

    #[test]
    fn an_unready_node_drives_pods_away() {
        let plan = look(&node(json!("False"), json!([])), FRESH);
        assert_eq!(
            taints(&plan),
            ["not-ready:NoSchedule", "not-ready:NoExecute"]
        );
        assert!(plan.begins_eviction && plan.conditions.is_empty());
        let settled = node(json!("False"), json!(plan.taints));
        assert_eq!(look(&settled, FRESH).taints, None);
    }

    #[test]
    fn a_silent_node_is_unknown_and_unreachable() {
        let known = json!([{"key": NOT_READY, "effect": "NoExecute"}]);
        let plan = look(&node(json!("True"), known), STALE);
        assert_eq!(
            taints(&plan),
            ["unreachable:NoSchedule", "unreachable:NoExecute"]
        );
        assert!(!plan.begins_eviction, "it had begun");
        let reasons: Vec<_> = plan
            .conditions
            .iter()
            .map(|one| (one.type_.as_str(), one.reason.as_deref().unwrap()))
            .collect();
        assert_eq!(
            reasons,
            [
                ("Ready", "NodeStatusUnknown"),
                ("MemoryPressure", "NodeStatusNeverUpdated"),
                ("DiskPressure", "NodeStatusUnknown"),
                ("PIDPressure", "NodeStatusNeverUpdated")
            ]
        );
        assert_eq!(plan.again_in, None);
    }

    #[test]
    fn nobody_is_driven_away_when_all_are_down() {
        let known = json!([{"key": UNREACHABLE, "effect": "NoExecute"},
            {"key": UNREACHABLE, "effect": "NoSchedule"}]);
        let plan = plan(
            &node(json!("Unknown"), known),
            STALE,
            false,
            Timestamp::now(),
        );
        assert_eq!(taints(&plan), ["unreachable:NoSchedule"]);
    }

    #[test]
    fn cordons_and_troubles_are_taints() {
        let mut node = node(json!("True"), json!([]));
        node.spec.as_mut().unwrap().unschedulable = Some(true);
        let conditions = node.status.as_mut().unwrap().conditions.as_mut().unwrap();
        conditions[1].status = "True".into();
        assert_eq!(
            taints(&look(&node, FRESH)),
            ["disk-pressure:NoSchedule", "unschedulable:NoSchedule"]
        );
    }
}
