//! What every controller is given.

use std::sync::Arc;

use base::Crew;
use client::{Client, Hub, Key};
use reconcile::{Queue, Reconcile, Recorder};

/// What the controllers need to run.
#[derive(Clone)]
pub struct Config {
    /// The client of `system:kube-controller-manager`; shared caches read through it.
    pub client: Client,
    /// A client for one controller's own service account, such as `deployment-controller`.
    pub client_for: Arc<dyn Fn(&str) -> Client + Send + Sync>,
    /// PEM bundle published as ConfigMap `kube-root-ca.crt` in every namespace.
    pub root_ca: String,
    /// Pods of all nodes, such as `10.244.0.0/16`.
    pub cluster_cidr: String,
    /// `None`: nobody answers certificate signing requests, nor fills token secrets.
    pub keys: Option<Keys>,
    /// How long certificates live that are signed here, at most.
    pub signing_duration: std::time::Duration,
}

/// What the controllers sign with.
#[derive(Clone)]
pub struct Keys {
    /// Answers certificate signing requests.
    pub authority: Arc<auth::certificate::Authority>,
    /// Fills secrets with service accounts' tokens.
    pub tokens: Arc<auth::TokenSigner>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("cluster_cidr", &self.cluster_cidr)
            .finish_non_exhaustive()
    }
}

/// The running controllers' surroundings.
#[derive(Clone)]
pub struct Context {
    pub config: Config,
    /// Caches that all controllers share.
    pub hub: Hub,
    pub crew: Crew,
}

impl Context {
    /// A context whose caches run in `crew`.
    pub fn new(config: Config, crew: &Crew) -> Context {
        let hub = Hub::new(config.client.clone(), crew);
        Context {
            config,
            hub,
            crew: crew.clone(),
        }
    }

    /// The client of one controller.
    pub fn client(&self, controller: &str) -> Client {
        (self.config.client_for)(controller)
    }

    /// An event recorder that writes as `component`.
    pub fn recorder(&self, component: &'static str) -> Recorder {
        Recorder::start(self.client(component), component, "", &self.crew)
    }

    /// A queue that ends with the crew.
    pub fn queue(&self) -> Queue<Key> {
        Queue::new(self.crew.stop())
    }

    /// Starts a controller's workers once all of `synced` is true.
    pub fn drive<S>(
        &self,
        controller: Arc<dyn Reconcile>,
        queue: &Queue<Key>,
        workers: usize,
        synced: S,
    ) where
        S: Future<Output = ()> + Send + 'static,
    {
        let (queue, crew) = (queue.clone(), self.crew.clone());
        self.crew
            .spawn(format!("{} caches", controller.name()), async move {
                synced.await;
                if !crew.stop().is_raised() {
                    reconcile::drive(controller, &queue, workers, &crew);
                }
            });
    }
}
