//! The group `resource.k8s.io`: devices, and who may use them.

mod claim;
mod device_class;
mod rules;
mod selectors;
mod slice;

use jiff::Timestamp;
use meta::Names;
use serde_json::Value;

use crate::row::{Cells, Row};
use crate::table::{age, cells, name};

const GROUP: &str = "resource.k8s.io";
const PLAIN: &str = "Name, Age";

#[rustfmt::skip]
pub(crate) fn rows() -> Vec<Row> {
    let cluster = |kind, plural| Names::cluster(GROUP, "v1", kind, plural);
    let namespaced = |kind, plural| Names::namespaced(GROUP, "v1", kind, plural);
    vec![
        Row::new(cluster("DeviceClass", "deviceclasses"), PLAIN, device_class::DeviceClass).generation(),
        Row::new(namespaced("ResourceClaim", "resourceclaims"), claim::COLUMNS, claim::ResourceClaim).status(),
        Row::new(namespaced("ResourceClaimTemplate", "resourceclaimtemplates"), PLAIN, claim::ResourceClaimTemplate),
        Row::new(cluster("ResourceSlice", "resourceslices"), slice::COLUMNS, slice::ResourceSlice).generation(),
    ]
}

/// Cells of [`PLAIN`].
fn plain(object: &Value, now: Timestamp) -> Cells {
    cells![name(object), age(object, now)]
}
