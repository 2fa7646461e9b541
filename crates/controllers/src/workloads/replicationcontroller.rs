//! ReplicationController: the elder of ReplicaSet, kept by the same planner.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{
    ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus,
};
use k8s_openapi::api::core::v1::{
    ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::replicaset::{Replicated, run};
use crate::context::Context;

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    run::<ReplicationController>(context);
}

impl Replicated for ReplicationController {
    const ACCOUNT: &'static str = "replication-controller";

    fn as_set(this: &Arc<ReplicationController>) -> Arc<ReplicaSet> {
        let spec = this.spec.as_ref().map(|spec| ReplicaSetSpec {
            min_ready_seconds: spec.min_ready_seconds,
            replicas: spec.replicas,
            selector: LabelSelector {
                match_labels: spec.selector.clone(),
                match_expressions: None,
            },
            template: spec.template.clone(),
        });
        let condition = |one: &ReplicationControllerCondition| ReplicaSetCondition {
            last_transition_time: one.last_transition_time.clone(),
            message: one.message.clone(),
            reason: one.reason.clone(),
            status: one.status.clone(),
            type_: one.type_.clone(),
        };
        let status = this.status.as_ref().map(|status| ReplicaSetStatus {
            replicas: status.replicas,
            available_replicas: status.available_replicas,
            ready_replicas: status.ready_replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            observed_generation: status.observed_generation,
            terminating_replicas: None,
            conditions: status
                .conditions
                .as_ref()
                .map(|list| list.iter().map(condition).collect()),
        });
        Arc::new(ReplicaSet {
            metadata: this.metadata.clone(),
            spec,
            status,
        })
    }

    fn with_status(&self, status: ReplicaSetStatus) -> ReplicationController {
        let condition = |one: ReplicaSetCondition| ReplicationControllerCondition {
            last_transition_time: one.last_transition_time,
            message: one.message,
            reason: one.reason,
            status: one.status,
            type_: one.type_,
        };
        let status = ReplicationControllerStatus {
            replicas: status.replicas,
            available_replicas: status.available_replicas,
            ready_replicas: status.ready_replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            observed_generation: status.observed_generation,
            conditions: status
                .conditions
                .map(|list| list.into_iter().map(condition).collect()),
        };
        ReplicationController {
            status: Some(status),
            ..self.clone()
        }
    }
}
