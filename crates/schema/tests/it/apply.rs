//! Server-side apply as upstream documents it.

use schema::{
    ApplyError, ApplyOptions, UpdateOptions, apply, builtin, check, update_managed_fields,
};
use serde_json::{Value, json};

pub(crate) const THEN: &str = "2026-01-31T12:00:00Z";
pub(crate) const LATER: &str = "2026-01-31T12:00:05Z";

pub(crate) fn options(manager: &'static str) -> ApplyOptions<'static> {
    ApplyOptions {
        manager,
        force: false,
        api_version: "apps/v1",
        subresource: "",
        now: THEN,
        reset: &["status"],
    }
}

pub(crate) fn config(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

fn try_apply(
    live: Option<&Value>,
    applied: &Value,
    options: ApplyOptions<'_>,
) -> Result<Value, ApplyError> {
    apply(
        builtin("apps", "v1", "Deployment").unwrap(),
        live,
        applied,
        options,
    )
}

fn applied(live: Option<&Value>, config: &Value, manager: &'static str) -> Value {
    try_apply(live, config, options(manager)).unwrap()
}

/// The field set of one manager.
pub(crate) fn owned<'a>(object: &'a Value, manager: &str) -> &'a Value {
    let entries = object["metadata"]["managedFields"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let found = entries.iter().find(|entry| entry["manager"] == manager);
    found.map_or(&Value::Null, |entry| &entry["fieldsV1"])
}

fn updated(live: Option<&Value>, mut new: Value, manager: &'static str) -> Value {
    let ty = builtin("apps", "v1", "Deployment").unwrap();
    check(ty, &mut new).unwrap();
    let options = UpdateOptions {
        manager,
        api_version: "apps/v1",
        subresource: "",
        now: THEN,
        reset: &["status"],
    };
    update_managed_fields(ty, live, &mut new, options);
    new
}

fn container(image: &str) -> Value {
    json!({"name": "web", "image": image})
}

fn template(containers: Value) -> Value {
    json!({"spec": {"containers": containers}})
}

#[test]
fn the_first_apply_owns_what_it_names() {
    let config = config(json!({
        "replicas": 3,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "a", "args": ["x"], "ports": [{"containerPort": 80}]}]},
        },
    }));
    let object = applied(None, &config, "me");
    assert_eq!(object["spec"]["replicas"], 3);
    assert_eq!(object["spec"]["strategy"], json!({}));
    assert_eq!(
        object["metadata"]["managedFields"],
        json!([{
            "manager": "me",
            "operation": "Apply",
            "apiVersion": "apps/v1",
            "time": THEN,
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:spec": {
                    "f:replicas": {},
                    // A selector is owned as one.
                    "f:selector": {},
                    "f:template": {
                        "f:metadata": {"f:labels": {"f:app": {}}},
                        "f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {
                            ".": {},
                            "f:args": {},
                            "f:image": {},
                            "f:name": {},
                            "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                        }}},
                    },
                },
            },
        }])
    );
}

#[test]
fn the_same_again_changes_nothing_times_included() {
    let config = config(json!({"replicas": 3, "template": template(json!([container("a")]))}));
    let object = applied(None, &config, "me");
    let again = try_apply(
        Some(&object),
        &config,
        ApplyOptions {
            now: LATER,
            ..options("me")
        },
    )
    .unwrap();
    assert_eq!(again, object);
}

#[test]
fn another_value_for_a_field_of_another_conflicts() {
    let one = applied(None, &config(json!({"replicas": 3, "paused": true})), "one");
    let fault = try_apply(Some(&one), &config(json!({"replicas": 5})), options("two")).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas"
    );
    let fault = try_apply(
        Some(&one),
        &config(json!({"replicas": 5, "paused": false})),
        options("two"),
    )
    .unwrap_err();
    assert_eq!(
        fault.to_string(),
        "Apply failed with 2 conflicts: conflicts with \"one\":\n- .spec.paused\n- .spec.replicas"
    );
}

