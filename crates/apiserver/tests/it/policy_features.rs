//! What policies can be told: whom they concern, with which parameters, and what then happens.

use std::sync::{Arc, Mutex};

use audit::{Audit, Backend, Sink};
use auth::Identity;
use base::Crew;
use client::full;
use http::Method;
use serde_json::{Value, json};

use crate::cluster::{CONFIG_MAPS, Cluster, PODS, config_map, pod};
use crate::conversion::{self, V1};
use crate::policies::{GROUP, policy};
use crate::webhooks::hooks::Hooks;

const VALIDATING: &str = "validatingadmission";
const MUTATING: &str = "mutatingadmission";

fn rules(operations: &[&str], resources: &[&str]) -> Value {
    json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": operations,
        "resources": resources}])
}

/// A policy about config maps, and what else its constraints say.
async fn validates(cluster: &Cluster, name: &str, expression: &str, more: Value, binding: Value) {
    let mut constraints = json!({"resourceRules": rules(&["*"], &["configmaps"])});
    for (field, value) in more.as_object().unwrap() {
        constraints[field] = value.clone();
    }
    let spec = json!({"matchConstraints": constraints,
        "validations": [{"expression": expression, "message": name}]});
    let mut whole = json!({"validationActions": ["Deny"]});
    for (field, value) in binding.as_object().unwrap() {
        whole[field] = value.clone();
    }
    policy(cluster, VALIDATING, name, spec, whole).await;
}

async fn mutates(cluster: &Cluster, name: &str, constraints: Value, patch: &str, again: bool) {
    let spec = json!({"matchConstraints": {"resourceRules": constraints},
        "reinvocationPolicy": if again { "IfNeeded" } else { "Never" },
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}]});
    policy(cluster, MUTATING, name, spec, json!({})).await;
}

/// Whether a config map is let pass; else by whom it is not.
async fn tried(cluster: &Cluster, name: &str, labels: Value) -> Result<(), String> {
    let mut body = config_map(name, "v");
    body["metadata"]["labels"] = labels;
    let path = format!("{CONFIG_MAPS}?dryRun=All");
    let said = cluster.post(&path, body).await.map(drop);
    said.map_err(|status| {
        let (_, why) = status.message.rsplit_once(": ").unwrap();
        why.to_owned()
    })
}

#[tokio::test]
async fn constraints_choose_by_name_label_and_namespace() {
    let cluster = Cluster::start().await;
    let named = |name: &str| {
        let mut rules = rules(&["CREATE"], &["configmaps"]);
        rules[0]["resourceNames"] = json!([name]);
        rules
    };
    let only = json!({"resourceRules": named("a")});
    validates(&cluster, "only-a", "false", only, json!({})).await;
    let but = json!({"excludeResourceRules": named("a"),
        "objectSelector": {"matchLabels": {"x": "y"}}});
    validates(&cluster, "labelled-but-a", "false", but, json!({})).await;
    let elsewhere = json!({"matchResources": {"namespaceSelector": {"matchLabels":
        {"kubernetes.io/metadata.name": "elsewhere"}}}});
    validates(&cluster, "elsewhere", "false", json!({}), elsewhere).await;
    let none = json!({});
    assert_eq!(
        tried(&cluster, "a", none.clone()).await.unwrap_err(),
        "only-a"
    );
    assert_eq!(tried(&cluster, "b", none.clone()).await, Ok(()));
    let labels = json!({"x": "y"});
    let refused = tried(&cluster, "b", labels.clone()).await.unwrap_err();
    assert_eq!(refused, "labelled-but-a");
    assert_eq!(tried(&cluster, "a", labels).await.unwrap_err(), "only-a");
    cluster
        .post(
            "/api/v1/namespaces",
            json!({"metadata": {"name": "elsewhere"}}),
        )
        .await
        .unwrap();
    let path = "/api/v1/namespaces/elsewhere/configmaps";
    let refused = cluster.post(path, config_map("b", "v")).await.unwrap_err();
    assert!(refused.message.ends_with(": elsewhere"), "{refused}");
    cluster.stop().await;
}

