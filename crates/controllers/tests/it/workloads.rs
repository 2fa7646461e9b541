//! Workloads from their creation to what their status says in the end.

use base::Crew;
use serde_json::{Value, json};

use crate::node;
use crate::world::World;

const PODS: &str = "/api/v1/namespaces/default/pods";
const APPS: &str = "/apis/apps/v1/namespaces/default";
const BATCH: &str = "/apis/batch/v1/namespaces/default";

/// A world with somebody who runs the pods.
struct Town {
    world: World,
    node: Crew,
}

impl Town {
    async fn start() -> Town {
        let world = World::start().await;
        let node = Crew::new();
        node::start(&world.client, &node);
        Town { world, node }
    }

    async fn stop(self) {
        self.node.stop().raise();
        self.node.finished().await.unwrap();
        self.world.stop().await;
    }

    async fn create(&self, prefix: &str, kind: &str, name: &str, spec: Value) -> String {
        let (group, version) = match prefix {
            APPS => ("apps/v1", "apps"),
            BATCH => ("batch/v1", "batch"),
            _ => ("v1", ""),
        };
        assert!(!version.is_empty() || group == "v1");
        let collection = format!("{prefix}/{}s", kind.to_lowercase());
        let body = json!({"apiVersion": group, "kind": kind, "metadata": {"name": name},
            "spec": spec});
        self.world.post(&collection, body).await;
        format!("{collection}/{name}")
    }

    /// Waits until status fields of the object have these values.
    async fn until_status(&self, path: &str, wanted: Value) -> Value {
        let wanted = wanted.as_object().unwrap().clone();
        let fits = |object: Option<&Value>| {
            let status = object.map(|object| &object["status"]);
            status.is_some_and(|status| wanted.iter().all(|(key, value)| status[key] == *value))
        };
        self.world.until(path, fits).await
    }

