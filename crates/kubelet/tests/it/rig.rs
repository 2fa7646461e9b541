//! A kubelet on fakes, and words to ask about it.

use std::sync::Arc;
use std::time::Duration;

use base::Crew;
use base64::Engine;
use kubelet::{Config, Parts};
use serde_json::{Value, json};

use crate::api::FakeApi;
use crate::runtime::FakeRuntime;

pub(crate) const NODE: &str = "node-1";
pub(crate) const IMAGE: &str = "demo:1";

pub(crate) struct Rig {
    pub(crate) api: FakeApi,
    pub(crate) runtime: FakeRuntime,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) crew: Crew,
}

pub(crate) fn pod_path(name: &str) -> String {
    format!("/api/v1/namespaces/default/pods/{name}")
}

/// A pod on the node; `spec` is merged over one plain container.
pub(crate) fn pod(name: &str, spec: Value) -> Value {
    let mut whole = json!({
        "nodeName": NODE, "restartPolicy": "Always", "terminationGracePeriodSeconds": 5,
        "containers": [{"name": "main", "image": IMAGE}],
    });
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "generation": 1},
        "spec": whole,
    })
}

impl Rig {
    pub(crate) async fn new() -> Rig {
        let rig = Rig {
            api: FakeApi::new(),
            runtime: FakeRuntime::with_image(IMAGE),
            folder: tempfile::tempdir().unwrap(),
            crew: Crew::new(),
        };
        rig.start_kubelet(&rig.crew).await;
        rig
    }

    pub(crate) fn config(&self) -> Config {
        let root = self.folder.path();
        let ip = "192.0.2.1".parse().unwrap();
        let mut config = Config::new(NODE, ip, root.join("kubelet"), root.join("logs"));
        // What this machine's kernel says, and how full its disk is, is no part of any test.
        config.eviction.thresholds.clear();
        config.image_gc_high_percent = 100;
        config.problems.monitors.clear();
        config.problems.system_ooms = false;
        config.clock = self.runtime.clock();
        config
    }

    pub(crate) async fn start_kubelet(&self, crew: &Crew) {
        self.start_with(self.config(), crew).await;
    }

    pub(crate) fn parts(&self) -> Parts {
        Parts {
            cgroups: Arc::new(self.runtime.clone()),
            runtime: Arc::new(self.runtime.clone()),
            images: Arc::new(self.runtime.clone()),
        }
    }

    pub(crate) async fn start_with(&self, config: Config, crew: &Crew) {
        kubelet::run(self.api.client(), self.parts(), config, crew)
            .await
            .unwrap();
    }

    /// Stops the kubelet and starts another on the same runtime and folders.
    pub(crate) async fn restart_kubelet(&mut self) {
        self.restart_with(self.config()).await;
    }

    /// The same with another configuration.
    pub(crate) async fn restart_with(&mut self, config: Config) {
        self.stop_kubelet().await;
        self.start_with(config, &self.crew).await;
    }

    /// Stops the kubelet, and the machine below it, and starts both again.
    pub(crate) async fn reboot(&mut self) {
        self.stop_kubelet().await;
        self.runtime.reboot();
        self.start_kubelet(&self.crew).await;
    }

    async fn stop_kubelet(&mut self) {
        self.crew.stop().raise();
        self.crew.finished().await.unwrap();
        self.crew = Crew::new();
    }

    pub(crate) fn create(&self, name: &str, spec: Value) -> Value {
        self.api.put(&pod_path(name), pod(name, spec))
    }

    pub(crate) fn pod(&self, name: &str) -> Value {
        self.api.get(&pod_path(name)).unwrap_or(Value::Null)
    }

    /// Puts a pull secret for a registry.
    pub(crate) fn put_login(&self, name: &str, registry: &str, user: &str, password: &str) {
        let auths = json!({"auths": {registry: {"username": user, "password": password}}});
        let auths = base64::engine::general_purpose::STANDARD.encode(auths.to_string());
        let uid = format!("uid-of-{name}");
        let secret = json!({
            "metadata": {"name": name, "namespace": "default", "uid": uid},
            "type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": auths},
        });
        let path = format!("/api/v1/namespaces/default/secrets/{name}");
        self.api.put(&path, secret);
    }

    /// Asks for a graceful deletion, as the API server notes it.
    pub(crate) fn delete(&self, name: &str, grace: i64) {
        let mut pod = self.pod(name);
        pod["metadata"]["deletionTimestamp"] = jiff::Timestamp::now().to_string().into();
        pod["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        self.api.put(&pod_path(name), pod);
    }

    pub(crate) async fn wait_pod(
        &self,
        name: &str,
        what: &str,
        test: impl Fn(&Value) -> bool,
    ) -> Value {
        wait(&format!("{name} {what}"), || {
            let pod = self.pod(name);
            test(&pod).then_some(pod)
        })
        .await
    }

    pub(crate) async fn wait_phase(&self, name: &str, phase: &str) -> Value {
        self.wait_pod(name, phase, |pod| pod["status"]["phase"] == phase)
            .await
    }
}

/// Waits until something is there; fails loudly after a while.
pub(crate) async fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1_500 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never happened: {what}");
}

/// A condition's status.
pub(crate) fn condition<'a>(pod: &'a Value, kind: &str) -> &'a str {
    let conditions = pod["status"]["conditions"].as_array();
    let mut all = conditions.into_iter().flatten();
    all.find(|c| c["type"] == kind)
        .and_then(|c| c["status"].as_str())
        .unwrap_or("absent")
}
