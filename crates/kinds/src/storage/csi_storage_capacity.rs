//! CSIStorageCapacity.

use jiff::Timestamp;
use meta::{Faults, naming};
use serde_json::Value;

use crate::plain::{self, Plain};
use crate::row::{Cells, Strategy};
use crate::spot::{NOT_NEGATIVE, Spot, amount, immutable, label_selector, rules};
use crate::table::quantity;
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = Plain::COLUMNS;

pub(crate) struct CsiStorageCapacity;

impl Strategy for CsiStorageCapacity {
    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let root = Spot::new(object, "");
        label_selector(&root.child("nodeTopology"), faults);
        let class = root.text("storageClassName");
        let broken = naming::dns1123_subdomain(class);
        rules(faults, "storageClassName", class, broken);
        if amount(root.at("capacity")).is_some_and(|amount| amount.is_negative()) {
            faults.invalid("capacity", quantity(root.at("capacity")), NOT_NEGATIVE);
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        self.validate_create(object, faults);
        let root = Spot::new(object, "");
        for field in ["nodeTopology", "storageClassName"] {
            immutable(&root, old, field, faults);
        }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let topology = Spot::new(object, "nodeTopology");
        let mut warnings = crate::warnings::expressions(&topology);
        for (label, _) in topology.fields("matchLabels") {
            if let Some(message) = crate::warnings::node_label(label) {
                warnings.push(format!("nodeTopology.matchLabels.{label}: {message}"));
            }
        }
        warnings
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        plain::created(object, now)
    }
}
