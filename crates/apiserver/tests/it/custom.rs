//! Custom resources, and kinds in more than one version.

use client::{Watch, WatchEvent};
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::cluster::Cluster;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const V1: &str = "sea.example.com/v1";
const BOATS: &str = "/apis/sea.example.com/v1/namespaces/default/boats";

fn definition() -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "required": ["spec"], "properties": {
        "spec": {"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string", "maxLength": 5},
            "crew": {"type": "integer", "default": 2, "minimum": 1},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
        "status": {"type": "object", "properties": {"afloat": {"type": "boolean"}}}}}});
    let columns = json!([{"name": "Crew", "type": "integer", "jsonPath": ".spec.crew"}]);
    json!({"metadata": {"name": "boats.sea.example.com"}, "spec": {
        "group": "sea.example.com", "scope": "Namespaced",
        "names": {"plural": "boats", "kind": "Boat", "shortNames": ["bt"]},
        "versions": [
            {"name": "v1", "served": true, "storage": true, "schema": schema,
                "subresources": {"status": {}}, "additionalPrinterColumns": columns},
            {"name": "v1beta1", "served": true, "storage": false, "schema": schema}]}})
}

/// Watches the definitions, from now on, until `enough`.
pub(crate) async fn until(cluster: &Cluster, enough: impl Fn(&WatchEvent<Value>) -> bool) {
    until_since(cluster, "0", enough).await;
}

/// Watches the definitions, from a version on, until `enough`.
async fn until_since(
    cluster: &Cluster,
    version: &str,
    enough: impl Fn(&WatchEvent<Value>) -> bool,
) {
    let path = format!("{DEFINITIONS}?watch=1&resourceVersion={version}");
    let request = client::request::request(Method::GET, &path, None, client::empty()).unwrap();
    let body = cluster.client.send(request).await.unwrap().into_body();
    let mut watch = Watch::<Value>::new(body);
    let wait = async { while !enough(&watch.next().await.unwrap().unwrap()) {} };
    tokio::time::timeout(std::time::Duration::from_secs(10), wait)
        .await
        .unwrap();
}

