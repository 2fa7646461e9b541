//! Tables of what a StatefulSet does next.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::identity;
use super::plan::{Plan, Revisions, Step, plan};

const NOW: &str = "2026-01-01T00:01:00Z";

fn set(spec: Value) -> StatefulSet {
    let mut tree = json!({
        "metadata": {"name": "db", "namespace": "default", "uid": "u1", "generation": 2},
        "spec": {"replicas": 3, "serviceName": "db", "podManagementPolicy": "OrderedReady",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}},
                "spec": {"containers": [], "volumes": [{"name": "data", "emptyDir": {}}]}}}
    });
    for (key, value) in spec.as_object().unwrap() {
        tree["spec"][key] = value.clone();
    }
    serde_json::from_value(tree).unwrap()
}

/// `name state revision`: state is ready, broken, pending, failed or leaving.
fn pod(text: &str) -> Arc<Pod> {
    let words: Vec<_> = text.split(' ').collect();
    let (name, state, revision) = (words[0], words[1], words[2]);
    let phase = match state {
        "pending" => "Pending",
        "failed" => "Failed",
        _ => "Running",
    };
    let ready = if state == "ready" || state == "leaving" {
        "True"
    } else {
        "False"
    };
    let mut tree = json!({
        "metadata": {"name": name, "labels": {"controller-revision-hash": revision,
            "statefulset.kubernetes.io/pod-name": name,
            "apps.kubernetes.io/pod-index": name.rsplit('-').next()}},
        "status": {"phase": phase, "conditions": [
            {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
    });
    if state == "leaving" {
        tree["metadata"]["deletionTimestamp"] = json!(NOW);
    }
    Arc::new(serde_json::from_value(tree).unwrap())
}

fn planned(spec: Value, pods: &[&str]) -> Plan {
    let pods: Vec<_> = pods.iter().map(|text| pod(text)).collect();
    let revisions = Revisions {
        current: "db-old",
        update: "db-new",
        collisions: Some(0),
    };
    plan(
        &set(spec),
        revisions,
        &pods,
        NOW.parse::<Timestamp>().unwrap(),
    )
}

fn check(spec: Value, pods: &[&str], expected: &[&str]) {
    let plan = planned(spec, pods);
    let name = |pod: &Pod| pod.metadata.name.clone().unwrap();
    let steps: Vec<_> = plan
        .steps
        .iter()
        .map(|step| match step {
            Step::Create { ordinal, is_update } => {
                format!(
                    "create {ordinal} {}",
                    if *is_update { "new" } else { "old" }
                )
            }
            Step::Recreate(pod) => format!("recreate {}", name(pod)),
            Step::Delete(pod) => format!("delete {}", name(pod)),
            Step::Claims { ordinal } => format!("claims {ordinal}"),
            Step::Identify { ordinal, .. } => format!("identify {ordinal}"),
        })
        .collect();
    assert_eq!(steps, expected, "{pods:?}");
}

#[test]
fn ordered_pods_come_one_by_one() {
    check(json!({}), &[], &["create 0 new"]);
    check(json!({}), &["db-0 pending db-new"], &["claims 0"]);
    check(json!({}), &["db-0 broken db-new"], &[]);
    check(json!({}), &["db-0 ready db-new"], &["create 1 new"]);
    check(json!({}), &["db-1 ready db-new"], &["create 0 new"]);
    check(
        json!({}),
        &["db-0 failed db-new", "db-1 ready db-new"],
        &["recreate db-0"],
    );
}

#[test]
fn parallel_pods_come_and_go_together() {
    let parallel = |replicas: i32| json!({"podManagementPolicy": "Parallel", "replicas": replicas});
    check(parallel(2), &[], &["create 0 new", "create 1 new"]);
    check(
        parallel(1),
        &[
            "db-0 ready db-new",
            "db-1 broken db-new",
            "db-2 ready db-new",
        ],
        &["delete db-2", "delete db-1"],
    );
}

#[test]
fn ordinals_may_start_elsewhere() {
    let spec = json!({"ordinals": {"start": 5}, "replicas": 2});
    check(spec.clone(), &[], &["create 5 new"]);
    check(
        spec,
        &[
            "db-5 ready db-new",
            "db-6 ready db-new",
            "db-0 ready db-new",
        ],
        &["delete db-0"],
    );
}

#[test]
fn surplus_goes_from_the_top_and_waits_for_each() {
    let spec = || json!({"replicas": 1});
    let ready = [
        "db-0 ready db-new",
        "db-1 ready db-new",
        "db-2 ready db-new",
    ];
    check(spec(), &ready, &["delete db-2"]);
    check(
        spec(),
        &[
            "db-0 ready db-new",
            "db-1 ready db-new",
            "db-2 leaving db-new",
        ],
        &[],
    );
    check(
        spec(),
        &[
            "db-0 ready db-new",
            "db-1 broken db-new",
            "db-2 ready db-new",
        ],
        &["delete db-2"],
    );
    check(spec(), &["db-0 broken db-new", "db-1 ready db-new"], &[]);
}

#[test]
fn a_rollout_goes_down_to_the_partition() {
    let old = [
        "db-0 ready db-old",
        "db-1 ready db-old",
        "db-2 ready db-old",
    ];
    check(json!({}), &old, &["delete db-2"]);
    check(
        json!({}),
        &["db-0 ready db-old", "db-1 ready db-old"],
        &["create 2 new"],
    );
    check(
        json!({}),
        &[
            "db-0 ready db-old",
            "db-1 ready db-old",
            "db-2 ready db-new",
        ],
        &["delete db-1"],
    );
    let partition =
        json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}});
    check(
        partition.clone(),
        &[
            "db-0 ready db-old",
            "db-1 ready db-old",
            "db-2 ready db-new",
        ],
        &[],
    );
    check(partition, &["db-1 ready db-old"], &["create 0 old"]);
    check(json!({"updateStrategy": {"type": "OnDelete"}}), &old, &[]);
    let two = json!({"updateStrategy": {"type": "RollingUpdate",
        "rollingUpdate": {"partition": 0, "maxUnavailable": 2}}});
    check(two, &old, &["delete db-2", "delete db-1"]);
}

