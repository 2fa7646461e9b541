//! Validating and mutating admission policies.

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{CONFIG_MAPS, Cluster, config_map};

pub(crate) const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn rules(group: &str, resource: &str) -> Value {
    json!({"resourceRules": [{"apiGroups": [group], "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"], "resources": [resource]}]})
}

fn deployment(name: &str, replicas: i64) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "x"}},
            "template": {"metadata": {"labels": {"app": "x"}},
                "spec": {"containers": [{"name": "main", "image": "example.com/app:1"}]}}}})
}

/// Creates a policy and a binding of the same name.
pub(crate) async fn policy(cluster: &Cluster, kind: &str, name: &str, spec: Value, binding: Value) {
    let policy = json!({"metadata": {"name": name}, "spec": spec});
    cluster
        .post(&format!("{GROUP}/{kind}policies"), policy)
        .await
        .unwrap();
    let mut binding = json!({"metadata": {"name": name}, "spec": binding});
    binding["spec"]["policyName"] = name.into();
    cluster
        .post(&format!("{GROUP}/{kind}policybindings"), binding)
        .await
        .unwrap();
}

async fn validating(cluster: &Cluster, name: &str, spec: Value) {
    let actions = json!({"validationActions": ["Deny"]});
    policy(cluster, "validatingadmission", name, spec, actions).await;
}

async fn mutating(cluster: &Cluster, name: &str, spec: Value) {
    policy(cluster, "mutatingadmission", name, spec, json!({})).await;
}