pub(crate) fn is_established(event: &WatchEvent<Value>) -> bool {
    let (WatchEvent::Added(object) | WatchEvent::Modified(object)) = event else {
        return false;
    };
    let conditions = object["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|one| one["type"] == "Established" && one["status"] == "True")
}

pub(crate) async fn established() -> Cluster {
    let cluster = Cluster::start().await;
    assert_eq!(cluster.get(BOATS).await.unwrap_err().code, 404);
    cluster.post(DEFINITIONS, definition()).await.unwrap();
    until(&cluster, is_established).await;
    cluster
}

/// Built-in kinds refuse it, and upstream's handler of custom ones does not.
#[tokio::test]
async fn a_head_is_answered() {
    let cluster = established().await;
    let request = client::request::request(Method::HEAD, BOATS, None, client::empty()).unwrap();
    let answer = cluster.client.send(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    cluster.stop().await;
}

#[tokio::test]
async fn instances_take_the_generic_path() {
    let cluster = established().await;
    let boat = json!({"apiVersion": "sea.example.com/v1", "kind": "Boat",
        "metadata": {"name": "a"}, "status": {"afloat": true},
        "spec": {"name": "x", "unknown": 1, "free": {"any": [1]}}});
    let made = cluster.post(BOATS, boat).await.unwrap();
    assert_eq!(
        made["spec"],
        json!({"name": "x", "crew": 2, "free": {"any": [1]}})
    );
    assert!(
        made.get("status").is_none() && made["metadata"]["generation"] == 1,
        "{made}"
    );
    let wrong = json!({"apiVersion": V1, "kind": "Boat", "metadata": {"name": "b"}, "spec": {"name": "x", "crew": 0}});
    let refused = cluster.post(BOATS, wrong).await.unwrap_err();
    assert_eq!(
        refused.message,
        "Boat.sea.example.com \"b\" is invalid: spec.crew: Invalid value: 0: spec.crew in body \
         should be greater than or equal to 1"
    );
    for (nameless, message) in [
        (
            json!({"a": 1}),
            "the object provided is unrecognized (must be of type Boat): Object 'Kind' is missing \
             in '{\"a\":1}' ({\"a\":1})",
        ),
        (
            json!({"kind": "Boat"}),
            "the API version in the data () does not match the expected API version \
             (sea.example.com/v1)",
        ),
        (
            json!({"apiVersion": V1, "kind": "Ship", "metadata": {"name": "b"}}),
            "Ship.sea.example.com \"b\" is invalid: kind: Invalid value: \"Ship\": must be Boat",
        ),
    ] {
        let refused = cluster.post(BOATS, nameless).await.unwrap_err();
        assert_eq!(refused.message, message);
    }
    let path = format!("{BOATS}/a");
    let body = json!({"status": {"afloat": true}}).to_string().into_bytes();
    let merge = "application/merge-patch+json";
    let status = cluster
        .client
        .patch_value(&format!("{path}/status"), merge, body)
        .await
        .unwrap();
    assert_eq!(status["status"]["afloat"], true);
    let apply = json!({"apiVersion": "sea.example.com/v1", "kind": "Boat",
        "metadata": {"name": "a"}, "spec": {"name": "y"}})
    .to_string()
    .into_bytes();
    let path = format!("{path}?fieldManager=me&force=true");
    let applied = cluster
        .client
        .patch_value(&path, "application/apply-patch+yaml", apply)
        .await;
    assert_eq!(applied.unwrap()["spec"]["name"], "y");
    let beta = "/apis/sea.example.com/v1beta1/namespaces/default/boats";
    let list = cluster.get(beta).await.unwrap();
    assert_eq!(list["items"][0]["apiVersion"], "sea.example.com/v1beta1");
    let discovery = cluster.get("/apis/sea.example.com/v1").await.unwrap();
    assert_eq!(discovery["resources"][0]["shortNames"], json!(["bt"]));
    let openapi = cluster
        .get("/openapi/v3/apis/sea.example.com/v1")
        .await
        .unwrap();
    assert!(openapi["components"]["schemas"]["com.example.sea.v1.Boat"].is_object());
    cluster.stop().await;
}

#[tokio::test]
async fn a_definition_takes_its_instances_along() {
    let cluster = established().await;
    let boat =
        json!({"apiVersion": V1, "kind": "Boat", "metadata": {"name": "a"}, "spec": {"name": "x"}});
    cluster.post(BOATS, boat).await.unwrap();
    let path = format!("{DEFINITIONS}/boats.sea.example.com");
    let before = cluster.get(&path).await.unwrap();
    let version = before["metadata"]["resourceVersion"].as_str().unwrap();
    cluster.client.delete_value(&path, None).await.unwrap();
    let gone = |event: &WatchEvent<Value>| matches!(event, WatchEvent::Deleted(_));
    until_since(&cluster, version, gone).await;
    assert_eq!(cluster.get("/apis").await.unwrap()["kind"], "APIGroupList");
    cluster.post(DEFINITIONS, definition()).await.unwrap();
    until(&cluster, is_established).await;
    assert_eq!(cluster.get(BOATS).await.unwrap()["items"], json!([]));
    cluster.stop().await;
}

async fn send(cluster: &Cluster, method: Method, path: &str, kind: &str, body: &str) -> Value {
    let body = body.as_bytes().to_vec();
    let request = client::request::request(method, path, Some(kind), client::full(body)).unwrap();
    match cluster.client.send(request).await {
        Ok(answer) => {
            serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
        }
        Err(status) => status.to_value(),
    }
}

#[tokio::test]
async fn values_of_the_wrong_type_are_invalid() {
    let cluster = established().await;
    let boat = json!({"apiVersion": V1, "kind": "Boat", "metadata": {"name": "a"}, "spec": {"name": "x", "crew": "two"}});
    let refused = cluster.post(BOATS, boat).await.unwrap_err();
    assert_eq!((refused.code, refused.causes.len()), (422, 1));
    assert_eq!(refused.causes[0].reason, "FieldValueTypeInvalid");
    assert_eq!(
        refused.message,
        "Boat.sea.example.com \"a\" is invalid: spec.crew: Invalid value: \"string\": spec.crew in \
         body must be of type integer: \"string\""
    );
    let odd = json!({"apiVersion": V1, "kind": "Boat", "metadata": {"name": "a", "labels": {"x": 1}}, "spec": {"name": "x"}});
    assert_eq!(cluster.post(BOATS, odd).await.unwrap_err().code, 400);
    cluster.stop().await;
}

#[tokio::test]
async fn unknown_and_duplicate_fields_are_told_of() {
    let cluster = established().await;
    let strict = format!("{BOATS}?fieldValidation=Strict");
    let body = r#"{"apiVersion":"sea.example.com/v1","kind":"Boat","new":1,
        "metadata":{"name":"a","odd":1},"spec":{"name":"x","name":"y","more":{"deep":1}}}"#;
    let json = "application/json";
    let refused = send(&cluster, Method::POST, &strict, json, body).await;
    assert_eq!(
        refused["message"],
        "Boat in version \"v1\" cannot be handled as a Boat: strict decoding error: duplicate field \
         \"spec.name\", unknown field \"metadata.odd\", unknown field \"new\", unknown field \
         \"spec.more\""
    );
    let apply = format!("{BOATS}/a?fieldManager=me&fieldValidation=Strict");
    let yaml = "\napiVersion: sea.example.com/v1\nkind: Boat\nmetadata:\n  name: a\nspec:\n  name: x\n  name: y\n";
    let kind = "application/apply-patch+yaml";
    let refused = send(&cluster, Method::PATCH, &apply, kind, yaml).await;
    assert_eq!(
        refused["message"],
        "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  line \
         8: key \"name\" already set in map"
    );
    let yaml = "apiVersion: sea.example.com/v1\nkind: Boat\nmetadata:\n  name: a\nspec:\n  name: x\nnew: y\n";
    let refused = send(&cluster, Method::PATCH, &apply, kind, yaml).await;
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.contains(".new: field not declared in schema"),
        "{message}"
    );
    let beta = apply.replace("/v1/", "/v1beta1/");
    let yaml = yaml.replace("/v1\n", "/v1beta1\n");
    let refused = send(&cluster, Method::PATCH, &beta, kind, &yaml).await;
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.contains(".new: field not declared in schema"),
        "{message}"
    );
    cluster.stop().await;
}

