//! CSIDriver.

use jiff::Timestamp;
use meta::Faults;
use serde_json::Value;

use crate::metadata::IMMUTABLE;
use crate::row::{Cells, Strategy};
use crate::spot::{Spot, immutable, maybe_one_of, same};
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

    /// No generation is given to a new driver, yet its changes are counted.
    fn prepare_update(&self, object: &mut Value, old: &Value) {
        if !same(object.at("spec"), old.at("spec")) {
            let before = old.int("metadata.generation");
            object.set("metadata.generation", before + 1);
        }
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let spec = Spot::new(object, "spec");
        for mode in spec.items("volumeLifecycleModes") {
            let words = ["Persistent", "Ephemeral"];
            let word = mode.as_str().unwrap_or("");
            if !words.contains(&word) {
                crate::spot::unsupported(faults, spec.path("volumeLifecycleModes"), word, &words);
            }
        }
        validate_tokens(&spec, faults);
        if let Some(seconds) = spec.maybe_int("nodeAllocatableUpdatePeriodSeconds")
            && seconds < 10
        {
            let path = spec.path("nodeAllocatableUpdatePeriodSeconds");
            faults.invalid(path, seconds, "must be greater than or equal to 10 seconds");
        }
        let policies = ["File", "None", "ReadWriteOnceWithFSType"];
        maybe_one_of(&spec, "fsGroupPolicy", &policies, faults);
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        self.validate_create(object, faults);
        let spec = Spot::new(object, "spec");
        if spec.at("attachRequired") != old.at("spec.attachRequired") {
            // So upstream spells it.
            let path = spec.path("attachedRequired");
            faults.invalid(path, spec.at("attachRequired").clone(), IMMUTABLE);
        }
        immutable(&spec, old.at("spec"), "volumeLifecycleModes", faults);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let exposed = object.count("spec.tokenRequests") > 0
            && !object.has("spec.serviceAccountTokenInSecrets");
        let warning = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, \
                       set to true to prevent possible logging of tokens in volume attributes";
        exposed.then(|| warning.to_owned()).into_iter().collect()
    }

    fn warnings_update(&self, object: &Value, old: &Value) -> Vec<String> {
        match object.at("spec.tokenRequests") == old.at("spec.tokenRequests") {
            true => Vec::new(),
            false => self.warnings(object),
        }
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

const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

/// At most one token for each audience, for a sensible time.
fn validate_tokens(spec: &Spot<'_>, faults: &mut Faults) {
    let mut seen = std::collections::BTreeSet::new();
    for request in spec.items("tokenRequests") {
        let audience = request.text("audience");
        if !seen.insert(audience.to_owned()) {
            faults.duplicate(request.path("audience"), audience);
            continue;
        }
        let path = request.path("expirationSeconds");
        match request.maybe_int("expirationSeconds") {
            Some(seconds) if seconds < TOKEN_SECONDS_MIN => {
                let rule = "may not specify a duration less than 10 minutes";
                faults.invalid(path, seconds, rule);
            }
            Some(seconds) if seconds > TOKEN_SECONDS_MAX => {
                let rule = "may not specify a duration larger than 2^32 seconds";
                faults.invalid(path, seconds, rule);
            }
            _ => {}
        }
    }
    if spec.has("serviceAccountTokenInSecrets") && spec.count("tokenRequests") == 0 {
        let path = spec.path("serviceAccountTokenInSecrets");
        let rule = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        faults.invalid(path, spec.at("serviceAccountTokenInSecrets").clone(), rule);
    }
}
