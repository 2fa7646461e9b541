//! The group `coordination.k8s.io`.

mod lease;

use meta::Names;

use crate::row::Row;

pub(crate) fn rows() -> Vec<Row> {
    let names = Names::namespaced("coordination.k8s.io", "v1", "Lease", "leases");
    vec![
        Row::new(names, lease::COLUMNS, lease::Lease)
            .create_on_update()
            .needs_version(),
    ]
}
