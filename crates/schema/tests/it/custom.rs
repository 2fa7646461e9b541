//! Custom resources: the same paths with a type made at run time.

use std::sync::Arc;

use meta::Names;
use schema::openapi::{KindDoc, document_with};
use schema::{ApplyOptions, Kind, Type, TypeRef, apply, check};
use serde_json::{Value, json};

use crate::apply::{THEN, owned};

fn cron_tab() -> Type {
    let schema = json!({
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "required": ["schedule"],
                "properties": {
                    "schedule": {"type": "string", "description": "When."},
                    "replicas": {"type": "integer", "default": 1},
                    "port": {"x-kubernetes-int-or-string": true},
                    "args": {"type": "array", "items": {"type": "string"}},
                    "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                    "hosts": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"],
                        "items": {"type": "object", "properties": {
                            "name": {"type": "string"},
                            "weight": {"type": "integer", "default": 5},
                        }},
                    },
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                },
            },
        },
    });
    let kind = Kind {
        group: "example.com".into(),
        version: "v1".into(),
        kind: "CronTab".into(),
    };
    Type::from_openapi(kind, &schema)
}

fn object(spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "CronTab", "metadata": {"name": "a"}, "spec": spec})
}

#[test]
fn unknown_fields_are_pruned_where_the_schema_says_so() {
    let ty = cron_tab();
    let mut tree = object(json!({
        "schedule": "* * * * *", "foo": 1, "free": {"any": {"thing": [1]}}, "replicas": 0, "args": [],
        "hosts": [{"name": "h", "bar": 1}],
    }));
    assert_eq!(
        check(&ty, &mut tree).unwrap(),
        ["spec.foo", "spec.hosts[0].bar"]
    );
    // Empty values stay: a custom resource keeps what was written.
    assert_eq!(
        tree["spec"],
        json!({
            "schedule": "* * * * *", "free": {"any": {"thing": [1]}}, "replicas": 0, "args": [],
            "hosts": [{"name": "h"}],
        })
    );
    assert!(check(&ty, &mut object(json!({"replicas": "x"}))).is_err());
    let anything = Type::from_openapi(ty.kinds[0].clone(), &Value::Null);
    let mut tree = object(json!({"foo": {"bar": 1}}));
    assert_eq!(check(&anything, &mut tree).unwrap(), Vec::<String>::new());
    assert_eq!(tree["spec"]["foo"]["bar"], json!(1));
}

#[test]
fn server_side_apply_knows_its_lists() {
    let ty = cron_tab();
    let options = |manager| ApplyOptions {
        manager,
        force: false,
        api_version: "example.com/v1",
        subresource: "",
        now: THEN,
        reset: &[],
    };
    let one = object(json!({
        "hosts": [{"name": "h", "weight": 1}], "tags": ["a"], "args": ["x"], "free": {"a": {"b": 1}},
    }));
    let one = apply(&ty, None, &one, options("one")).unwrap();
    assert_eq!(
        owned(&one, "one"),
        &json!({"f:spec": {
            "f:args": {},
            "f:free": {"f:a": {".": {}, "f:b": {}}},
            "f:hosts": {"k:{\"name\":\"h\"}": {".": {}, "f:name": {}, "f:weight": {}}},
            "f:tags": {"v:\"a\"": {}},
        }})
    );
    let two = object(json!({"hosts": [{"name": "i"}], "tags": ["b"]}));
    let two = apply(&ty, Some(&one), &two, options("two")).unwrap();
    assert_eq!(
        two["spec"]["hosts"],
        json!([{"name": "h", "weight": 1}, {"name": "i"}])
    );
    assert_eq!(two["spec"]["tags"], json!(["a", "b"]));
    let fault = apply(
        &ty,
        Some(&two),
        &object(json!({"hosts": [{"name": "h", "weight": 2}]})),
        options("two"),
    );
    assert_eq!(
        fault.unwrap_err().to_string(),
        "Apply failed with 1 conflict: conflict with \"one\": .spec.hosts[name=\"h\"].weight"
    );
}

#[test]
fn the_document_describes_it() {
    let names = Names::namespaced("example.com", "v1", "CronTab", "crontabs");
    let kind = KindDoc {
        names: &names,
        subresources: &["status"],
        verbs: &["get", "list", "patch"],
    };
    let ty = TypeRef::Owned(Arc::new(cron_tab()));
    let document = document_with(&names.group_version(), &[kind], &|_| Some(ty.clone()));
    let schemas = &document["components"]["schemas"];
    let spec = &schemas["com.example.v1.CronTab"]["properties"]["spec"];
    assert_eq!(spec["required"], json!(["schedule"]));
    assert_eq!(
        spec["properties"]["hosts"]["x-kubernetes-list-map-keys"],
        json!(["name"])
    );
    assert_eq!(spec["properties"]["schedule"]["description"], "When.");
    assert_eq!(
        schemas["com.example.v1.CronTabList"]["properties"]["items"]["items"]["$ref"],
        "#/components/schemas/com.example.v1.CronTab"
    );
    assert!(schemas["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"].is_object());
    assert!(
        document["paths"]["/apis/example.com/v1/namespaces/{namespace}/crontabs/{name}"]["patch"]
            .is_object()
    );
}