    async fn items(&self, path: &str) -> Vec<Value> {
        let list = self.world.get(path).await.unwrap();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    async fn reasons(&self, name: &str) -> Vec<String> {
        let events = self.items("/api/v1/namespaces/default/events").await;
        let about = events
            .iter()
            .filter(|one| one["involvedObject"]["name"] == name);
        about
            .filter_map(|one| one["reason"].as_str().map(str::to_owned))
            .collect()
    }
}

fn template(app: &str, image: &str, outcome: &str) -> Value {
    let restart = if outcome == "Running" || outcome == "Stuck" {
        "Always"
    } else {
        "Never"
    };
    json!({"metadata": {"labels": {"app": app}, "annotations": {"test/outcome": outcome}},
        "spec": {"restartPolicy": restart, "containers": [{"name": "c", "image": image}]}})
}

fn workload(app: &str, replicas: i32) -> Value {
    json!({"replicas": replicas, "selector": {"matchLabels": {"app": app}},
        "template": template(app, "v1", "Running")})
}

fn image(version: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": version}]}}}})
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array();
    let mut found = conditions
        .into_iter()
        .flatten()
        .filter(|one| one["type"] == kind);
    found.next().unwrap_or(&Value::Null)
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_rolls_out_scales_and_goes_back() {
    let town = Town::start().await;
    let path = town
        .create(APPS, "Deployment", "web", workload("web", 3))
        .await;
    let done = json!({"replicas": 3, "updatedReplicas": 3, "availableReplicas": 3});
    let web = town.until_status(&path, done.clone()).await;
    let revision = "deployment.kubernetes.io/revision";
    assert_eq!(web["metadata"]["annotations"][revision], "1");

    town.world.patch(&path, image("v2")).await;
    let with_revision = |wanted: &'static str| {
        move |web: Option<&Value>| {
            web.is_some_and(|web| {
                web["metadata"]["annotations"][revision] == wanted
                    && web["status"]["observedGeneration"] == web["metadata"]["generation"]
                    && web["status"]["updatedReplicas"] == 3
                    && web["status"]["replicas"] == 3
                    && condition(web, "Progressing")["reason"] == "NewReplicaSetAvailable"
            })
        }
    };
    town.world.until(&path, with_revision("2")).await;
    let pods = town.items(&format!("{PODS}?labelSelector=app%3Dweb")).await;
    assert!(
        pods.iter()
            .all(|pod| pod["spec"]["containers"][0]["image"] == "v2"
                || pod["metadata"]["deletionTimestamp"].is_string())
    );

    town.world.patch(&path, image("v1")).await;
    town.world.until(&path, with_revision("3")).await;
    assert_eq!(
        town.items(&format!("{APPS}/replicasets")).await.len(),
        2,
        "v1's set came back"
    );
    town.world
        .patch(&path, json!({"spec": {"replicas": 5}}))
        .await;
    town.until_status(&path, json!({"replicas": 5, "availableReplicas": 5}))
        .await;
    assert!(
        town.reasons("web")
            .await
            .contains(&"ScalingReplicaSet".to_owned())
    );
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_stops_a_set_without_a_flood() {
    let town = Town::start().await;
    let quota = town
        .create(
            "/api/v1/namespaces/default",
            "ResourceQuota",
            "few",
            json!({"hard": {"pods": "2"}}),
        )
        .await;
    town.world
        .until(&quota, |quota| {
            quota.is_some_and(|quota| quota["status"]["hard"]["pods"] == "2")
        })
        .await;
    let path = town
        .create(APPS, "ReplicaSet", "many", workload("many", 200))
        .await;
    let set = town
        .world
        .until(&path, |set| {
            set.is_some_and(|set| {
                condition(set, "ReplicaFailure")["status"] == "True"
                    && set["status"]["availableReplicas"] == 2
            })
        })
        .await;
    assert_eq!(condition(&set, "ReplicaFailure")["reason"], "FailedCreate");
    town.world
        .patch(&path, json!({"spec": {"replicas": 2}}))
        .await;
    town.world
        .until(&path, |set| {
            set.is_some_and(|set| condition(set, "ReplicaFailure").is_null())
        })
        .await;
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replication_controller_keeps_its_number() {
    let town = Town::start().await;
    let spec = json!({"replicas": 2, "selector": {"app": "old"},
        "template": template("old", "v1", "Running")});
    let core = "/api/v1/namespaces/default";
    let path = town
        .create(core, "ReplicationController", "old", spec)
        .await;
    town.until_status(&path, json!({"replicas": 2, "availableReplicas": 2}))
        .await;
    let pods = town.items(PODS).await;
    town.world
        .delete(&format!("{PODS}/{}", name(&pods[0])), "Background")
        .await;
    town.world
        .until_gone(&format!("{PODS}/{}", name(&pods[0])))
        .await;
    town.until_status(&path, json!({"replicas": 2, "availableReplicas": 2}))
        .await;
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stateful_set_keeps_names_order_and_storage() {
    let town = Town::start().await;
    let mut spec = workload("db", 3);
    spec["serviceName"] = "db".into();
    spec["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]);
    let path = town.create(APPS, "StatefulSet", "db", spec).await;
    let set = town
        .until_status(&path, json!({"readyReplicas": 3, "currentReplicas": 3}))
        .await;
    let first = set["status"]["currentRevision"].clone();
    assert_eq!(first, set["status"]["updateRevision"]);
    let pods = town.items(PODS).await;
    let names: Vec<_> = pods.iter().map(name).collect();
    assert_eq!(names, ["db-0", "db-1", "db-2"]);
    assert_eq!(
        pods[1]["metadata"]["labels"]["controller-revision-hash"],
        first
    );
    let claim = &pods[1]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"];
    assert_eq!(claim, "data-db-1");

    town.world.patch(&path, image("v2")).await;
    let set = town
        .world
        .until(&path, |set| {
            set.is_some_and(|set| {
                let status = &set["status"];
                status["updatedReplicas"] == 3
                    && status["readyReplicas"] == 3
                    && status["currentRevision"] == status["updateRevision"]
                    && status["currentRevision"] != first
            })
        })
        .await;
    assert_eq!(
        set["status"]["observedGeneration"],
        set["metadata"]["generation"]
    );
    town.world
        .patch(&path, json!({"spec": {"replicas": 1}}))
        .await;
    town.until_status(&path, json!({"replicas": 1, "readyReplicas": 1}))
        .await;
    assert!(town.world.get(&format!("{PODS}/db-0")).await.is_some());
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    assert_eq!(town.items(claims).await.len(), 3, "claims are retained");
    assert_eq!(
        town.items(&format!("{APPS}/controllerrevisions"))
            .await
            .len(),
        2
    );
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_set_is_on_every_node() {
    let town = Town::start().await;
    let node = |name: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    for name in ["n1", "n2"] {
        town.world.post("/api/v1/nodes", node(name)).await;
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True",
            "reason": "KubeletReady", "lastHeartbeatTime": meta::time::now(),
            "lastTransitionTime": meta::time::now()}]}});
        town.world
            .patch(&format!("/api/v1/nodes/{name}/status"), ready)
            .await;
    }
    let spec = json!({"selector": {"matchLabels": {"app": "log"}},
        "template": template("log", "v1", "Running")});
    let path = town.create(APPS, "DaemonSet", "log", spec).await;
    let all = json!({"desiredNumberScheduled": 2, "numberAvailable": 2,
        "updatedNumberScheduled": 2, "numberMisscheduled": 0});
    town.until_status(&path, all.clone()).await;
    let pods = town.items(PODS).await;
    let mut nodes: Vec<_> = pods
        .iter()
        .filter_map(|pod| pod["spec"]["nodeName"].as_str())
        .collect();
    nodes.sort_unstable();
    assert_eq!(nodes, ["n1", "n2"]);

    town.world.patch(&path, image("v2")).await;
    let mut updated = all.clone();
    updated["observedGeneration"] = 2.into();
    town.until_status(&path, updated).await;
    let pods = town.items(PODS).await;
    assert!(
        pods.iter()
            .all(|pod| pod["spec"]["containers"][0]["image"] == "v2")
    );
    town.world.delete("/api/v1/nodes/n2", "Background").await;
    town.until_status(
        &path,
        json!({"desiredNumberScheduled": 1, "numberAvailable": 1}),
    )
    .await;
    town.stop().await;
}

fn job(app: &str, outcome: &str, more: Value) -> Value {
    let mut spec = json!({"template": template(app, "v1", outcome)});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec
}

fn is_true(object: Option<&Value>, kind: &str) -> bool {
    object.is_some_and(|object| condition(object, kind)["status"] == "True")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_succeed_and_fail_and_their_pods_are_counted_once() {
    let town = Town::start().await;
    let spec = job(
        "sum",
        "Succeeded",
        json!({"parallelism": 3, "completions": 7}),
    );
    let path = town.create(BATCH, "Job", "sum", spec).await;
    let sum = town
        .world
        .until(&path, |job| is_true(job, "Complete"))
        .await;
    assert_eq!(sum["status"]["succeeded"], 7);
    assert_eq!(
        condition(&sum, "SuccessCriteriaMet")["reason"],
        "CompletionsReached"
    );
    let pods = town.items(&format!("{PODS}?labelSelector=app%3Dsum")).await;
    assert_eq!(pods.len(), 7);
    assert!(
        pods.iter()
            .all(|pod| pod["metadata"]["finalizers"].is_null())
    );

    let indexed = json!({"completionMode": "Indexed", "parallelism": 2, "completions": 5});
    let path = town
        .create(BATCH, "Job", "parts", job("parts", "Succeeded", indexed))
        .await;
    let parts = town
        .world
        .until(&path, |job| is_true(job, "Complete"))
        .await;
    assert_eq!(parts["status"]["completedIndexes"], "0-4");

    let spec = job("bad", "Failed", json!({"backoffLimit": 0}));
    let path = town.create(BATCH, "Job", "bad", spec).await;
    let bad = town.world.until(&path, |job| is_true(job, "Failed")).await;
    assert_eq!(condition(&bad, "Failed")["reason"], "BackoffLimitExceeded");
    assert_eq!(bad["status"]["failed"], 1);

    let spec = job("brief", "Succeeded", json!({"ttlSecondsAfterFinished": 0}));
    let path = town.create(BATCH, "Job", "brief", spec).await;
    town.world.until_gone(&path).await;
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_pauses_and_goes_on_and_its_deletion_frees_its_pods() {
    let town = Town::start().await;
    let spec = job("slow", "Stuck", json!({"parallelism": 2, "completions": 2}));
    let mut spec = spec;
    spec["template"]["spec"]["restartPolicy"] = "Never".into();
    let path = town.create(BATCH, "Job", "slow", spec).await;
    town.until_status(&path, json!({"active": 2})).await;
    town.world
        .patch(&path, json!({"spec": {"suspend": true}}))
        .await;
    let slow = town
        .world
        .until(&path, |job| {
            is_true(job, "Suspended") && job.is_some_and(|job| job["status"]["active"].is_null())
        })
        .await;
    assert_eq!(condition(&slow, "Suspended")["reason"], "JobSuspended");
    town.world
        .patch(&path, json!({"spec": {"suspend": false}}))
        .await;
    town.world
        .until(&path, |job| !is_true(job, "Suspended"))
        .await;
    town.world.delete(&path, "Background").await;
    town.world.until_gone(&path).await;
    let none = |list: Option<&Value>| {
        list.is_some_and(|list| list["items"].as_array().is_some_and(Vec::is_empty))
    };
    town.world
        .until(&format!("{PODS}?labelSelector=app%3Dslow"), none)
        .await;

    let mut spec = job("left", "Stuck", json!({}));
    spec["template"]["spec"]["restartPolicy"] = "Never".into();
    let path = town.create(BATCH, "Job", "left", spec).await;
    town.until_status(&path, json!({"active": 1})).await;
    town.world.delete(&path, "Orphan").await;
    town.world.until_gone(&path).await;
    let free = |list: Option<&Value>| {
        let pods = list.and_then(|list| list["items"].as_array());
        pods.is_some_and(|pods| {
            pods.len() == 1
                && pods[0]["metadata"]["finalizers"].is_null()
                && pods[0]["metadata"]["ownerReferences"].is_null()
        })
    };
    town.world
        .until(&format!("{PODS}?labelSelector=app%3Dleft"), free)
        .await;
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cron_job_catches_up_once() {
    let town = Town::start().await;
    let spec = json!({"schedule": "0 * * * *", "timeZone": "Etc/UTC",
        "jobTemplate": {"spec": job("tick", "Succeeded", json!({}))}});
    let path = town.create(BATCH, "CronJob", "tick", spec).await;
    assert!(
        town.items(&format!("{BATCH}/jobs")).await.is_empty(),
        "nothing is due"
    );
    let past = json!({"status": {"lastScheduleTime": "2026-01-01T00:00:00Z"}});
    town.world.patch(&format!("{path}/status"), past).await;
    let tick = town
        .world
        .until(&path, |cron| {
            cron.is_some_and(|cron| cron["status"]["lastSuccessfulTime"].is_string())
        })
        .await;
    let jobs = town.items(&format!("{BATCH}/jobs")).await;
    assert_eq!(jobs.len(), 1);
    let due: String = tick["status"]["lastScheduleTime"]
        .as_str()
        .unwrap()
        .to_owned();
    let due = meta::time::parse(&due).unwrap();
    assert_eq!(name(&jobs[0]), format!("tick-{}", due.as_second() / 60));
    town.until_status(&path, json!({"active": null})).await;
    assert!(
        town.reasons("tick")
            .await
            .contains(&"SuccessfulCreate".to_owned())
    );
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_goes_with_all_its_workloads() {
    let town = Town::start().await;
    let name = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gone"}});
    town.world.post("/api/v1/namespaces", name).await;
    let gone = "/api/v1/namespaces/gone";
    town.world
        .until(&format!("{gone}/serviceaccounts/default"), |account| {
            account.is_some()
        })
        .await;
    let apps = "/apis/apps/v1/namespaces/gone";
    for kind in ["Deployment", "StatefulSet"] {
        let body = json!({"apiVersion": "apps/v1", "kind": kind,
            "metadata": {"name": "all"}, "spec": workload(kind, 5)});
        let collection = format!("{apps}/{}s", kind.to_lowercase());
        town.world.post(&collection, body).await;
        let path = format!("{collection}/all");
        town.until_status(&path, json!({"readyReplicas": 5})).await;
    }
    let batch = "/apis/batch/v1/namespaces/gone/jobs";
    let mut spec = job("long", "Stuck", json!({"parallelism": 3, "completions": 3}));
    spec["template"]["spec"]["restartPolicy"] = "Never".into();
    let body = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "long"},
        "spec": spec});
    town.world.post(batch, body).await;
    town.until_status(&format!("{batch}/long"), json!({"active": 3}))
        .await;
    town.world.delete(gone, "Background").await;
    town.world.until_gone(gone).await;
    town.stop().await;
}
