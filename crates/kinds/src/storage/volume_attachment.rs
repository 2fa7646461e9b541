//! VolumeAttachment.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Attacher, PV, Node, Attached:boolean, Age";

pub(crate) struct VolumeAttachment;

impl Strategy for VolumeAttachment {
    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        cells![
            name(object),
            object.text("spec.attacher"),
            object.text("spec.source.persistentVolumeName"),
            object.text("spec.nodeName"),
            object.flag("status.attached"),
            age(object, now),
        ]
    }
}