async fn patch_definition(cluster: &Cluster, patch: Value) {
    let path = format!("{DEFINITIONS}/boats.sea.example.com");
    let body = patch.to_string().into_bytes();
    let kind = "application/json-patch+json";
    cluster.client.patch_value(&path, kind, body).await.unwrap();
}

/// Waits until a boat is served as wanted; the server learns of definitions by events.
async fn until_boat(cluster: &Cluster, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let wait = async {
        loop {
            let boat = cluster.get(&format!("{BOATS}/{name}")).await.unwrap();
            if wanted(&boat) {
                return boat;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), wait)
        .await
        .unwrap()
}

#[tokio::test]
async fn what_is_stored_is_defaulted_and_pruned_as_it_is_read() {
    let cluster = established().await;
    let boat =
        json!({"apiVersion": V1, "kind": "Boat", "metadata": {"name": "a"}, "spec": {"name": "x"}});
    cluster.post(BOATS, boat).await.unwrap();
    let properties = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    patch_definition(
        &cluster,
        json!([{"op": "add", "path": format!("{properties}/port"),
            "value": {"type": "string", "default": "home"}}]),
    )
    .await;
    let boat = until_boat(&cluster, "a", |boat| boat["spec"]["port"] == "home").await;
    assert_eq!(boat["metadata"]["generation"], 1);
    patch_definition(
        &cluster,
        json!([{"op": "remove", "path": format!("{properties}/crew")}]),
    )
    .await;
    until_boat(&cluster, "a", |boat| boat["spec"].get("crew").is_none()).await;
    cluster.stop().await;
}

#[tokio::test]
async fn what_was_wrong_before_may_stay_as_it_is() {
    let cluster = established().await;
    let boat = json!({"apiVersion": V1, "kind": "Boat", "metadata": {"name": "a"}, "spec": {"name": "x", "crew": 7}});
    cluster.post(BOATS, boat).await.unwrap();
    let crew = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/crew/maximum";
    patch_definition(&cluster, json!([{"op": "add", "path": crew, "value": 5}])).await;
    let over = json!({"apiVersion": V1, "kind": "Boat", "metadata": {"name": "b"}, "spec": {"name": "x", "crew": 6}});
    let path = format!("{BOATS}?dryRun=All");
    let wait = async { while cluster.post(&path, over.clone()).await.is_ok() {} };
    tokio::time::timeout(std::time::Duration::from_secs(10), wait)
        .await
        .unwrap();
    let merge = "application/merge-patch+json";
    let change = |crew: u32, name: &str| {
        let body = json!({"spec": {"crew": crew, "name": name}}).to_string();
        let cluster = &cluster;
        async move {
            let path = format!("{BOATS}/a");
            cluster
                .client
                .patch_value(&path, merge, body.into_bytes())
                .await
        }
    };
    assert_eq!(change(7, "y").await.unwrap()["spec"]["name"], "y");
    assert_eq!(change(8, "y").await.unwrap_err().code, 422);
    cluster.stop().await;
}

#[tokio::test]
async fn names_of_another_definition_are_refused_until_it_goes() {
    let cluster = established().await;
    let mut other = definition();
    other["metadata"]["name"] = "ships.sea.example.com".into();
    other["spec"]["names"] = json!({"plural": "ships", "kind": "Ship", "shortNames": ["bt"]});
    cluster.post(DEFINITIONS, other).await.unwrap();
    let condition = |event: &WatchEvent<Value>, kind: &str, reason: &str| {
        let (WatchEvent::Added(object) | WatchEvent::Modified(object)) = event else {
            return false;
        };
        let conditions = object["status"]["conditions"].as_array();
        let is_meant = object["metadata"]["name"] == "ships.sea.example.com";
        is_meant
            && conditions
                .into_iter()
                .flatten()
                .any(|own| own["type"] == kind && own["reason"] == reason)
    };
    until(&cluster, |event| {
        condition(event, "NamesAccepted", "ShortNamesConflict")
    })
    .await;
    let ships = "/apis/sea.example.com/v1/namespaces/default/ships";
    assert_eq!(cluster.get(ships).await.unwrap_err().code, 404);
    let path = format!("{DEFINITIONS}/boats.sea.example.com");
    cluster.client.delete_value(&path, None).await.unwrap();
    until(&cluster, |event| {
        condition(event, "Established", "InitialNamesAccepted")
    })
    .await;
    assert_eq!(cluster.get(ships).await.unwrap()["items"], json!([]));
    cluster.stop().await;
}

#[tokio::test]
async fn an_instance_can_hold_up_its_definition() {
    let cluster = established().await;
    let boat = json!({"apiVersion": V1, "kind": "Boat", "metadata": {"name": "a", "finalizers": ["example.com/x"]},
        "spec": {"name": "x"}});
    cluster.post(BOATS, boat.clone()).await.unwrap();
    let path = format!("{DEFINITIONS}/boats.sea.example.com");
    let going = cluster.client.delete_value(&path, None).await.unwrap();
    assert_eq!(
        going["metadata"]["finalizers"],
        json!(["customresourcecleanup.apiextensions.k8s.io"])
    );
    let wait = async {
        loop {
            let mut again = boat.clone();
            again["metadata"]["name"] = "b".into();
            match cluster.post(BOATS, again).await {
                Err(status) if status.code == 403 => return status,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    let refused = tokio::time::timeout(std::time::Duration::from_secs(10), wait).await;
    assert!(
        refused
            .unwrap()
            .message
            .ends_with("create not allowed while custom resource definition is terminating")
    );
    let before = cluster.get(&path).await.unwrap();
    let version = before["metadata"]["resourceVersion"].as_str().unwrap();
    let list = cluster.get(BOATS).await.unwrap();
    let free = json!({"metadata": {"finalizers": null}}).to_string();
    for boat in list["items"].as_array().unwrap() {
        let path = format!("{BOATS}/{}", boat["metadata"]["name"].as_str().unwrap());
        let merge = "application/merge-patch+json";
        let freed = cluster
            .client
            .patch_value(&path, merge, free.clone().into_bytes());
        freed.await.unwrap();
    }
    let gone = |event: &WatchEvent<Value>| matches!(event, WatchEvent::Deleted(_));
    until_since(&cluster, version, gone).await;
    assert_eq!(cluster.get(&path).await.unwrap_err().code, 404);
    cluster.stop().await;
}

#[tokio::test]
async fn chosen_fields_select() {
    let cluster = Cluster::start().await;
    let mut definition = definition();
    definition["spec"]["versions"][0]["selectableFields"] =
        json!([{"jsonPath": ".spec.name"}, {"jsonPath": ".spec.crew"}]);
    cluster.post(DEFINITIONS, definition).await.unwrap();
    until(&cluster, is_established).await;
    for (name, crew) in [("a", 1), ("b", 2), ("c", 2)] {
        let boat = json!({"apiVersion": V1, "kind": "Boat", "metadata": {"name": name}, "spec": {"name": "x", "crew": crew}});
        cluster.post(BOATS, boat).await.unwrap();
    }
    let names = |list: Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items
            .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let path = format!("{BOATS}?fieldSelector=spec.crew%3D2,spec.name%3Dx");
    assert_eq!(names(cluster.get(&path).await.unwrap()), ["b", "c"]);
    let odd = format!("{BOATS}?fieldSelector=spec.free%3D2");
    let refused = cluster.get(&odd).await.unwrap_err();
    assert_eq!(refused.message, "field label not supported: spec.free");
    cluster.client.delete_value(&path, None).await.unwrap();
    assert_eq!(names(cluster.get(BOATS).await.unwrap()), ["a"]);
    cluster.stop().await;
}

#[tokio::test]
async fn definitions_are_held_to_their_rules() {
    let cluster = established().await;
    let mut wrong = definition();
    wrong["metadata"]["name"] = "ships.sea.example.com".into();
    wrong["spec"]["names"]["plural"] = "ships".into();
    wrong["spec"]["versions"][1]["schema"]["openAPIV3Schema"]["properties"]["spec"]["type"] =
        Value::Null;
    let refused = cluster.post(DEFINITIONS, wrong).await.unwrap_err();
    assert_eq!(
        refused.message,
        "CustomResourceDefinition.apiextensions.k8s.io \"ships.sea.example.com\" is invalid: \
         spec.versions[1].schema.openAPIV3Schema.properties[spec].type: Required value: must not be \
         empty for specified object fields"
    );
    let path = format!("{DEFINITIONS}/boats.sea.example.com");
    let own = cluster.get(&path).await.unwrap();
    assert_eq!(own["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(own["status"]["acceptedNames"]["singular"], "boat");
    assert!(own["metadata"].get("finalizers").is_none(), "{own}");
    let body = json!([{"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": true}]);
    patch_definition(&cluster, body).await;
    let gone = json!([{"op": "remove", "path": "/spec/versions/0"}]).to_string();
    let kind = "application/json-patch+json";
    let refused = cluster
        .client
        .patch_value(&path, kind, gone.clone().into_bytes())
        .await;
    assert!(
        refused
            .unwrap_err()
            .message
            .contains("status.storedVersions[0]: Invalid value")
    );
    let body = json!({"status": {"storedVersions": ["v1beta1"]}}).to_string();
    let merge = "application/merge-patch+json";
    let status = format!("{path}/status");
    cluster
        .client
        .patch_value(&status, merge, body.into_bytes())
        .await
        .unwrap();
    cluster
        .client
        .patch_value(&path, kind, gone.into_bytes())
        .await
        .unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn events_are_seen_in_both_versions_and_expire() {
    let crew = base::Crew::new();
    let store = store::memory(&crew).await.unwrap();
    let cluster = Cluster::over(store.clone(), crew, 6443).await;
    let newer = "/apis/events.k8s.io/v1/namespaces/default/events";
    let event = json!({"metadata": {"name": "e", "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "example.com/c",
        "reportingInstance": "i", "action": "Doing", "reason": "Done", "type": "Normal",
        "note": "all is well",
        "regarding": {"kind": "Pod", "namespace": "default", "name": "p"}});
    let made = cluster.post(newer, event).await.unwrap();
    assert_eq!(made["note"], "all is well", "{made}");
    let core = cluster
        .get("/api/v1/namespaces/default/events/e")
        .await
        .unwrap();
    assert_eq!(
        (&core["message"], &core["apiVersion"]),
        (&json!("all is well"), &json!("v1"))
    );
    let selected = "/api/v1/events?fieldSelector=involvedObject.name%3Dp";
    assert_eq!(
        cluster.get(selected).await.unwrap()["items"][0]["reason"],
        "Done"
    );
    assert_eq!(
        cluster.get(newer).await.unwrap()["items"][0]["regarding"]["name"],
        "p"
    );
    let path = format!("{newer}/e");
    let merge = "application/merge-patch+json";
    let patch = |change: Value| {
        let body = change.to_string().into_bytes();
        cluster.client.patch_value(&path, merge, body)
    };
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    let patched = patch(labels).await.unwrap();
    assert_eq!(patched["metadata"]["labels"]["a"], "b");
    // What the newer version says once, it says for good.
    let refused = patch(json!({"note": "all is better"})).await.unwrap_err();
    let text = &refused.message;
    assert!(text.contains("message: Invalid value"), "{text}");
    let leases = store.leases().await.unwrap();
    let status = store.lease_status(leases[0]).await.unwrap();
    assert_eq!(status.ttl_seconds_granted, 3660);
    assert_eq!(status.keys, ["/registry/events/default/e"]);
    store.lease_revoke(leases[0]).await.unwrap();
    assert!(cluster.get(&path).await.unwrap_err().is_not_found());
    cluster.stop().await;
}
