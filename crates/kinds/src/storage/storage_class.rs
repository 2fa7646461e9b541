//! StorageClass.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use meta::{Faults, naming};
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::spot::{Spot, immutable, maybe_one_of, rules};
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
        validate_provisioner(object, "provisioner", faults);
        validate_parameters(object, faults);
        if root.at("reclaimPolicy") != "" {
            maybe_one_of(&root, "reclaimPolicy", &["Delete", "Retain"], faults);
        }
        let modes = ["Immediate", "WaitForFirstConsumer"];
        match root.has("volumeBindingMode") {
            true => maybe_one_of(&root, "volumeBindingMode", &modes, faults),
            false => faults.required("volumeBindingMode", ""),
        }
        validate_topologies(&root, faults);
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        self.validate_create(object, faults);
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

    fn warnings(&self, object: &Value) -> Vec<String> {
        let terms = Spot::new(object, "").items("allowedTopologies");
        let all = terms.flat_map(|term| term.items("matchLabelExpressions").collect::<Vec<_>>());
        let old = |one: Spot<'_>| {
            let message = crate::warnings::node_label(one.text("key"))?;
            Some(format!("{}: {message}", one.path("key")))
        };
        all.filter_map(old).collect()
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

/// The name of a driver at `field`.
pub(super) fn validate_provisioner(object: &Value, field: &str, faults: &mut Faults) {
    match object.text(field) {
        "" => faults.required(field, ""),
        name => {
            // Upstream judges, and shows, the name in lower case.
            let name = name.to_lowercase();
            let broken = naming::qualified_name(&name);
            rules(faults, field, name, broken);
        }
    }
}

const PARAMETERS_MAX: usize = 512;
/// All parameters together, in bytes.
const PARAMETERS_BYTES_MAX: usize = 256 << 10;

/// What a driver is told: nothing nameless, and not too much.
pub(super) fn validate_parameters(object: &Value, faults: &mut Faults) {
    if object.count("parameters") > PARAMETERS_MAX {
        return faults.too_long("parameters", PARAMETERS_MAX);
    }
    let mut bytes = 0;
    for (key, value) in object.fields("parameters") {
        if key.is_empty() {
            faults.invalid("parameters", key, "field can not be empty.");
        }
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > PARAMETERS_BYTES_MAX {
        faults.too_long("parameters", PARAMETERS_BYTES_MAX);
    }
}

fn validate_topologies(root: &Spot<'_>, faults: &mut Faults) {
    // Upstream compares with as many empty terms too: an empty one is never the first.
    let mut terms = vec![BTreeMap::new(); root.count("allowedTopologies")];
    for term in root.items("allowedTopologies") {
        let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for expression in term.items("matchLabelExpressions") {
            let key = expression.text("key");
            let mut values = BTreeSet::new();
            if expression.count("values") == 0 {
                faults.required(expression.path("values"), "");
            }
            for value in expression.items("values") {
                let text = value.as_str().unwrap_or("").to_owned();
                if !values.insert(text.clone()) {
                    faults.duplicate(value.path.clone(), text);
                }
            }
            let broken = naming::qualified_name(key);
            rules(faults, expression.path("key"), key, broken);
            if all.insert(key.to_owned(), values).is_some() {
                faults.duplicate(expression.path("key"), key);
            }
        }
        for _ in terms.iter().filter(|term| **term == all) {
            faults.duplicate(term.path("matchLabelExpressions"), "");
        }
        terms.push(all);
    }
}
