//! Answers that were found to differ from a real kube-apiserver's, request by request.

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{Cluster, PODS, pod};
use crate::wire;

const REVIEWS: &str = "/apis/authorization.k8s.io/v1";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const MERGE: &str = "application/merge-patch+json";

async fn start() -> Cluster {
    let cluster = Cluster::start().await;
    let account = json!({"metadata": {"name": "default"}});
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    cluster.post(accounts, account).await.unwrap();
    cluster
}

async fn get(cluster: &Cluster, path: &str, accept: &str) -> (u16, String) {
    let (code, body) = wire::text(cluster, path, &[("accept", accept)]).await;
    let tree: Value = serde_json::from_str(&body).unwrap_or_default();
    (code, tree["message"].as_str().unwrap_or("").to_owned())
}

#[tokio::test]
async fn logs_and_sessions() {
    let cluster = start().await;
    cluster.post(PODS, pod("one")).await.unwrap();
    let mut two = pod("two");
    two["spec"]["containers"] = json!([{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]);
    two["spec"]["initContainers"] = json!([{"name": "i", "image": "x"}]);
    two["spec"]["nodeName"] = "gone".into();
    cluster.post(PODS, two).await.unwrap();
    let choose = "a container name must be specified for pod two, choose one of: [i a b]";
    let once = "PodLogOptions \"none\" is invalid: []: Forbidden: at most one of `sinceTime` or \
                `sinceSeconds` may be specified";
    for (path, code, message) in [
        ("one/log", 204, ""),
        ("two/log", 400, choose),
        ("two/log?container=a", 404, "pods \"gone\" not found"),
        ("two/portforward", 404, "pods \"gone\" not found"),
        (
            "one/exec?command=a",
            400,
            "pod one does not have a host assigned",
        ),
        (
            "none/log?tailLines=x",
            400,
            "strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        (
            "none/log?sinceTime=x",
            400,
            "parsing time \"x\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"x\" as \"2006\"",
        ),
        (
            "none/log?sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
            422,
            once,
        ),
        (
            "none/log?stream=Stdout",
            422,
            "PodLogOptions \"none\" is invalid: stream: Forbidden: may not be specified",
        ),
    ] {
        let found = get(&cluster, &format!("{PODS}/{path}"), "*/*").await;
        assert_eq!(found, (code, message.to_owned()), "{path}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn one_object_is_no_list_and_services_need_endpoints() {
    let cluster = start().await;
    cluster.post(PODS, pod("one")).await.unwrap();
    let many = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let one = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let text = "you requested PartialObjectMetadataList, but the requested object is not a list \
                (*core.Pod)";
    let found = get(&cluster, &format!("{PODS}/one"), many).await;
    assert_eq!(found, (406, text.to_owned()));
    let text = "you requested PartialObjectMetadata, but the requested object is a list \
                (*core.PodList)";
    assert_eq!(get(&cluster, PODS, one).await, (406, text.to_owned()));
    assert_eq!(get(&cluster, PODS, many).await.0, 200);
    let service = json!({"metadata": {"name": "sv"}, "spec": {"ports": [{"port": 80}]}});
    cluster.post(SERVICES, service).await.unwrap();
    let found = get(&cluster, &format!("{SERVICES}/sv/proxy/"), "*/*").await;
    assert_eq!(found, (404, "services \"sv\" not found".to_owned()));
    cluster.stop().await;
}

#[tokio::test]
async fn questions_have_no_names() {
    let cluster = start().await;
    let path = format!("{REVIEWS}/selfsubjectaccessreviews");
    let attributes = json!({"verb": "get", "resource": "pods"});
    let named = json!({"metadata": {"name": "x"}, "spec": {"resourceAttributes": attributes}});
    let refused = cluster.post(&path, named).await.unwrap_err();
    assert_eq!(
        refused.message,
        ".authorization.k8s.io \"\" is invalid: metadata: Invalid value: {\"name\":\"x\"}: must be \
         empty"
    );
    let elsewhere = json!({"metadata": {"namespace": "x"},
        "spec": {"resourceAttributes": attributes}});
    let answer = cluster.post(&path, elsewhere).await.unwrap();
    assert_eq!(answer["metadata"].get("namespace"), None);
    let both = json!({"spec": {"resourceAttributes": attributes,
        "nonResourceAttributes": {"path": "/x", "verb": "get"}}});
    let refused = cluster.post(&path, both).await.unwrap_err();
    assert_eq!(
        refused.causes[0].message,
        "Invalid value: {\"Path\":\"/x\",\"Verb\":\"get\"}: cannot be specified in combination with \
         resourceAttributes"
    );
    for method in [Method::GET, Method::POST, Method::DELETE] {
        let path = format!("{path}/x");
        let answer = cluster.client.send_value(method, &path, &json!({})).await;
        assert_eq!(answer.unwrap_err().code, 404);
    }
    let who = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let named = json!({"metadata": {"name": "x"}});
    let answer = cluster.post(who, named).await.unwrap();
    assert_eq!(answer["metadata"].get("name"), None);
    assert!(answer["metadata"]["creationTimestamp"].is_string());
    let bindings = cluster.post("/api/v1/bindings", json!({})).await;
    assert_eq!(bindings.unwrap_err().code, 404);
    cluster.stop().await;
}

#[tokio::test]
async fn deletions_that_cannot_be_read_delete_nothing() {
    let cluster = start().await;
    cluster.post(PODS, pod("one")).await.unwrap();
    let path = format!("{PODS}/one");
    for (options, message) in [
        (
            json!({"gracePeriodSeconds": "0"}),
            "json: cannot unmarshal string into Go struct field DeleteOptions.gracePeriodSeconds \
             of type int64",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Pod"}),
            "no kind \"Pod\" is registered for version \"v1\" in scheme \
             \"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27\"",
        ),
    ] {
        let method = Method::DELETE;
        let refused = cluster.client.send_value(method, &path, &options).await;
        assert_eq!(refused.unwrap_err().message, message);
    }
    let dry = json!({"dryRun": ["All"]});
    let gone = cluster.client.send_value(Method::DELETE, &path, &dry).await;
    let gone: Value = gone.unwrap();
    assert_eq!(gone["metadata"]["deletionGracePeriodSeconds"], 0);
    cluster.get(&path).await.unwrap();
    let old = json!({"apiVersion": "policy/v1beta1", "kind": "Eviction",
        "metadata": {"name": "one"}});
    cluster
        .post(&format!("{path}/eviction"), old)
        .await
        .unwrap();
    assert_eq!(cluster.get(&path).await.unwrap_err().code, 404);
    cluster.stop().await;
}

#[tokio::test]
async fn parts_of_objects_keep_what_never_changes() {
    let cluster = start().await;
    cluster.post(PODS, pod("one")).await.unwrap();
    let patch = json!({"metadata": {"uid": "zz"}}).to_string();
    let path = format!("{PODS}/one/status");
    let refused = cluster.client.patch_value(&path, MERGE, patch.into_bytes());
    assert_eq!(
        refused.await.unwrap_err().message,
        "Pod \"one\" is invalid: metadata.uid: Invalid value: \"zz\": field is immutable"
    );
    // A time of deletion is left aside.
    let mut sent = cluster.get(&path).await.unwrap();
    sent["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let kept = cluster.put(&path, &sent).await.unwrap();
    assert_eq!(kept["metadata"].get("deletionTimestamp"), None);
    let devices = json!({"requests": [{"name": "a",
        "exactly": {"deviceClassName": "c", "adminAccess": true}}]});
    let claim = json!({"metadata": {"name": "a"}, "spec": {"devices": devices}});
    let claims = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
    let refused = cluster.post(claims, claim.clone()).await.unwrap_err();
    assert_eq!(
        refused.message,
        "ResourceClaim.resource.k8s.io \"a\" is invalid: spec.devices.requests[0].adminAccess: \
         Forbidden: admin access to devices requires the `resource.kubernetes.io/admin-access: \
         true` label on the containing namespace"
    );
    let label = json!({"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}});
    let namespace = "/api/v1/namespaces/default";
    let label = label.to_string().into_bytes();
    let marked = cluster.client.patch_value(namespace, MERGE, label);
    marked.await.unwrap();
    cluster.post(claims, claim).await.unwrap();
    cluster.stop().await;
}