#[tokio::test]
async fn parameters_are_chosen_by_selector_and_namespace() {
    let cluster = Cluster::start().await;
    let kind = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    let spec = json!({"paramKind": kind, "matchConstraints":
        {"resourceRules": rules(&["CREATE"], &["secrets"])},
        "validations": [{"expression": "params == null || object.type != params.data.key",
            "messageExpression": "'not ' + params.data.key"}]});
    // Those of the object's own namespace, whichever bear the label.
    let binding = json!({"validationActions": ["Deny"], "paramRef": {
        "selector": {"matchLabels": {"rule": "yes"}}, "parameterNotFoundAction": "Allow"}});
    policy(&cluster, VALIDATING, "types", spec, binding).await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = |kind: &str| json!({"metadata": {"generateName": "s-"}, "type": kind});
    cluster.post(secrets, secret("one")).await.unwrap();
    for (name, word) in [("a", "one"), ("b", "two"), ("c", "three")] {
        let mut body = config_map(name, word);
        body["metadata"]["labels"] = json!({"rule": if name == "c" { "no" } else { "yes" }});
        cluster.post(CONFIG_MAPS, body).await.unwrap();
    }
    for (word, passes) in [("one", false), ("two", false), ("three", true)] {
        let said = cluster.post(secrets, secret(word)).await;
        match passes {
            true => drop(said.unwrap()),
            false => {
                let status = said.unwrap_err();
                assert!(status.message.ends_with(&format!("not {word}")), "{status}");
            }
        }
    }
    // Without a reference there are no parameters.
    let path = format!("{GROUP}/validatingadmissionpolicybindings/types");
    let mut binding = cluster.get(&path).await.unwrap();
    binding["spec"].as_object_mut().unwrap().remove("paramRef");
    cluster.put(&path, &binding).await.unwrap();
    cluster.post(secrets, secret("one")).await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn rules_see_the_version_that_they_name() {
    let (cluster, _hooks) = conversion::start("/convert").await;
    let rules = |version: &str| {
        json!([{"apiGroups": ["sea.example.com"], "apiVersions": [version],
            "operations": ["CREATE"], "resources": ["ports"]}])
    };
    let spec = json!({"matchConstraints": {"resourceRules": rules("v2")}, "validations": [
        {"expression": "object.port != '9'", "messageExpression":
            "request.kind.version + ' of ' + request.requestKind.version + ': ' + object.host"}]});
    policy(
        &cluster,
        VALIDATING,
        "no-nine",
        spec,
        json!({"validationActions": ["Deny"]}),
    )
    .await;
    let patch = "[JSONPatch{op: 'replace', path: '/host', value: object.host + '-' + object.port}]";
    mutates(&cluster, "long-host", rules("v2"), patch, false).await;
    let port = |name: &str, at: &str| conversion::port("v1", name, json!({"hostPort": at}));
    let made = cluster.post(V1, port("a", "here:1")).await.unwrap();
    assert_eq!(made["hostPort"], "here-1:1", "{made}");
    let refused = cluster.post(V1, port("b", "here:9")).await.unwrap_err();
    let text = "denied request: v2 of v1: here-9";
    assert!(refused.message.ends_with(text), "{refused}");
    // Exactly v1 is seen as it was written.
    let spec = json!({"matchConstraints": {"matchPolicy": "Exact", "resourceRules": rules("v1")},
        "validations": [{"expression": "!object.hostPort.startsWith('bad')"}]});
    policy(
        &cluster,
        VALIDATING,
        "exact",
        spec,
        json!({"validationActions": ["Deny"]}),
    )
    .await;
    assert!(cluster.post(V1, port("c", "bad:1")).await.is_err());
    cluster.stop().await;
}

#[tokio::test]
async fn a_change_by_a_webhook_is_for_those_who_wish_it() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(&cluster).await;
    let count = |field: &str| {
        format!(
            "[JSONPatch{{op: 'add', path: '/data/{field}', value: has(object.data.{field}) ? \
             string(int(object.data.{field}) + 1) : '1'}}]"
        )
    };
    let creations = rules(&["CREATE"], &["configmaps"]);
    mutates(&cluster, "again", creations.clone(), &count("again"), true).await;
    mutates(&cluster, "once", creations.clone(), &count("once"), false).await;
    let hook = hooks.hook("stage.example.com", "/stage-1", creations);
    let configuration = json!({"metadata": {"name": "a"}, "webhooks": [hook]});
    let path = format!("{GROUP}/mutatingwebhookconfigurations");
    cluster.post(&path, configuration).await.unwrap();
    let made = cluster
        .post(CONFIG_MAPS, config_map("a", "v"))
        .await
        .unwrap();
    assert_eq!(
        made["data"],
        json!({"key": "v", "again": "2", "once": "1", "stage-1": "yes"})
    );
    assert_eq!(hooks.calls("/stage-1"), 1);
    cluster.stop().await;
}

