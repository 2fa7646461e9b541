//! CSIDriver.

use jiff::Timestamp;
use meta::Faults;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::spot::{Spot, immutable, maybe_one_of};
use crate::table::{age, cells, name, or};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, AttachRequired:boolean, PodInfoOnMount:boolean, \
     StorageCapacity:boolean, TokenRequests, RequiresRepublish:boolean, Modes, Age";

pub(crate) struct CsiDriver;

impl Strategy for CsiDriver {
    fn default(&self, object: &mut Value) {
        let fields = [
            ("spec.attachRequired", true),
            ("spec.podInfoOnMount", false),
            ("spec.storageCapacity", false),
            ("spec.requiresRepublish", false),
            ("spec.seLinuxMount", false),
        ];
        for (path, value) in fields {
            object.fill(path, value);
        }
        object.fill("spec.fsGroupPolicy", "ReadWriteOnceWithFSType");
        if object.count("spec.volumeLifecycleModes") == 0 {
            object.set("spec.volumeLifecycleModes", vec!["Persistent"]);
        }
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let spec = Spot::new(object, "spec");
        for mode in spec.items("volumeLifecycleModes") {
            let words = ["Ephemeral", "Persistent"];
            let word = mode.as_str().unwrap_or("");
            if !words.contains(&word) {
                crate::spot::unsupported(faults, spec.path("volumeLifecycleModes"), word, &words);
            }
        }
        let policies = ["File", "None", "ReadWriteOnceWithFSType"];
        maybe_one_of(&spec, "fsGroupPolicy", &policies, faults);
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        self.validate_create(object, faults);
        let spec = Spot::new(object, "spec");
        immutable(&spec, old.at("spec"), "attachRequired", faults);
        immutable(&spec, old.at("spec"), "volumeLifecycleModes", faults);
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let spec = object.at("spec");
        let modes: Vec<_> = spec.texts("volumeLifecycleModes").collect();
        let requests = spec.list("tokenRequests").iter();
        let audiences: Vec<_> = requests.map(|request| request.text("audience")).collect();
        let requests = match spec.has("tokenRequests") {
            true => audiences.join(","),
            false => "<unset>".into(),
        };
        cells![
            name(object),
            spec.at("attachRequired").as_bool().unwrap_or(true),
            spec.flag("podInfoOnMount"),
            spec.flag("storageCapacity"),
            requests,
            spec.flag("requiresRepublish"),
            or(&modes.join(","), "<none>"),
            age(object, now),
        ]
    }
}
