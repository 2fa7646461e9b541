//! What decoding accepts, changes and refuses.

use schema::{builtin, check};
use serde_json::{Value, json};

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

fn checked(mut tree: Value) -> (Value, Vec<String>) {
    let ty = builtin("apps", "v1", "Deployment").unwrap();
    let unknown = check(ty, &mut tree).unwrap();
    (tree, unknown)
}

fn fault(spec: Value) -> String {
    let ty = builtin("apps", "v1", "Deployment").unwrap();
    check(ty, &mut deployment(spec)).unwrap_err().to_string()
}

#[test]
fn unknown_fields_are_pruned_and_named() {
    let (tree, unknown) = checked(deployment(json!({
        "foo": 1,
        "template": {"spec": {"containers": [{"name": "a"}, {"name": "b", "imagee": "x"}]}},
    })));
    assert_eq!(
        unknown,
        ["spec.foo", "spec.template.spec.containers[1].imagee"]
    );
    assert_eq!(tree.pointer("/spec/foo"), None);
    assert_eq!(
        tree.pointer("/spec/template/spec/containers/1/imagee"),
        None
    );
}

#[test]
fn wrong_types_are_worded_as_go_words_them() {
    assert_eq!(
        fault(json!({"replicas": "three"})),
        "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
    );
    assert_eq!(
        fault(json!({"replicas": 1.5})),
        "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32"
    );
    assert_eq!(
        fault(json!({"replicas": 3_000_000_000_u64})),
        "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32"
    );
    assert_eq!(
        fault(json!({"template": {"spec": {"containers": {"name": "a"}}}})),
        "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container"
    );
    assert_eq!(
        fault(json!({"template": {"metadata": {"labels": {"a": 1}}}})),
        "json: cannot unmarshal number into Go struct field ObjectMeta.spec.template.metadata.labels of type string"
    );
    assert_eq!(
        fault(json!("x")),
        "json: cannot unmarshal string into Go struct field Deployment.spec of type v1.DeploymentSpec"
    );
    let ty = builtin("apps", "v1", "Deployment").unwrap();
    assert_eq!(
        check(ty, &mut json!([])).unwrap_err().to_string(),
        "json: cannot unmarshal array into Go value of type v1.Deployment"
    );
}

#[test]
fn nulls_and_empty_values_go_and_pointers_stay() {
    let (tree, _) = checked(deployment(json!({
        "replicas": 0,
        "paused": false,
        "minReadySeconds": 0,
        "revisionHistoryLimit": null,
        "selector": null,
        "template": {"spec": {
            "hostNetwork": false,
            "volumes": [],
            "nodeSelector": {},
            "containers": [{"name": "a", "args": [], "env": null, "securityContext": {}, "stdin": false}],
        }},
    })));
    assert_eq!(
        tree["spec"],
        json!({
            "replicas": 0,
            "selector": null,
            "strategy": {},
            "template": {
                "metadata": {},
                "spec": {"containers": [{"name": "a", "resources": {}, "securityContext": {}}]},
            },
        })
    );
    assert_eq!(tree["status"], json!({}));
}

#[test]
fn quantities_are_canonical() {
    let (tree, _) = checked(deployment(json!({"template": {"spec": {"containers": [
        {"name": "a", "resources": {"limits": {"cpu": "0.1", "memory": "1024Mi", "x/y": 2}}},
    ]}}})));
    let limits = tree
        .pointer("/spec/template/spec/containers/0/resources/limits")
        .unwrap();
    assert_eq!(*limits, json!({"cpu": "100m", "memory": "1Gi", "x/y": "2"}));
    let wrong =
        json!({"template": {"spec": {"containers": [{"resources": {"limits": {"cpu": "1x"}}}]}}});
    assert!(fault(wrong).starts_with("quantities must match the regular expression"));
}

#[test]
fn numbers_may_be_whole_floats_and_int_or_string_is_either() {
    let (tree, _) = checked(deployment(json!({
        "replicas": 3.0,
        "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
    })));
    assert_eq!(tree["spec"]["replicas"], json!(3));
    assert_eq!(
        tree["spec"]["strategy"]["rollingUpdate"],
        json!({"maxSurge": "25%", "maxUnavailable": 1})
    );
    assert!(
        fault(json!({"strategy": {"rollingUpdate": {"maxSurge": true}}}))
            .contains("cannot unmarshal bool")
    );
}

#[test]
fn times_are_brought_to_utc_and_to_their_precision() {
    let ty = builtin("coordination.k8s.io", "v1", "Lease").unwrap();
    let mut lease = json!({
        "metadata": {"name": "a", "creationTimestamp": "2026-01-31T14:00:00.5+02:00"},
        "spec": {"renewTime": "2026-01-31T12:00:00.1234567Z"},
    });
    check(ty, &mut lease).unwrap();
    assert_eq!(
        lease["metadata"]["creationTimestamp"],
        "2026-01-31T12:00:00Z"
    );
    assert_eq!(lease["spec"]["renewTime"], "2026-01-31T12:00:00.123456Z");
    let mut lease = json!({"metadata": {"creationTimestamp": "yesterday"}});
    assert_eq!(
        check(ty, &mut lease).unwrap_err().to_string(),
        "parsing time \"yesterday\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"yesterday\" as \"2006\""
    );
}

#[test]
fn bytes_must_be_base64() {
    let ty = builtin("", "v1", "Secret").unwrap();
    let mut secret = json!({"data": {"a": "aGk=", "b": null, "c": "aG\nk="}});
    check(ty, &mut secret).unwrap();
    assert_eq!(secret["data"], json!({"a": "aGk=", "b": "", "c": "aGk="}));
    let mut secret = json!({"data": {"a": "a*"}});
    assert_eq!(
        check(ty, &mut secret).unwrap_err().to_string(),
        "illegal base64 data at input byte 1"
    );
}

#[test]
fn schemas_in_definitions_may_be_schema_or_bool_or_list() {
    let ty = builtin("apiextensions.k8s.io", "v1", "CustomResourceDefinition").unwrap();
    let schema = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {"a": {"type": "array", "items": {"type": "string", "x-kubernetes-int-or-string": true}}},
        "default": {"any": ["thing", 1, null]},
    });
    let mut tree =
        json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]}});
    assert_eq!(check(ty, &mut tree).unwrap(), Vec::<String>::new());
    assert_eq!(
        tree["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["additionalProperties"],
        json!(false)
    );
}

#[test]
fn a_checked_tree_is_left_alone() {
    let (once, _) = checked(deployment(json!({
        "replicas": 0,
        "template": {"spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": "0.5"}}}]}},
    })));
    assert_eq!(checked(once.clone()), (once, Vec::new()));
}
