//! The group `scheduling.k8s.io`.

mod priority_class;

use meta::Names;

use crate::row::Row;

pub(crate) fn rows() -> Vec<Row> {
    let names = Names::cluster(
        "scheduling.k8s.io",
        "v1",
        "PriorityClass",
        "priorityclasses",
    );
    use priority_class::{COLUMNS, PriorityClass};
    vec![Row::new(names.short(&["pc"]), COLUMNS, PriorityClass).generation()]
}
