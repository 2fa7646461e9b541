//! The group `apps`.

mod controller_revision;
mod daemon_set;
mod deployment;
mod replica_set;
mod stateful_set;
pub(crate) mod workload;

use meta::Names;

use crate::row::Row;

fn names(kind: &str, plural: &str) -> Names {
    Names::namespaced("apps", "v1", kind, plural)
}

#[rustfmt::skip]
pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new(names("ControllerRevision", "controllerrevisions"), controller_revision::COLUMNS, controller_revision::ControllerRevision),
        Row::new(names("DaemonSet", "daemonsets").short(&["ds"]).categories(&["all"]), daemon_set::COLUMNS, daemon_set::DaemonSet).status().generation(),
        Row::new(names("Deployment", "deployments").short(&["deploy"]).categories(&["all"]), deployment::COLUMNS, deployment::Deployment).status().generation().scale(),
        Row::new(names("ReplicaSet", "replicasets").short(&["rs"]).categories(&["all"]), replica_set::COLUMNS, replica_set::ReplicaSet).status().generation().scale(),
        Row::new(names("StatefulSet", "statefulsets").short(&["sts"]).categories(&["all"]), stateful_set::COLUMNS, stateful_set::StatefulSet).status().generation().scale(),
    ]
}
