//! The group `discovery.k8s.io`.

mod endpoint_slice;

use meta::Names;

use crate::row::Row;

pub(crate) fn rows() -> Vec<Row> {
    use endpoint_slice::{COLUMNS, EndpointSlice};
    let names = Names::namespaced("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices");
    vec![Row::new(names, COLUMNS, EndpointSlice).generation()]
}