#[test]
fn conflicts_with_an_update_name_its_version_and_subresource() {
    let live = updated(
        None,
        config(json!({"replicas": 3})),
        "kubectl-client-side-apply",
    );
    let ApplyError::Conflicts(conflicts) =
        try_apply(Some(&live), &config(json!({"replicas": 5})), options("me")).unwrap_err()
    else {
        panic!("no conflict");
    };
    assert_eq!(
        conflicts[0].message(),
        "conflict with \"kubectl-client-side-apply\" using apps/v1"
    );
    assert_eq!(conflicts[0].field, ".spec.replicas");
    let mut live = live;
    live["metadata"]["managedFields"][0]["subresource"] = "scale".into();
    let fault = try_apply(Some(&live), &config(json!({"replicas": 5})), options("me")).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
}

#[test]
fn the_same_value_is_shared() {
    let one = applied(None, &config(json!({"replicas": 3})), "one");
    let both = applied(Some(&one), &config(json!({"replicas": 3})), "two");
    assert_eq!(owned(&both, "one"), &json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(owned(&both, "two"), &json!({"f:spec": {"f:replicas": {}}}));
    // One of the two lets go: the field stays.
    let left = applied(Some(&both), &config(json!({})), "one");
    assert_eq!(left["spec"]["replicas"], 3);
    assert_eq!(owned(&left, "one"), &json!({"f:spec": {}}));
    // Both do: it goes.
    let gone = applied(Some(&left), &config(json!({})), "two");
    assert_eq!(gone["spec"].get("replicas"), None);
}

#[test]
fn force_takes_fields() {
    let one = applied(None, &config(json!({"replicas": 3, "paused": true})), "one");
    let forced = ApplyOptions {
        force: true,
        ..options("two")
    };
    let both = try_apply(Some(&one), &config(json!({"replicas": 5})), forced).unwrap();
    assert_eq!(both["spec"]["replicas"], 5);
    assert_eq!(owned(&both, "one"), &json!({"f:spec": {"f:paused": {}}}));
    assert_eq!(owned(&both, "two"), &json!({"f:spec": {"f:replicas": {}}}));
}

#[test]
fn what_is_no_longer_applied_goes_unless_another_owns_it() {
    let one = applied(
        None,
        &config(json!({"replicas": 3, "template": template(json!([
            {"name": "web", "image": "a", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
            {"name": "side", "image": "s"},
        ]))})),
        "one",
    );
    let two = applied(
        Some(&one),
        &config(json!({"template": template(json!([
            {"name": "side", "tty": true},
        ]))})),
        "two",
    );
    let one = applied(
        Some(&two),
        &config(json!({"template": template(json!([
            {"name": "web", "image": "a", "env": [{"name": "B", "value": "2"}]},
        ]))})),
        "one",
    );
    assert_eq!(one["spec"].get("replicas"), None);
    let containers = &one["spec"]["template"]["spec"]["containers"];
    assert_eq!(
        *containers,
        json!([
            {"name": "web", "image": "a", "env": [{"name": "B", "value": "2"}], "resources": {}},
            {"name": "side", "tty": true, "resources": {}},
        ])
    );
}

#[test]
fn items_that_only_an_update_added_survive_the_removal_of_the_rest() {
    let one = applied(
        None,
        &config(json!({"template": template(json!([
            {"name": "web", "image": "a", "env": [{"name": "A", "value": "1"}]},
        ]))})),
        "one",
    );
    let mut edited = one.clone();
    let env = edited
        .pointer_mut("/spec/template/spec/containers/0/env")
        .unwrap();
    env.as_array_mut()
        .unwrap()
        .push(json!({"name": "X", "value": "9"}));
    let edited = updated(Some(&one), edited, "editor");
    assert_eq!(
        owned(&edited, "editor")
            .pointer("/f:spec/f:template/f:spec/f:containers/k:{\"name\":\"web\"}/f:env"),
        Some(&json!({"k:{\"name\":\"X\"}": {".": {}, "f:name": {}, "f:value": {}}}))
    );
    let one = applied(
        Some(&edited),
        &config(json!({"template": template(json!([container("a")]))})),
        "one",
    );
    assert_eq!(
        one.pointer("/spec/template/spec/containers/0/env"),
        Some(&json!([{"name": "X", "value": "9"}]))
    );
}

#[test]
fn atomic_lists_are_owned_and_replaced_whole() {
    let args = |args: &[&str]| {
        config(json!({"template": template(json!([{"name": "web", "args": args}]))}))
    };
    let one = applied(None, &args(&["a", "b"]), "one");
    let fault = try_apply(Some(&one), &args(&["a"]), options("two")).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "Apply failed with 1 conflict: conflict with \"one\": .spec.template.spec.containers[name=\"web\"].args"
    );
    let one = applied(Some(&one), &args(&["c"]), "one");
    assert_eq!(
        one.pointer("/spec/template/spec/containers/0/args"),
        Some(&json!(["c"]))
    );
}

#[test]
fn sets_are_owned_item_by_item() {
    let finalizers = |items: &[&str]| {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "finalizers": items},
        })
    };
    let one = applied(None, &finalizers(&["a.b/c", "a.b/d"]), "one");
    assert_eq!(
        owned(&one, "one"),
        &json!({"f:metadata": {"f:finalizers": {"v:\"a.b/c\"": {}, "v:\"a.b/d\"": {}}}})
    );
    let two = applied(Some(&one), &finalizers(&["a.b/e"]), "two");
    assert_eq!(
        two["metadata"]["finalizers"],
        json!(["a.b/c", "a.b/d", "a.b/e"])
    );
    let one = applied(Some(&two), &finalizers(&["a.b/d"]), "one");
    assert_eq!(one["metadata"]["finalizers"], json!(["a.b/d", "a.b/e"]));
}

