//! Nothing panics, whatever the trees are.

use proptest::prelude::*;
use schema::{ApplyOptions, UpdateOptions, builtin};
use serde_json::{Map, Value, json};

const NAMES: [&str; 28] = [
    "metadata",
    "spec",
    "status",
    "template",
    "containers",
    "name",
    "image",
    "ports",
    "containerPort",
    "protocol",
    "env",
    "value",
    "finalizers",
    "labels",
    "annotations",
    "managedFields",
    "ownerReferences",
    "uid",
    "volumes",
    "replicas",
    "strategy",
    "resources",
    "limits",
    "$patch",
    "$retainKeys",
    "$setElementOrder/containers",
    "$deleteFromPrimitiveList/finalizers",
    "fieldsV1",
];

fn scalar() -> impl Strategy<Value = Value> {
    let words = [
        "",
        "web",
        "log",
        "delete",
        "replace",
        "merge",
        "100m",
        "0.1",
        "Apply",
        "2026-01-31T12:00:00Z",
    ];
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..400).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(words.to_vec()).prop_map(Value::from),
    ]
}

fn tree() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(6, 48, 4, |inner| {
        let key = prop_oneof![
            8 => prop::sample::select(NAMES.to_vec()).prop_map(str::to_owned),
            1 => "[a-z:{}\"$/.]{0,8}",
            1 => prop::sample::select(vec!["f:spec", "k:{\"name\":\"web\"}", "v:1", "i:x", "."]).prop_map(str::to_owned),
        ];
        let map = prop::collection::vec((key, inner.clone()), 0..5);
        prop_oneof![
            3 => map.prop_map(|entries| Value::Object(Map::from_iter(entries))),
            1 => prop::collection::vec(inner, 0..4).prop_map(Value::from),
        ]
    })
}

/// Random trees seldom fit; this one fits at the top.
fn object() -> impl Strategy<Value = Value> {
    (tree(), tree(), tree()).prop_map(|(metadata, spec, containers)| {
        let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec});
        if object["spec"].is_object() {
            object["spec"]["template"] = json!({"spec": {"containers": containers}});
        }
        object
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics(live in object(), other in object(), patch in tree()) {
        let ty = builtin("apps", "v1", "Deployment").unwrap();
        let options = ApplyOptions {
            manager: "me", force: false, api_version: "apps/v1", subresource: "", now: "2026-01-31T12:00:00Z", reset: &["status"],
        };
        let update = UpdateOptions {
            manager: "you", api_version: "apps/v1", subresource: "", now: "2026-01-31T12:00:00Z", reset: &["status"],
        };
        let _ = schema::strategic_merge_patch(ty, &live, &other);
        let _ = schema::strategic_merge_patch(ty, &live, &patch);
        let _ = schema::merge_patch(&live, &patch);
        let _ = schema::json_patch(&live, patch.to_string().as_bytes());
        let _ = schema::parse_json(patch.to_string().as_bytes());
        let _ = schema::apply(ty, Some(&live), &other, options);
        let mut recorded = other.clone();
        schema::update_managed_fields(ty, Some(&live), &mut recorded, update);
        let mut clean = live.clone();
        if schema::check(ty, &mut clean).is_ok() {
            let again = clean.clone();
            prop_assert_eq!(schema::check(ty, &mut clean), Ok(Vec::new()));
            prop_assert_eq!(&clean, &again);
            let bytes = schema::protobuf::encode(ty, &clean);
            let mut decoded = schema::protobuf::decode(ty, &bytes).unwrap();
            prop_assert_eq!(schema::check(ty, &mut decoded), Ok(Vec::new()));
            let _ = schema::apply(ty, Some(&clean), &other, options);
            schema::update_managed_fields(ty, None, &mut clean, update);
        }
    }

    #[test]
    fn bytes_parse_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..64), text in "[\\[\\]{}\",:0-9a-z \\\\]{0,40}") {
        let _ = schema::parse_json(&bytes);
        let ty = builtin("", "v1", "Pod").unwrap();
        let _ = schema::protobuf::decode(ty, &bytes);
        let _ = schema::protobuf::open(&bytes);
        let _ = schema::parse_json(text.as_bytes());
        let _ = schema::json_patch(&json!({}), text.as_bytes());
    }
}
