//! The group `node.k8s.io`.

mod runtime_class;

use meta::Names;

use crate::row::Row;

pub(crate) fn rows() -> Vec<Row> {
    let names = Names::cluster("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses");
    let row = Row::new(names, runtime_class::COLUMNS, runtime_class::RuntimeClass);
    vec![row.create_on_update().needs_version()]
}