#[test]
fn applied_items_take_the_configurations_order() {
    let names = |names: &[&str]| {
        let containers: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        config(json!({"template": template(json!(containers))}))
    };
    let order = |object: &Value| -> Vec<String> {
        let containers = object
            .pointer("/spec/template/spec/containers")
            .unwrap()
            .as_array()
            .unwrap();
        containers
            .iter()
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let one = applied(None, &names(&["a", "b", "c"]), "one");
    let two = applied(Some(&one), &names(&["x", "b"]), "two");
    assert_eq!(order(&two), ["a", "x", "b", "c"]);
    let one = applied(Some(&two), &names(&["c", "b", "a"]), "one");
    assert_eq!(order(&one), ["x", "c", "b", "a"]);
}

#[test]
fn updates_take_ownership_of_what_they_change() {
    let one = applied(None, &config(json!({"replicas": 3, "paused": true})), "one");
    let mut scaled = one.clone();
    scaled["spec"]["replicas"] = json!(7);
    let scaled = updated(Some(&one), scaled, "scaler");
    assert_eq!(
        owned(&scaled, "scaler"),
        &json!({"f:spec": {"f:replicas": {}}})
    );
    assert_eq!(owned(&scaled, "one"), &json!({"f:spec": {"f:paused": {}}}));
}

#[test]
fn an_object_nobody_was_recorded_for_gets_an_owner_at_the_first_apply() {
    let ty = builtin("apps", "v1", "Deployment").unwrap();
    let mut live = config(json!({"replicas": 3}));
    check(ty, &mut live).unwrap();
    let fault = try_apply(Some(&live), &config(json!({"replicas": 5})), options("me")).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using apps/v1: .spec.replicas"
    );
    let object = applied(Some(&live), &config(json!({"replicas": 3})), "me");
    assert_eq!(
        owned(&object, "before-first-apply"),
        &json!({"f:spec": {"f:replicas": {}}})
    );
}

