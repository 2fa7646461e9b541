//! VolumeAttachment.

use jiff::Timestamp;
use meta::{Faults, naming};
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::spot::{Spot, immutable, named, required};
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Attacher, PV, Node, Attached:boolean, Age";

pub(crate) struct VolumeAttachment;

impl Strategy for VolumeAttachment {
    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let spec = Spot::new(object, "spec");
        crate::core::validate_driver(&spec, "attacher", faults);
        let source = spec.child("source");
        match (
            source.has("persistentVolumeName"),
            source.has("inlineVolumeSpec"),
        ) {
            (false, false) => {
                let rule = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
                faults.required(source.path.clone(), rule);
            }
            (true, true) => {
                let rule = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
                faults.forbidden(source.path.clone(), rule);
            }
            (true, false) => {
                named(
                    &source,
                    "persistentVolumeName",
                    naming::dns1123_subdomain,
                    faults,
                );
            }
            (false, true) => {}
        }
        required(&spec, "nodeName", faults);
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        immutable(&Spot::new(object, ""), old, "spec", faults);
    }

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
