//! The controllers of `kube-controller-manager`: each brings one aspect of the
//! cluster to what the objects say. They are strangers to each other and meet
//! only at the API; what they share is a hub of caches.

pub mod cluster;
pub mod context;
pub mod network;
pub mod pods;
pub mod storage;
pub mod workloads;

use base::Crew;

pub use context::{Config, Context, Keys};

/// Starts one controller.
pub type Start = fn(&Context);

/// Every controller: upstream's name and how to start it. A new controller is a file and a line.
pub const CONTROLLERS: &[(&str, Start)] = &[
    ("deployment-controller", workloads::deployment::start),
    ("replicaset-controller", workloads::replicaset::start),
    ("statefulset-controller", workloads::statefulset::start),
    ("daemonset-controller", workloads::daemonset::start),
    ("job-controller", workloads::job::start),
    ("cronjob-controller", workloads::cronjob::start),
    (
        "ttl-after-finished-controller",
        workloads::ttl_after_finished::start,
    ),
    (
        "replicationcontroller-controller",
        workloads::replicationcontroller::start,
    ),
    ("endpointslice-controller", network::endpointslice::start),
    ("endpoints-controller", network::endpoints::start),
    ("service-cidr-controller", network::service_cidr::start),
    (
        "persistentvolumeclaim-protection-controller",
        storage::protection::start_claims,
    ),
    (
        "persistentvolume-protection-controller",
        storage::protection::start_volumes,
    ),
    (
        "volumeattributesclass-protection-controller",
        storage::protection::start_classes,
    ),
    ("namespace-controller", cluster::namespace::start),
    ("serviceaccount-controller", cluster::serviceaccount::start),
    ("node-lifecycle-controller", cluster::node_lifecycle::start),
    ("taint-eviction-controller", cluster::taint_eviction::start),
    ("garbage-collector-controller", cluster::garbage::start),
    ("pod-garbage-collector-controller", cluster::pod_gc::start),
    ("resourcequota-controller", cluster::resource_quota::start),
    (
        "clusterrole-aggregation-controller",
        cluster::role_aggregation::start,
    ),
    ("disruption-controller", cluster::disruption::start),
    ("node-ipam-controller", cluster::node_ipam::start),
    (
        "root-ca-certificate-publisher-controller",
        cluster::root_ca::start,
    ),
    (
        "certificatesigningrequest-approving-controller",
        cluster::certificates::start_approving,
    ),
    (
        "certificatesigningrequest-signing-controller",
        cluster::certificates::start_signing,
    ),
    (
        "certificatesigningrequest-cleaner-controller",
        cluster::certificates_cleaner::start,
    ),
    ("serviceaccount-token-controller", cluster::tokens::start),
    (
        "legacy-serviceaccount-token-cleaner-controller",
        cluster::tokens_cleaner::start,
    ),
    (
        "token-cleaner-controller",
        cluster::bootstrap_tokens::start_cleaning,
    ),
    (
        "bootstrap-signer-controller",
        cluster::bootstrap_tokens::start_signing,
    ),
];

/// Starts all controllers in `crew`; they run until it stops.
pub fn run(config: Config, crew: &Crew) {
    let context = Context::new(config, crew);
    for (name, start) in CONTROLLERS {
        tracing::debug!(controller = name, "starting");
        start(&context);
    }
}
