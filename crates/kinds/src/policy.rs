//! The group `policy`.

mod pod_disruption_budget;

use meta::Names;

use crate::row::Row;

pub(crate) fn rows() -> Vec<Row> {
    use pod_disruption_budget::{COLUMNS, PodDisruptionBudget};
    let names = Names::namespaced(
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
    );
    let row = Row::new(names.short(&["pdb"]), COLUMNS, PodDisruptionBudget);
    vec![row.status().generation().needs_version()]
}
