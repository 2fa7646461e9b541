//! VolumeAttachment.

use jiff::Timestamp;
use meta::{Faults, naming};
use serde_json::Value;

use crate::go::ATTACHMENT_SPEC;
use crate::row::{Cells, Strategy};
use crate::spot::{Spot, immutable_shown, present_named, rules};
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Attacher, PV, Node, Attached:boolean, Age";

const METADATA_BYTES_MAX: usize = 256 << 10;
const MESSAGE_BYTES_MAX: usize = 1024;

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
                let (field, rule) = ("persistentVolumeName", naming::dns1123_subdomain);
                if source.text(field).is_empty() {
                    let rule = "must specify non empty persistentVolumeName";
                    faults.required(source.path(field), rule);
                }
                present_named(&source, field, rule, faults);
            }
            (false, true) => {}
        }
        let node = spec.text("nodeName");
        let broken = naming::dns1123_subdomain(node);
        rules(faults, spec.path("nodeName"), node, broken);
    }

    fn validate_status(&self, object: &Value, _old: &Value, faults: &mut Faults) {
        let status = Spot::new(object, "status");
        let metadata = status.fields("attachmentMetadata");
        let sizes = metadata.map(|(key, value)| key.len() + value.as_str().map_or(0, str::len));
        if sizes.sum::<usize>() > METADATA_BYTES_MAX {
            faults.too_long(status.path("attachmentMetadata"), METADATA_BYTES_MAX);
        }
        for field in ["attachError", "detachError"] {
            let error = status.child(field);
            if error.text("message").len() > MESSAGE_BYTES_MAX {
                // Upstream names the other limit here.
                faults.too_long(error.path("message"), METADATA_BYTES_MAX);
            }
            let code = error.int("errorCode");
            if code < 0 {
                let rule = "must be between 0 and 2147483647, inclusive";
                faults.invalid(error.path("errorCode"), code, rule);
            }
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        self.validate_create(object, faults);
        let root = Spot::new(object, "");
        immutable_shown(&root, old, "spec", &ATTACHMENT_SPEC, faults);
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
