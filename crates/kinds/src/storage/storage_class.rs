//! StorageClass.

use jiff::Timestamp;
use meta::{Faults, naming};
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::spot::{Spot, immutable, maybe_one_of, one_of, rules};
use crate::table::{age, cells, or};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str =
    "Name, Provisioner, ReclaimPolicy, VolumeBindingMode, AllowVolumeExpansion, Age";

pub(crate) struct StorageClass;

impl Strategy for StorageClass {
    fn default(&self, object: &mut Value) {
        object.fill("reclaimPolicy", "Delete");
        object.fill("volumeBindingMode", "Immediate");
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let root = Spot::new(object, "");
        match root.text("provisioner") {
            "" => faults.required("provisioner", ""),
            name => {
                let broken = naming::qualified_name(&name.to_lowercase());
                rules(faults, "provisioner", name, broken);
            }
        }
        maybe_one_of(&root, "reclaimPolicy", &["Delete", "Retain"], faults);
        let modes = ["Immediate", "WaitForFirstConsumer"];
        one_of(&root, "volumeBindingMode", &modes, faults);
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        let root = Spot::new(object, "");
        for field in [
            "parameters",
            "provisioner",
            "reclaimPolicy",
            "volumeBindingMode",
        ] {
            immutable(&root, old, field, faults);
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let annotations = object.at("metadata.annotations");
        let marks = [
            "storageclass.kubernetes.io/is-default-class",
            "storageclass.beta.kubernetes.io/is-default-class",
        ];
        let default = marks
            .into_iter()
            .any(|mark| annotations.get(mark).is_some_and(|value| value == "true"));
        let mut name = object.text("metadata.name").to_owned();
        if default {
            name.push_str(" (default)");
        }
        cells![
            name,
            object.text("provisioner"),
            or(object.text("reclaimPolicy"), "Delete"),
            or(object.text("volumeBindingMode"), "Immediate"),
            object.flag("allowVolumeExpansion"),
            age(object, now),
        ]
    }
}