#[tokio::test]
async fn a_validation_refuses_with_its_message() {
    let cluster = Cluster::start().await;
    let spec = json!({"matchConstraints": rules("apps", "deployments"),
        "variables": [{"name": "replicas", "expression": "object.spec.replicas"},
            {"name": "odd", "expression": "variables.replicas % 2 == 1"}],
        "validations": [
            {"expression": "variables.replicas > 1",
                "messageExpression": "'wants more than 1, got ' + string(variables.replicas)"},
            {"expression": "variables.odd", "message": "must be odd", "reason": "Forbidden"},
            {"expression": "namespaceObject.metadata.name == 'default'"},
            {"expression": "request.operation == 'CREATE' && request.userInfo.username == 'admin'"},
            {"expression": "authorizer.group('').resource('pods').namespace('x').check('get').allowed()"}]});
    validating(&cluster, "replicas", spec).await;
    let few = cluster
        .post(DEPLOYMENTS, deployment("a", 1))
        .await
        .unwrap_err();
    let text = "ValidatingAdmissionPolicy 'replicas' with binding 'replicas' denied request: wants more than 1, got 1";
    assert_eq!(
        few.message,
        format!("deployments.apps \"a\" is forbidden: {text}")
    );
    assert_eq!((few.code, few.reason), (422, meta::Reason::Invalid));
    assert_eq!(few.causes[0].message, text);
    let even = cluster
        .post(DEPLOYMENTS, deployment("a", 2))
        .await
        .unwrap_err();
    assert_eq!(even.code, 403, "{}", even.message);
    assert!(
        even.message.ends_with("denied request: must be odd"),
        "{}",
        even.message
    );
    cluster.post(DEPLOYMENTS, deployment("a", 3)).await.unwrap();
    let (_, page) = crate::wire::text(&cluster, "/metrics", &[]).await;
    let counted = "apiserver_validating_admission_policy_check_total{policy=\"replicas\",\
                   policy_binding=\"replicas\",error_type=\"no_error\",\
                   enforcement_action=\"deny\"} 2";
    assert!(page.contains(counted), "{page}");
    // Other kinds, and writes after the policy is gone, pass.
    cluster
        .post(CONFIG_MAPS, config_map("a", "b"))
        .await
        .unwrap();
    let path = format!("{GROUP}/validatingadmissionpolicies/replicas");
    cluster
        .client
        .send_value(Method::DELETE, &path, &json!({}))
        .await
        .unwrap();
    cluster.post(DEPLOYMENTS, deployment("b", 1)).await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn faults_refuse_unless_ignored() {
    let cluster = Cluster::start().await;
    let mut spec = json!({"matchConstraints": rules("", "configmaps"),
        "matchConditions": [{"name": "not-b", "expression": "object.metadata.name != 'b'"}],
        "validations": [{"expression": "object.data.missing == 'x'"}]});
    validating(&cluster, "strict", spec.clone()).await;
    let refused = cluster
        .post(CONFIG_MAPS, config_map("a", "v"))
        .await
        .unwrap_err();
    let text = "expression 'object.data.missing == 'x'' resulted in error: no such key: missing";
    assert!(refused.message.ends_with(text), "{}", refused.message);
    cluster
        .post(CONFIG_MAPS, config_map("b", "v"))
        .await
        .unwrap();
    spec["failurePolicy"] = "Ignore".into();
    let path = format!("{GROUP}/validatingadmissionpolicies/strict");
    let mut stored = cluster.get(&path).await.unwrap();
    stored["spec"] = spec;
    cluster.put(&path, &stored).await.unwrap();
    cluster
        .post(CONFIG_MAPS, config_map("a", "v"))
        .await
        .unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn parameters_are_objects() {
    let cluster = Cluster::start().await;
    let spec = json!({"matchConstraints": rules("apps", "deployments"),
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "validations": [{"expression": "object.spec.replicas <= int(params.data.key)"}]});
    let binding = json!({"validationActions": ["Deny"],
        "paramRef": {"name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny"}});
    policy(&cluster, "validatingadmission", "limit", spec, binding).await;
    let refused = cluster
        .post(DEPLOYMENTS, deployment("a", 9))
        .await
        .unwrap_err();
    let text = "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    assert!(refused.message.ends_with(text), "{}", refused.message);
    cluster
        .post(CONFIG_MAPS, config_map("limits", "5"))
        .await
        .unwrap();
    let refused = cluster
        .post(DEPLOYMENTS, deployment("a", 9))
        .await
        .unwrap_err();
    let text = "failed expression: object.spec.replicas <= int(params.data.key)";
    assert!(refused.message.ends_with(text), "{}", refused.message);
    cluster.post(DEPLOYMENTS, deployment("a", 5)).await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn mutations_merge_and_patch() {
    let cluster = Cluster::start().await;
    let apply = json!({"matchConstraints": rules("apps", "deployments"), "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{metadata: Object.metadata{annotations: {\"mutated-by\": \"policy\"}}, \
             spec: Object.spec{replicas: object.spec.replicas + 1, template: Object.spec.template{\
             spec: Object.spec.template.spec{containers: [Object.spec.template.spec.containers{\
             name: 'side', image: 'example.com/side:1'}]}}}}"}}]});
    mutating(&cluster, "apply", apply).await;
    let patch = json!({"matchConstraints": rules("", "configmaps"), "reinvocationPolicy": "IfNeeded",
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression":
            "[JSONPatch{op: 'test', path: '/metadata/name', value: 'a'}, \
             JSONPatch{op: 'add', path: '/metadata/annotations', value: {}}, \
             JSONPatch{op: 'add', path: '/metadata/annotations/' + jsonpatch.escapeKey('x/y'), value: 'z'}]"}}]});
    mutating(&cluster, "patch", patch).await;
    let made = cluster.post(DEPLOYMENTS, deployment("a", 3)).await.unwrap();
    assert_eq!(
        made["metadata"]["annotations"]["mutated-by"], "policy",
        "{made}"
    );
    assert_eq!(made["spec"]["replicas"], 4);
    assert_eq!(
        made["spec"]["template"]["spec"]["containers"][1]["name"],
        "side"
    );
    assert_eq!(
        made["spec"]["template"]["spec"]["containers"][0]["name"],
        "main"
    );
    let made = cluster
        .post(CONFIG_MAPS, config_map("a", "v"))
        .await
        .unwrap();
    assert_eq!(made["metadata"]["annotations"], json!({"x/y": "z"}));
    // A test that does not hold changes nothing.
    let made = cluster
        .post(CONFIG_MAPS, config_map("b", "v"))
        .await
        .unwrap();
    assert_eq!(made["metadata"].get("annotations"), None);
    cluster.stop().await;
}

