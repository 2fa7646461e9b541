//! The group `storage.k8s.io`.

mod csi_driver;
mod csi_node;
mod csi_storage_capacity;
mod storage_class;
mod volume_attachment;
mod volume_attributes_class;

use meta::Names;

use crate::row::Row;

const GROUP: &str = "storage.k8s.io";

#[rustfmt::skip]
pub(crate) fn rows() -> Vec<Row> {
    let cluster = |kind, plural| Names::cluster(GROUP, "v1", kind, plural);
    vec![
        Row::new(cluster("CSIDriver", "csidrivers"), csi_driver::COLUMNS, csi_driver::CsiDriver).needs_version(),
        Row::new(cluster("CSINode", "csinodes"), csi_node::COLUMNS, csi_node::CsiNode).needs_version(),
        Row::new(Names::namespaced(GROUP, "v1", "CSIStorageCapacity", "csistoragecapacities"), csi_storage_capacity::COLUMNS, csi_storage_capacity::CsiStorageCapacity).needs_version(),
        Row::new(cluster("StorageClass", "storageclasses").short(&["sc"]), storage_class::COLUMNS, storage_class::StorageClass),
        Row::new(cluster("VolumeAttachment", "volumeattachments"), volume_attachment::COLUMNS, volume_attachment::VolumeAttachment).status().needs_version(),
        Row::new(cluster("VolumeAttributesClass", "volumeattributesclasses").short(&["vac"]), volume_attributes_class::COLUMNS, volume_attributes_class::VolumeAttributesClass),
    ]
}