#[test]
fn kubectl_takes_over_from_client_side_apply() {
    let last = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 3}});
    let mut first = config(json!({"replicas": 3}));
    first["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": last.to_string()});
    let live = updated(None, first, "kubectl-client-side-apply");
    // Another manager conflicts, kubectl does not.
    let five = config(json!({"replicas": 5}));
    assert!(try_apply(Some(&live), &five, options("other")).is_err());
    let object = applied(Some(&live), &five, "kubectl");
    assert_eq!(object["spec"]["replicas"], 5);
    let annotation =
        object["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
            .as_str()
            .unwrap();
    assert_eq!(serde_json::from_str::<Value>(annotation).unwrap(), five);
    // What changed since the last client-side apply is not kubectl's to take.
    let mut scaled = live.clone();
    scaled["spec"]["replicas"] = json!(9);
    let scaled = updated(Some(&live), scaled, "scaler");
    assert!(try_apply(Some(&scaled), &five, options("kubectl")).is_err());
}

#[test]
fn reset_fields_are_not_owned_and_do_not_conflict() {
    let mut with_status = config(json!({"replicas": 3}));
    with_status["status"] = json!({"replicas": 9});
    let object = applied(None, &with_status, "me");
    assert_eq!(owned(&object, "me"), &json!({"f:spec": {"f:replicas": {}}}));
}

#[test]
fn what_is_not_of_the_type_is_refused() {
    let refused = |spec: Value| {
        try_apply(None, &config(spec), options("me"))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refused(json!({"foo": 1})),
        "failed to create typed patch object (/web; apps/v1, Kind=Deployment): .spec.foo: field not declared in schema"
    );
    assert!(
        refused(json!({"replicas": "x"}))
            .ends_with(".spec.replicas: expected numeric (int or float), got string")
    );
    assert!(
        refused(json!({"template": template(json!([container("a"), container("b")]))}))
            .ends_with(".spec.template.spec.containers: duplicate entries for key [name=\"web\"]")
    );
    assert!(
        refused(json!({"template": template(json!([{"image": "a"}]))}))
            .contains("has an element that omits all key fields [\"name\"]")
    );
    let mut wrong = config(json!({}));
    wrong["apiVersion"] = "apps/v2".into();
    assert_eq!(
        try_apply(None, &wrong, options("me"))
            .unwrap_err()
            .to_string(),
        "Incorrect version specified in apply patch. Specified patch version: apps/v2, expected: apps/v1"
    );
    let mut wrong = config(json!({}));
    wrong["metadata"]["managedFields"] = json!([]);
    assert_eq!(
        try_apply(None, &wrong, options("me")).unwrap_err(),
        ApplyError::Invalid("metadata.managedFields must be nil".into())
    );
}

#[test]
fn null_in_a_configuration_removes_and_owns_nothing_it_cannot() {
    let mut first = config(json!({"replicas": 3}));
    first["metadata"]["creationTimestamp"] = Value::Null;
    let object = applied(None, &first, "me");
    assert_eq!(owned(&object, "me"), &json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(object["metadata"].get("creationTimestamp"), None);
}

/// A debug build is some ten times slower than the 300 µs asked of a release build.
#[test]
fn applying_a_deployment_is_quick() {
    let config = config(json!({
        "replicas": 3,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{
                "name": "web", "image": "a", "args": ["x"],
                "ports": [{"containerPort": 80}, {"containerPort": 443}],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m"}},
                "livenessProbe": {"httpGet": {"path": "/", "port": 80}},
            }]},
        },
    }));
    let object = applied(None, &config, "me");
    let mut changed = config.clone();
    changed["spec"]["replicas"] = json!(4);
    let start = std::time::Instant::now();
    for _ in 0..200 {
        let next = applied(Some(&object), &changed, "me");
        assert_eq!(next["spec"]["replicas"], 4);
    }
    let each = start.elapsed() / 200;
    println!("apply: {each:?}");
    assert!(each.as_millis() < 20, "{each:?}");
}
