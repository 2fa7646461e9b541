//! The group `rbac.authorization.k8s.io`.

mod binding;
mod role;

use meta::Names;

use crate::plain::Plain;
use crate::row::Row;

const GROUP: &str = "rbac.authorization.k8s.io";

#[rustfmt::skip]
pub(crate) fn rows() -> Vec<Row> {
    let namespaced = |kind, plural| Names::namespaced(GROUP, "v1", kind, plural);
    let cluster = |kind, plural| Names::cluster(GROUP, "v1", kind, plural);
    let rows = [
        Row::new(cluster("ClusterRoleBinding", "clusterrolebindings"), binding::COLUMNS, binding::CLUSTER),
        Row::new(cluster("ClusterRole", "clusterroles"), Plain::COLUMNS, role::CLUSTER),
        Row::new(namespaced("RoleBinding", "rolebindings"), binding::COLUMNS, binding::NAMESPACED),
        Row::new(namespaced("Role", "roles"), Plain::COLUMNS, role::NAMESPACED),
    ];
    rows.into_iter().map(Row::create_on_update).collect()
}
