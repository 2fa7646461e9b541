use serde_json::{Value, json};

use super::*;

fn pod_patch(live: Value, patch: Value) -> Result<Value, PatchError> {
    let ty = crate::named("io.k8s.api.core.v1.PodSpec").unwrap();
    strategic_merge_patch(ty, &live, &patch)
}

fn check(live: Value, patch: Value, expected: Value) {
    assert_eq!(pod_patch(live, patch).unwrap(), expected);
}

#[test]
fn items_merge_by_key_and_new_ones_come_first_where_the_patch_says_nothing_of_order() {
    check(
        json!({"containers": [{"name": "web", "image": "a", "tty": true}, {"name": "log", "image": "b"}]}),
        json!({"containers": [{"name": "web", "image": "c"}]}),
        json!({"containers": [{"name": "web", "image": "c", "tty": true}, {"name": "log", "image": "b"}]}),
    );
    // Upstream's documented result of adding an item: patch items before server-only ones that
    // did not stand before any of them.
    check(
        json!({"containers": [{"name": "web"}]}),
        json!({"containers": [{"name": "new", "image": "d"}]}),
        json!({"containers": [{"name": "new", "image": "d"}, {"name": "web"}]}),
    );
}

#[test]
fn null_removes_and_unmatched_null_is_ignored() {
    check(
        json!({"hostname": "a", "nodeSelector": {"x": "1", "y": "2"}}),
        json!({"hostname": null, "subdomain": null, "nodeSelector": {"x": null, "z": "3"}, "securityContext": {"runAsUser": null, "runAsGroup": 2}}),
        json!({"nodeSelector": {"y": "2", "z": "3"}, "securityContext": {"runAsGroup": 2}}),
    );
}

#[test]
fn atomic_lists_are_replaced() {
    check(
        json!({"tolerations": [{"key": "a"}], "containers": [{"name": "web", "args": ["a", "b"]}]}),
        json!({"tolerations": [{"key": "b"}], "containers": [{"name": "web", "args": ["c"]}]}),
        json!({"tolerations": [{"key": "b"}], "containers": [{"name": "web", "args": ["c"]}]}),
    );
}

#[test]
fn patch_delete_takes_an_item_or_empties_a_map() {
    check(
        json!({"containers": [{"name": "web"}, {"name": "log"}]}),
        json!({"containers": [{"name": "web", "$patch": "delete"}]}),
        json!({"containers": [{"name": "log"}]}),
    );
    check(
        json!({"nodeSelector": {"a": "b"}, "hostname": "x"}),
        json!({"nodeSelector": {"$patch": "delete"}}),
        json!({"nodeSelector": {}, "hostname": "x"}),
    );
    let missing = pod_patch(
        json!({"containers": [{"name": "web"}]}),
        json!({"containers": [{"$patch": "delete"}]}),
    );
    assert!(
        missing
            .unwrap_err()
            .to_string()
            .contains("does not contain declared merge key: name")
    );
}

#[test]
fn patch_replace_takes_lists_and_maps_as_they_are() {
    check(
        json!({"containers": [{"name": "web", "image": "a"}, {"name": "log"}]}),
        json!({"containers": [{"name": "web"}, {"$patch": "replace"}]}),
        json!({"containers": [{"name": "web"}]}),
    );
    check(
        json!({"nodeSelector": {"a": "b"}}),
        json!({"nodeSelector": {"$patch": "replace", "c": "d"}}),
        json!({"nodeSelector": {"c": "d"}}),
    );
}

#[test]
fn unknown_directives_are_refused() {
    let fault = |patch| {
        pod_patch(
            json!({"containers": [{"name": "web"}], "nodeSelector": {"a": "b"}}),
            patch,
        )
        .unwrap_err()
        .to_string()
    };
    assert_eq!(
        fault(json!({"nodeSelector": {"$patch": "grow"}})),
        "unknown patch type: grow"
    );
    assert_eq!(
        fault(json!({"containers": [{"name": "web", "$patch": "merge"}]})),
        "merging lists cannot yet be specified in the patch"
    );
}

#[test]
fn sets_of_texts_merge_and_shrink() {
    let ty = crate::named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").unwrap();
    let live = json!({"finalizers": ["a", "b", "c"]});
    let merged = strategic_merge_patch(ty, &live, &json!({"finalizers": ["d", "b"]})).unwrap();
    assert_eq!(merged, json!({"finalizers": ["d", "a", "b", "c"]}));
    let shrunk = strategic_merge_patch(
        ty,
        &live,
        &json!({"$deleteFromPrimitiveList/finalizers": ["b", "x"]}),
    )
    .unwrap();
    assert_eq!(shrunk, json!({"finalizers": ["a", "c"]}));
    let both = json!({"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["c", "b"]});
    assert_eq!(
        strategic_merge_patch(ty, &live, &both).unwrap(),
        json!({"finalizers": ["c", "b"]})
    );
}

#[test]
fn set_element_order_orders_what_the_patch_names_and_keeps_the_rest_in_place() {
    check(
        json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "server"}, {"name": "c"}]}),
        json!({
            "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}],
            "containers": [{"name": "b", "image": "x"}],
        }),
        json!({"containers": [{"name": "server"}, {"name": "c"}, {"name": "b", "image": "x"}, {"name": "a"}]}),
    );
    check(
        json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
        json!({"containers": [{"name": "b"}, {"name": "a"}]}),
    );
    let wrong = pod_patch(
        json!({"containers": []}),
        json!({"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]}),
    );
    assert!(
        wrong
            .unwrap_err()
            .to_string()
            .contains("doesn't match $setElementOrder list")
    );
}

#[test]
fn retain_keys_clears_what_it_does_not_name() {
    let ty = crate::named("io.k8s.api.apps.v1.DeploymentSpec").unwrap();
    let live = json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}});
    let patch = json!({"strategy": {"$retainKeys": ["type"], "type": "Recreate"}});
    assert_eq!(
        strategic_merge_patch(ty, &live, &patch).unwrap(),
        json!({"strategy": {"type": "Recreate"}})
    );
    let bad = json!({"strategy": {"$retainKeys": ["rollingUpdate"], "type": "Recreate"}});
    assert!(strategic_merge_patch(ty, &live, &bad).is_err());
    check(
        json!({"volumes": [{"name": "data", "emptyDir": {}}]}),
        json!({"volumes": [{"name": "data", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}),
        json!({"volumes": [{"name": "data", "hostPath": {"path": "/x"}}]}),
    );
}

#[test]
fn new_content_loses_its_directives() {
    check(
        json!({}),
        json!({
            "containers": [{"name": "a", "$patch": "delete"}, {"name": "b"}],
            "volumes": [{"name": "v", "$retainKeys": ["name"], "emptyDir": null}],
        }),
        json!({"containers": [{"name": "b"}], "volumes": [{"name": "v"}]}),
    );
}

#[test]
fn new_items_take_the_places_of_deleted_ones() {
    check(
        json!({"containers": [{"name": "gone"}, {"name": "a"}, {"name": "server"}]}),
        json!({
            "$setElementOrder/containers": [{"name": "a"}, {"name": "new"}],
            "containers": [{"name": "new"}, {"name": "gone", "$patch": "delete"}],
        }),
        json!({"containers": [{"name": "a"}, {"name": "server"}, {"name": "new"}]}),
    );
}
