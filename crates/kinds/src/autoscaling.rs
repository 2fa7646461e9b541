//! The group `autoscaling`. Version 2 only: version 1 says less of the same objects.

mod horizontal_pod_autoscaler;
mod metrics;

use meta::Names;

use crate::row::Row;

pub(crate) fn rows() -> Vec<Row> {
    use horizontal_pod_autoscaler::{COLUMNS, HorizontalPodAutoscaler};
    let names = Names::namespaced(
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
    );
    let names = names.short(&["hpa"]).categories(&["all"]);
    vec![Row::new(names, COLUMNS, HorizontalPodAutoscaler).status()]
}