#[tokio::test]
async fn expressions_are_checked_against_kinds() {
    let cluster = Cluster::start().await;
    let policies = format!("{GROUP}/validatingadmissionpolicies");
    let path = format!("{policies}?watch=1&resourceVersion=0");
    let request = client::request::request(Method::GET, &path, None, client::empty()).unwrap();
    let body = cluster.client.send(request).await.unwrap().into_body();
    let mut watch = client::Watch::<Value>::new(body);
    let spec = json!({"matchConstraints": rules("apps", "deployments"), "validations": [
        {"expression": "object.spec.replicas > '1'",
            "messageExpression": "'wants replicas > 1, got ' + object.spec.replicas"},
        {"expression": "object.spec.replicas > 1 && object.metadata.name != ''"},
        {"expression": "object.spec.maxRetries < 10"}]});
    let policy = json!({"metadata": {"name": "confused"}, "spec": spec});
    cluster.post(&policies, policy).await.unwrap();
    let checked = async {
        loop {
            let event = watch.next().await.unwrap().unwrap();
            if let client::WatchEvent::Modified(policy) = event
                && policy["status"].get("typeChecking").is_some()
            {
                return policy;
            }
        }
    };
    let policy = tokio::time::timeout(std::time::Duration::from_secs(10), checked)
        .await
        .unwrap();
    assert_eq!(policy["status"]["observedGeneration"], 1);
    let warnings = policy["status"]["typeChecking"]["expressionWarnings"]
        .as_array()
        .unwrap();
    let expected = [
        (
            "spec.validations[0].expression",
            "found no matching overload for '_>_' applied to '(int, string)'",
        ),
        (
            "spec.validations[0].messageExpression",
            "found no matching overload for '_+_' applied to '(string, int)'",
        ),
        (
            "spec.validations[2].expression",
            "undefined field 'maxRetries'",
        ),
    ];
    assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
    for (warning, (field, text)) in warnings.iter().zip(expected) {
        assert_eq!(warning["fieldRef"], field);
        let said = warning["warning"].as_str().unwrap();
        assert!(
            said.starts_with("apps/v1, Kind=Deployment: ") && said.contains(text),
            "{said}"
        );
    }
    cluster.stop().await;
}

#[tokio::test]
async fn expressions_must_compile() {
    let cluster = Cluster::start().await;
    let policies = format!("{GROUP}/validatingadmissionpolicies");
    let mut spec = json!({"matchConstraints": rules("apps", "deployments"),
        "validations": [{"expression": "object.spec.replicas"}, {"expression": "nope > 1"}]});
    let policy = json!({"metadata": {"name": "broken"}, "spec": spec});
    let refused = cluster.post(&policies, policy).await.unwrap_err();
    assert_eq!(refused.code, 422);
    let fields: Vec<&str> = refused
        .causes
        .iter()
        .map(|cause| cause.field.as_str())
        .collect();
    assert_eq!(
        fields,
        [
            "spec.validations[0].expression",
            "spec.validations[1].expression"
        ]
    );
    assert!(
        refused.causes[0]
            .message
            .ends_with("must evaluate to bool but got dyn"),
        "{refused:?}"
    );
    let text =
        "compilation failed: ERROR: <input>:1:1: undeclared reference to 'nope' (in container '')";
    assert!(refused.causes[1].message.contains(text), "{refused:?}");
    spec["validations"] = json!([{"expression": "object.spec.replicas > 1"}]);
    let policy = json!({"metadata": {"name": "whole"}, "spec": spec});
    let made = cluster.post(&policies, policy).await.unwrap();
    assert_eq!(made["spec"]["failurePolicy"], "Fail");
    assert_eq!(
        made["spec"]["matchConstraints"]["matchPolicy"],
        "Equivalent"
    );
    cluster.stop().await;
}