#[tokio::test]
async fn what_is_not_kept_is_seen_and_changed() {
    let cluster = Cluster::start().await;
    let account = json!({"metadata": {"name": "default"}});
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    cluster.post(accounts, account).await.unwrap();
    cluster.post(PODS, pod("a")).await.unwrap();
    let patch = "[JSONPatch{op: 'replace', path: '/target/name', value: 'n2'}]";
    let bindings = rules(&["CREATE"], &["pods/binding"]);
    mutates(&cluster, "elsewhere", bindings, patch, false).await;
    let validates = async |name: &str, resource: &str, expression: &str| {
        let spec = json!({"matchConstraints": {"resourceRules": rules(&["*"], &[resource])},
            "validations": [{"expression": expression}]});
        policy(
            &cluster,
            VALIDATING,
            name,
            spec,
            json!({"validationActions": ["Deny"]}),
        )
        .await;
    };
    let deny = "object.spec.audiences.all(one, one != 'x')";
    validates("audiences", "serviceaccounts/token", deny).await;
    let deny = "request.operation == 'CONNECT' && object.container != 'main'";
    validates("exec", "pods/exec", deny).await;
    validates("evictions", "pods/eviction", "object.metadata.name != 'a'").await;
    let scales = "request.kind.kind == 'Scale' && object.spec.replicas < 5";
    let spec = json!({"matchConstraints": {"resourceRules": [{"apiGroups": ["apps"],
        "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["deployments/scale"]}]},
        "validations": [{"expression": scales}]});
    policy(
        &cluster,
        VALIDATING,
        "scales",
        spec,
        json!({"validationActions": ["Deny"]}),
    )
    .await;

    let binding = json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n1"}});
    cluster
        .post(&format!("{PODS}/a/binding"), binding)
        .await
        .unwrap();
    let bound = cluster.get(&format!("{PODS}/a")).await.unwrap();
    assert_eq!(bound["spec"]["nodeName"], "n2");
    let refused = async |path: &str, body: Value| {
        let status = cluster.post(path, body).await.unwrap_err();
        assert!(status.message.contains("failed expression: "), "{status}");
    };
    let token = json!({"spec": {"audiences": ["x"]}});
    refused(&format!("{accounts}/default/token"), token).await;
    refused(
        &format!("{PODS}/a/exec?container=main&command=ls"),
        json!({}),
    )
    .await;
    let eviction = json!({"metadata": {"name": "a"}});
    refused(&format!("{PODS}/a/eviction"), eviction).await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    cluster.post(deployments, deployment).await.unwrap();
    let path = format!("{deployments}/d/scale");
    let mut scale = cluster.get(&path).await.unwrap();
    scale["spec"]["replicas"] = json!(4);
    scale = cluster.put(&path, &scale).await.unwrap();
    scale["spec"]["replicas"] = json!(5);
    assert!(cluster.put(&path, &scale).await.is_err());
    cluster.stop().await;
}

#[tokio::test]
async fn deletions_show_the_options_of_their_body() {
    let cluster = Cluster::start().await;
    let rule = "request.options.kind == 'DeleteOptions' && object == null && \
                oldObject.data.key == 'v' && request.options.propagationPolicy == 'Orphan' && \
                request.options.gracePeriodSeconds == 7";
    let only = json!({"resourceRules": rules(&["DELETE"], &["configmaps"])});
    validates(&cluster, "orphans", rule, only, json!({})).await;
    cluster
        .post(CONFIG_MAPS, config_map("a", "v"))
        .await
        .unwrap();
    let path = format!("{CONFIG_MAPS}/a");
    let delete = async |path: &str, body: Value| {
        let sent = cluster.client.send_value(Method::DELETE, path, &body);
        sent.await.map(drop)
    };
    let refused = delete(&path, json!({"propagationPolicy": "Background"})).await;
    assert_eq!(refused.unwrap_err().code, 422);
    let query = format!("{path}?dryRun=All&propagationPolicy=Orphan&gracePeriodSeconds=7");
    delete(&query, json!({})).await.unwrap();
    let options = json!({"propagationPolicy": "Orphan", "gracePeriodSeconds": 7});
    delete(&path, options).await.unwrap();
    cluster.stop().await;
}

#[derive(Default)]
struct Trail(Mutex<Vec<Value>>);

impl Backend for Trail {
    fn name(&self) -> &'static str {
        "log"
    }

    fn take(&self, event: bytes::Bytes) -> Result<(), String> {
        let event = serde_json::from_slice(&event).unwrap();
        self.0.lock().unwrap().push(event);
        Ok(())
    }
}

async fn audited() -> (Cluster, Arc<Trail>) {
    let trail = Arc::new(Trail::default());
    let rules = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Request}]";
    let rules = audit::Policy::parse(rules).unwrap();
    let audit = Audit::new(
        rules,
        vec![Sink::new(Arc::clone(&trail) as Arc<dyn Backend>)],
    );
    let crew = Crew::new();
    let store = store::memory(&crew).await.unwrap();
    let cluster = Cluster::with(store, crew, |config| config.audit = Some(audit)).await;
    (cluster, trail)
}

