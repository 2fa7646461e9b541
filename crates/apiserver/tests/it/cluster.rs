//! One API server over a store in memory, for one test.

use std::sync::Arc;

use apiserver::{ApiServer, Config};
use auth::{Identity, Pki};
use base::Crew;
use client::Client;
use http::Method;
use serde_json::{Value, json};

pub(crate) struct Cluster {
    pub(crate) server: ApiServer,
    pub(crate) client: Client,
    pub(crate) crew: Crew,
    pub(crate) pki: Arc<Pki>,
    pub(crate) dir: tempfile::TempDir,
}

impl Cluster {
    pub(crate) async fn start() -> Cluster {
        let crew = Crew::new();
        let store = store::memory(&crew).await.unwrap();
        Cluster::over(store, crew, 6443).await
    }

    pub(crate) async fn over(store: Arc<dyn store::Store>, crew: Crew, port: u16) -> Cluster {
        Cluster::with(store, crew, |config| config.port = port).await
    }

    pub(crate) async fn with(
        store: Arc<dyn store::Store>,
        crew: Crew,
        settle: impl FnOnce(&mut Config),
    ) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let pki = Arc::new(Pki::open(&dir.path().join("pki"), &[]).unwrap());
        let mut config = Config::new(Arc::clone(&pki));
        config.advertise_address = Some("192.0.2.1".parse().unwrap());
        settle(&mut config);
        let server = apiserver::build(config, store, &crew).await.unwrap();
        let client = server.client(Identity::user("admin", &["system:masters"]));
        Cluster {
            server,
            client,
            crew,
            pki,
            dir,
        }
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Result<Value, meta::Status> {
        let made = self.client.send_value(Method::POST, path, &body).await;
        self.settle().await;
        made
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Result<Value, meta::Status> {
        let written = self.client.send_value(Method::PUT, path, body).await;
        self.settle().await;
        written
    }

    /// Waits until guards know what was written: rights, policies and quotas follow the store a
    /// little behind the answer to a write, as everywhere. Reads wait for it.
    async fn settle(&self) {
        let path = "/api/v1/namespaces/default";
        let _read: Result<Value, _> = self.client.get_value(path).await;
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, meta::Status> {
        self.client.get_value(path).await
    }

    pub(crate) async fn stop(self) {
        self.crew.stop().raise();
        self.crew.finished().await.unwrap();
    }
}

pub(crate) const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub(crate) const PODS: &str = "/api/v1/namespaces/default/pods";

pub(crate) fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "data": {"key": value}})
}

pub(crate) fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "example.com/app:1"}]}})
}
