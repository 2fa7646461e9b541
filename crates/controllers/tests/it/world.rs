//! An API server over a store in memory with all controllers, for one test. There is no scheduler
//! and no kubelet: tests play their parts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use apiserver::ApiServer;
use auth::{Identity, Pki};
use base::Crew;
use client::Client;
use http::Method;
use meta::Status;
use serde_json::{Value, json};

/// How long the world may take to get somewhere on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct World {
    pub(crate) client: Client,
    crew: Crew,
    _dir: tempfile::TempDir,
}

impl World {
    pub(crate) async fn start() -> World {
        let crew = Crew::new();
        let store = store::memory(&crew).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let pki = Arc::new(Pki::open(&dir.path().join("pki"), &[]).unwrap());
        let server = apiserver::build(apiserver::Config::new(Arc::clone(&pki)), store, &crew)
            .await
            .unwrap();
        let client = server.client(Identity::user("admin", &["system:masters"]));
        controllers::run(config(server, &pki), &crew);
        let world = World {
            client,
            crew,
            _dir: dir,
        };
        let account = "/api/v1/namespaces/default/serviceaccounts/default";
        world.until(account, |account| account.is_some()).await;
        world
    }

    pub(crate) async fn stop(self) {
        self.crew.stop().raise();
        self.crew.finished().await.unwrap();
    }

    pub(crate) async fn get(&self, path: &str) -> Option<Value> {
        match self.client.get_value(path).await {
            Ok(object) => Some(object),
            Err(status) if status.is_not_found() => None,
            Err(status) => panic!("{path}: {status}"),
        }
    }

    pub(crate) async fn post(&self, collection: &str, body: Value) -> Value {
        match self.try_post(collection, body).await {
            Ok(object) => object,
            Err(status) => panic!("{collection}: {status}"),
        }
    }

    pub(crate) async fn try_post(&self, collection: &str, body: Value) -> Result<Value, Status> {
        self.client
            .send_value(Method::POST, collection, &body)
            .await
    }

    /// A strategic merge patch; `path` may name a subresource.
    pub(crate) async fn patch(&self, path: &str, body: Value) -> Value {
        let media_type = "application/strategic-merge-patch+json";
        let body = serde_json::to_vec(&body).unwrap();
        match self.client.patch_value(path, media_type, body).await {
            Ok(object) => object,
            Err(status) => panic!("{path}: {status}"),
        }
    }

    pub(crate) async fn delete(&self, path: &str, policy: &str) {
        let options = json!({"kind": "DeleteOptions", "apiVersion": "v1",
            "propagationPolicy": policy});
        if let Err(status) = self.client.delete_value(path, Some(options)).await {
            panic!("{path}: {status}");
        }
    }

    /// Waits until the object at `path`, or its absence, is as wanted; returns it.
    pub(crate) async fn until(&self, path: &str, wanted: impl Fn(Option<&Value>) -> bool) -> Value {
        let begin = Instant::now();
        loop {
            let object = self.get(path).await;
            if wanted(object.as_ref()) {
                return object.unwrap_or_default();
            }
            if begin.elapsed() > PATIENCE {
                panic!("{path} stays {object:#?}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Value {
        match self.client.send_value(Method::PUT, path, &body).await {
            Ok(object) => object,
            Err(status) => panic!("{path}: {status}"),
        }
    }

    pub(crate) async fn until_gone(&self, path: &str) {
        self.until(path, |object| object.is_none()).await;
    }

    /// Lets this much time pass at once for every timer of the process.
    pub(crate) async fn pass(&self, time: Duration) {
        // What is under way comes to rest first.
        tokio::time::sleep(Duration::from_millis(400)).await;
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
    }
}

impl Drop for World {
    /// A test that fails must not wait for threads that nobody told to stop.
    fn drop(&mut self) {
        self.crew.stop().raise();
    }
}

fn config(server: ApiServer, pki: &Pki) -> controllers::Config {
    let manager = Identity::component("system:kube-controller-manager");
    controllers::Config {
        client: server.client(manager),
        client_for: Arc::new(move |name| {
            server.client(Identity::service_account("kube-system", name, ""))
        }),
        root_ca: "-----BEGIN CERTIFICATE-----".into(),
        cluster_cidr: "10.244.0.0/16".into(),
        keys: Some(controllers::Keys {
            authority: pki.authority(),
            tokens: Arc::new(pki.token_signer(auth::token::DEFAULT_ISSUER).unwrap()),
        }),
        signing_duration: auth::csr::LIFETIME_MAX,
    }
}
