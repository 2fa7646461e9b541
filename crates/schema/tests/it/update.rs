//! Managed fields of writes that are no apply.

use schema::{UpdateOptions, builtin, check, update_managed_fields};
use serde_json::{Value, json};

use crate::apply::{LATER, THEN, config, owned};

fn write(live: Option<&Value>, mut new: Value, options: UpdateOptions<'_>) -> Value {
    let ty = builtin("apps", "v1", "Deployment").unwrap();
    check(ty, &mut new).unwrap();
    update_managed_fields(ty, live, &mut new, options);
    new
}

fn by(manager: &'static str) -> UpdateOptions<'static> {
    UpdateOptions {
        manager,
        api_version: "apps/v1",
        subresource: "",
        now: THEN,
        reset: &["status"],
    }
}

fn entries(object: &Value) -> Vec<Value> {
    object["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

/// What a real server records for this create.
#[test]
fn a_create_is_recorded_as_upstream_records_it() {
    let object = write(
        None,
        config(json!({
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [{"name": "nginx", "image": "nginx", "env": [{"name": "A", "value": "1"}]}],
                    "volumes": [{"name": "v", "emptyDir": {}}],
                    "securityContext": {},
                },
            },
        })),
        by("kubectl-create"),
    );
    assert_eq!(
        owned(&object, "kubectl-create"),
        &json!({
            "f:spec": {
                "f:replicas": {},
                "f:selector": {},
                "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}}, "f:type": {}},
                "f:template": {
                    "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                    "f:spec": {
                        "f:containers": {"k:{\"name\":\"nginx\"}": {
                            ".": {},
                            "f:env": {".": {}, "k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:value": {}}},
                            "f:image": {},
                            "f:name": {},
                            "f:resources": {},
                        }},
                        "f:securityContext": {},
                        "f:volumes": {".": {}, "k:{\"name\":\"v\"}": {".": {}, "f:emptyDir": {}, "f:name": {}}},
                    },
                },
            },
        })
    );
}

#[test]
fn a_write_that_changes_nothing_keeps_the_time() {
    let object = write(None, config(json!({"replicas": 1})), by("me"));
    let again = write(
        Some(&object),
        object.clone(),
        UpdateOptions {
            now: LATER,
            ..by("me")
        },
    );
    assert_eq!(again, object);
    let mut changed = object.clone();
    changed["spec"]["replicas"] = json!(2);
    let changed = write(
        Some(&object),
        changed,
        UpdateOptions {
            now: LATER,
            ..by("me")
        },
    );
    assert_eq!(entries(&changed)[0]["time"], LATER);
    assert_eq!(entries(&changed).len(), 1);
}

#[test]
fn removed_fields_have_no_owner() {
    let object = write(
        None,
        config(json!({"replicas": 1, "paused": true})),
        by("me"),
    );
    let mut less = object.clone();
    less["spec"].as_object_mut().unwrap().remove("paused");
    let less = write(Some(&object), less, by("other"));
    assert_eq!(owned(&less, "me"), &json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(owned(&less, "other"), &Value::Null);
}

#[test]
fn subresources_have_entries_of_their_own_and_trust_only_the_live_ones() {
    let object = write(None, config(json!({"replicas": 1})), by("me"));
    let mut with_status = object.clone();
    with_status["status"] = json!({"replicas": 1});
    with_status["metadata"]["managedFields"] = json!([]);
    let options = UpdateOptions {
        subresource: "status",
        reset: &["spec"],
        ..by("controller")
    };
    let object = write(Some(&object), with_status, options);
    let entries = entries(&object);
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0]["subresource"], "status");
    assert_eq!(
        owned(&object, "controller"),
        &json!({"f:status": {"f:replicas": {}}})
    );
}

#[test]
fn an_empty_list_forgets_all_managers() {
    let object = write(None, config(json!({"replicas": 1})), by("me"));
    for reset in [json!([]), json!([{}])] {
        let mut asked = object.clone();
        asked["metadata"]["managedFields"] = reset;
        let object = write(Some(&object), asked, by("other"));
        assert_eq!(object["metadata"].get("managedFields"), None);
    }
    // A client that does not know them loses nothing.
    let mut asked = object.clone();
    asked["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("managedFields");
    assert_eq!(write(Some(&object), asked, by("other")), object);
}

#[test]
fn untracked_objects_stay_untracked() {
    let ty = builtin("apps", "v1", "Deployment").unwrap();
    let mut live = config(json!({"replicas": 1}));
    check(ty, &mut live).unwrap();
    let object = write(Some(&live), config(json!({"replicas": 2})), by("me"));
    assert_eq!(object["metadata"].get("managedFields"), None);
}

#[test]
fn the_oldest_updates_are_folded() {
    const NAMES: [&str; 13] = [
        "m0", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "m9", "m10", "m11", "m12",
    ];
    let mut object = write(None, config(json!({"replicas": 1})), by("first"));
    for (index, manager) in NAMES.iter().enumerate() {
        let now = format!("2026-01-31T13:00:{index:02}Z");
        let mut next = object.clone();
        next["metadata"]["labels"][format!("l{index}")] = "x".into();
        object = write(
            Some(&object),
            next,
            UpdateOptions {
                now: &now,
                manager,
                ..by("")
            },
        );
    }
    assert_eq!(entries(&object).len(), 10);
    let ancient = owned(&object, "ancient-changes");
    assert_eq!(ancient.pointer("/f:spec/f:replicas"), Some(&json!({})));
    assert_eq!(
        ancient.pointer("/f:metadata/f:labels/f:l3"),
        Some(&json!({}))
    );
    assert_eq!(
        owned(&object, "m12").pointer("/f:metadata/f:labels/f:l12"),
        Some(&json!({}))
    );
}

#[test]
fn metadata_that_the_server_keeps_is_not_owned() {
    let mut object = config(json!({}));
    object["metadata"] = json!({
        "name": "web", "namespace": "default", "uid": "u", "resourceVersion": "1", "generation": 1,
        "creationTimestamp": THEN, "labels": {"a": "b"}, "ownerReferences": [
            {"apiVersion": "v1", "kind": "A", "name": "n", "uid": "u1"},
        ],
    });
    let object = write(None, object, by("me"));
    assert_eq!(
        owned(&object, "me"),
        &json!({"f:metadata": {
            "f:labels": {".": {}, "f:a": {}},
            "f:ownerReferences": {".": {}, "k:{\"uid\":\"u1\"}": {}},
        }})
    );
}