#[test]
fn availability_holds_a_rollout_back() {
    let spec = json!({"minReadySeconds": 90, "replicas": 2});
    let plan = planned(spec, &["db-0 ready db-new"]);
    assert!(plan.steps.is_empty());
    assert_eq!(plan.again_in.unwrap().as_secs(), 30);
    let status = plan.status;
    assert_eq!(
        (status.ready_replicas, status.available_replicas),
        (Some(1), Some(0))
    );
}

#[test]
fn the_current_revision_follows_when_all_are_new() {
    let all = [
        "db-0 ready db-new",
        "db-1 ready db-new",
        "db-2 ready db-new",
    ];
    let status = planned(json!({}), &all).status;
    assert_eq!(status.current_revision.as_deref(), Some("db-new"));
    assert_eq!(
        (status.current_replicas, status.observed_generation),
        (Some(3), Some(2))
    );
    let status = planned(json!({}), &["db-0 ready db-old", "db-2 ready db-new"]).status;
    assert_eq!(status.current_revision.as_deref(), Some("db-old"));
    assert_eq!(
        (status.current_replicas, status.updated_replicas),
        (Some(1), Some(1))
    );
}

#[test]
fn a_pod_has_its_name_its_host_and_its_claims() {
    let set = set(json!({"volumeClaimTemplates": [
        {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]}));
    let template = set.spec.as_ref().unwrap().template.clone();
    let pod = serde_json::to_value(identity::build(&set, &template, "db-new", 1)).unwrap();
    assert_eq!(pod["metadata"]["name"], "db-1");
    assert_eq!(
        pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"],
        "1"
    );
    assert_eq!(pod["spec"]["hostname"], "db-1");
    assert_eq!(pod["spec"]["subdomain"], "db");
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    assert_eq!(volumes.len(), 1, "the claim replaces the template's volume");
    assert_eq!(
        volumes[0]["persistentVolumeClaim"]["claimName"],
        "data-db-1"
    );
    let (_, claim) = &identity::claims(&set, 1)[0];
    assert_eq!(claim.metadata.labels.as_ref().unwrap()["app"], "db");
    assert!(identity::claim_owners(&set, claim, None).is_empty());
}

#[test]
fn names_of_others_are_not_ours() {
    let set = set(json!({}));
    let ordinal = |name: &str| identity::ordinal_of(&set, &pod(&format!("{name} ready r")));
    assert_eq!(ordinal("db-12"), Some(12));
    assert_eq!(ordinal("db-x-1"), None);
    assert_eq!(ordinal("db-+1"), None);
    assert_eq!(ordinal("dba-1"), None);
}