#[tokio::test]
async fn warnings_and_annotations_say_what_does_not_hold() {
    let (cluster, trail) = audited().await;
    let hooks = Hooks::start(&cluster).await;
    let spec = json!({"matchConstraints": {"resourceRules": rules(&["CREATE"], &["configmaps"])},
        "validations": [{"expression": "true"}, {"expression": "object.data.key == 'x'"}],
        "auditAnnotations": [{"key": "value", "valueExpression": "'key is ' + object.data.key"},
            {"key": "none", "valueExpression": "null"}]});
    let binding = json!({"validationActions": ["Warn", "Audit"]});
    policy(&cluster, VALIDATING, "soft", spec, binding).await;
    let hook = hooks.hook(
        "stage.example.com",
        "/stage-1",
        rules(&["CREATE"], &["configmaps"]),
    );
    let configuration = json!({"metadata": {"name": "hooks"}, "webhooks": [hook]});
    let path = format!("{GROUP}/mutatingwebhookconfigurations");
    cluster.post(&path, configuration).await.unwrap();
    let body = serde_json::to_vec(&config_map("a", "v")).unwrap();
    let media_type = Some("application/json");
    let mut request =
        client::request::request(Method::POST, CONFIG_MAPS, media_type, full(body)).unwrap();
    request
        .headers_mut()
        .insert("audit-id", "soft".parse().unwrap());
    let answer = cluster.client.send(request).await.unwrap();
    assert_eq!(answer.status().as_u16(), 201);
    let text = "299 - \"Validation failed for ValidatingAdmissionPolicy 'soft' with binding \
                'soft': failed expression: object.data.key == 'x'\"";
    assert_eq!(answer.headers()["warning"], text);
    drop(answer);
    let events = trail.0.lock().unwrap().clone();
    let event = events
        .iter()
        .rfind(|event| event["auditID"] == "soft")
        .unwrap();
    let annotations = &event["annotations"];
    assert_eq!(annotations["soft/value"], "key is v");
    assert_eq!(annotations.get("soft/none"), None);
    let read =
        |key: &str| -> Value { serde_json::from_str(annotations[key].as_str().unwrap()).unwrap() };
    assert_eq!(
        read("validation.policy.admission.k8s.io/validation_failure"),
        json!([{"message": "failed expression: object.data.key == 'x'", "policy": "soft",
            "binding": "soft", "expressionIndex": 1, "validationActions": ["Warn", "Audit"]}])
    );
    assert_eq!(
        read("mutation.webhook.admission.k8s.io/round_0_index_0"),
        json!({"configuration": "hooks", "webhook": "stage.example.com", "mutated": true})
    );
    assert_eq!(
        read("patch.webhook.admission.k8s.io/round_0_index_0")["patch"][0]["path"],
        "/data/stage-1"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn expressions_may_not_cost_too_much() {
    let cluster = Cluster::start().await;
    let list = format!("[{}]", vec!["0"; 60].join(", "));
    let dear =
        format!("{list}.all(a, {list}.all(b, {list}.all(c, {list}.all(d, a + b + c + d == 0))))");
    validates(&cluster, "dear", &dear, json!({}), json!({})).await;
    let refused = cluster.post(CONFIG_MAPS, config_map("a", "v")).await;
    let text = "operation cancelled: actual cost limit exceeded";
    let refused = refused.unwrap_err();
    assert!(refused.message.ends_with(text), "{refused}");
    cluster.stop().await;
}

#[tokio::test]
async fn parameters_may_be_named_by_those_who_may_read_them() {
    let cluster = Cluster::start().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({"metadata": {"name": "policies"}, "rules": [
        {"apiGroups": ["admissionregistration.k8s.io"], "resources": ["*"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]});
    let path = format!("{rbac}/clusterroles");
    cluster.post(&path, role).await.unwrap();
    let binding = json!({"metadata": {"name": "policies"}, "subjects": [{"kind": "User",
        "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}], "roleRef": {"kind":
        "ClusterRole", "name": "policies", "apiGroup": "rbac.authorization.k8s.io"}});
    let path = format!("{rbac}/clusterrolebindings");
    cluster.post(&path, binding).await.unwrap();
    let jane = cluster.server.client(Identity::user("jane", &[]));
    let create = async |kind: &str, body: Value| {
        let path = format!("{GROUP}/validatingadmission{kind}");
        jane.send_value(Method::POST, &path, &body).await
    };
    let policy = |name: &str, kind: &str| {
        json!({"metadata": {"name": name}, "spec": {"paramKind": {"apiVersion": "v1", "kind": kind},
            "matchConstraints": {"resourceRules": rules(&["CREATE"], &["pods"])},
            "validations": [{"expression": "true"}]}})
    };
    create("policies", policy("a", "ConfigMap")).await.unwrap();
    let refused = create("policies", policy("b", "Secret")).await.unwrap_err();
    assert_eq!(
        refused.message,
        "ValidatingAdmissionPolicy.admissionregistration.k8s.io \"b\" is invalid: \
         spec.paramKind: Forbidden: user &{jane  [system:authenticated] map[]} must have \"get\" \
         permission on all objects of the referenced paramKind (kind=Secret, apiVersion=v1)"
    );
    let binding = |param: Value| {
        json!({"metadata": {"name": "a"}, "spec": {"policyName": "a", "validationActions":
            ["Deny"], "paramRef": param}})
    };
    let all = json!({"selector": {}, "parameterNotFoundAction": "Deny"});
    let refused = create("policybindings", binding(all)).await.unwrap_err();
    let text = "spec.paramRef: Forbidden: user &{jane  [system:authenticated] map[]} does not \
                have \"list\" permission on the object referenced by paramRef";
    assert!(refused.message.ends_with(text), "{refused}");
    let one = json!({"name": "x", "parameterNotFoundAction": "Deny"});
    create("policybindings", binding(one)).await.unwrap();
    cluster.stop().await;
}
