//! The core group.

mod component_status;
mod config_map;
mod data_source;
mod endpoints;
pub(crate) mod event;
mod limit_range;
mod namespace;
pub(crate) mod node;
mod persistent_volume;
mod persistent_volume_claim;
pub(crate) mod pod;
mod pod_template;
mod replication_controller;
mod resource_quota;
mod secret;
mod service;
mod service_account;
pub(crate) mod service_rules;
mod volume_source;

use meta::Names;

pub(crate) use endpoints::validate_ip as validate_endpoint_ip;
pub(crate) use persistent_volume_claim::default_spec as default_claim_spec;
pub(crate) use persistent_volume_claim::validate_spec as validate_claim_spec;
pub(crate) use pod::defaults::default_spec_at as default_pod_spec;
pub(crate) use pod::gates::{drop_gated, drop_gated_stateful};
pub(crate) use pod::validate::{validate_driver, validate_template};
pub(crate) use pod::warnings;
pub(crate) use service::balancers;

use crate::row::{Row, Verbs};

fn namespaced(kind: &str, plural: &str) -> Names {
    Names::namespaced("", "v1", kind, plural)
}

fn cluster(kind: &str, plural: &str) -> Names {
    Names::cluster("", "v1", kind, plural)
}

#[rustfmt::skip]
pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new(cluster("ComponentStatus", "componentstatuses").short(&["cs"]), component_status::COLUMNS, component_status::ComponentStatus).verbs(Verbs::Read).deprecated(component_status::DEPRECATION),
        Row::new(namespaced("ConfigMap", "configmaps").short(&["cm"]), config_map::COLUMNS, config_map::ConfigMap),
        Row::new(namespaced("Endpoints", "endpoints").short(&["ep"]), endpoints::COLUMNS, endpoints::Endpoints).create_on_update().deprecated(endpoints::DEPRECATION),
        Row::new(namespaced("Event", "events").short(&["ev"]), event::COLUMNS, event::CORE).create_on_update(),
        Row::new(namespaced("LimitRange", "limitranges").short(&["limits"]), limit_range::COLUMNS, limit_range::LimitRange).create_on_update(),
        Row::new(cluster("Namespace", "namespaces").short(&["ns"]), namespace::COLUMNS, namespace::Namespace).status().verbs(Verbs::NoDeleteCollection),
        Row::new(cluster("Node", "nodes").short(&["no"]), node::COLUMNS, node::Node).status(),
        Row::new(namespaced("PersistentVolumeClaim", "persistentvolumeclaims").short(&["pvc"]), persistent_volume_claim::COLUMNS, persistent_volume_claim::PersistentVolumeClaim).status(),
        Row::new(cluster("PersistentVolume", "persistentvolumes").short(&["pv"]), persistent_volume::COLUMNS, persistent_volume::PersistentVolume).status(),
        Row::new(namespaced("Pod", "pods").short(&["po"]).categories(&["all"]), pod::COLUMNS, pod::Pod).status().generation(),
        Row::new(namespaced("PodTemplate", "podtemplates"), pod_template::COLUMNS, pod_template::PodTemplate).generation(),
        Row::new(namespaced("ReplicationController", "replicationcontrollers").short(&["rc"]).categories(&["all"]), replication_controller::COLUMNS, replication_controller::ReplicationController).status().generation().scale(),
        Row::new(namespaced("ResourceQuota", "resourcequotas").short(&["quota"]), resource_quota::COLUMNS, resource_quota::ResourceQuota).status(),
        Row::new(namespaced("Secret", "secrets"), secret::COLUMNS, secret::Secret),
        Row::new(namespaced("ServiceAccount", "serviceaccounts").short(&["sa"]), service_account::COLUMNS, service_account::ServiceAccount),
        Row::new(namespaced("Service", "services").short(&["svc"]).categories(&["all"]), service::COLUMNS, service::Service).status().create_on_update(),
    ]
}
