//! The group `apiregistration.k8s.io`: which server answers for which group and version.

use jiff::Timestamp;
use meta::{Faults, Names, naming};
use serde_json::{Value, json};

use crate::row::{Cells, Row, Strategy};
use crate::spot::{Spot, required, rules, unsupported};
use crate::table::{age, cells, name};
use crate::tree::Tree;

const COLUMNS: &str = "Name, Service, Available, Age";
const GROUP_PRIORITY_MAX: i64 = 20_000;
const VERSION_PRIORITY_MAX: i64 = 1_000;

pub(crate) fn rows() -> Vec<Row> {
    let names = Names::cluster("apiregistration.k8s.io", "v1", "APIService", "apiservices");
    let names = names.categories(&["api-extensions"]);
    vec![
        Row::new(names, COLUMNS, ApiService)
            .status()
            .needs_version(),
    ]
}

struct ApiService;

impl Strategy for ApiService {
    fn default(&self, object: &mut Value) {
        if object.has("spec.service") {
            object.fill("spec.service.port", 443);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        // What this server answers itself is there at once.
        if !object.has("spec.service") {
            let condition = json!({
                "type": "Available", "status": "True", "reason": "Local",
                "message": "Local APIServices are always available",
                "lastTransitionTime": meta::time::now(),
            });
            object.set("status", json!({"conditions": [condition]}));
        }
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        naming::path_segment(name)
    }

    fn has_free_finalizers(&self) -> bool {
        true
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let spec = Spot::new(object, "spec");
        let (group, version) = (spec.text("group"), spec.text("version"));
        let (name, wanted) = (object.text("metadata.name"), format!("{version}.{group}"));
        if !name.is_empty() && naming::path_segment(name).is_empty() && name != wanted {
            let rule = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
            faults.invalid("metadata.name", name, rule);
        }
        if group.is_empty() {
            if version != "v1" {
                let rule = "only v1 may have an empty group and it better be legacy kube";
                faults.required(spec.path("group"), rule);
            }
        } else {
            let broken = naming::dns1123_subdomain(group);
            rules(faults, spec.path("group"), group, broken);
        }
        let broken = naming::dns1035_label(version);
        rules(faults, spec.path("version"), version, broken);
        for (field, most) in [
            ("groupPriorityMinimum", GROUP_PRIORITY_MAX),
            ("versionPriority", VERSION_PRIORITY_MAX),
        ] {
            let priority = spec.int(field);
            if priority <= 0 || priority > most {
                let rule = format!("must be positive and less than {most}");
                faults.invalid(spec.path(field), priority, rule);
            }
        }
        validate_service(&spec, faults);
    }

    fn validate_status(&self, object: &Value, _old: &Value, faults: &mut Faults) {
        for condition in Spot::new(object, "status").items("conditions") {
            let words = ["True", "False", "Unknown"];
            let status = condition.text("status");
            if !words.contains(&status) {
                unsupported(faults, condition.path("status"), status, &words);
            }
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let service = match object.at("spec.service") {
            Value::Null => "Local".to_owned(),
            service => format!("{}/{}", service.text("namespace"), service.text("name")),
        };
        let mut conditions = object.list("status.conditions").iter();
        let available = match conditions.find(|one| one.text("type") == "Available") {
            None => "Unknown".to_owned(),
            Some(condition) => match (condition.text("status"), condition.text("reason")) {
                (status, reason) if status == "True" || reason.is_empty() => status.to_owned(),
                (status, reason) => format!("{status} ({reason})"),
            },
        };
        cells![name(object), service, available, age(object, now)]
    }
}

fn validate_service(spec: &Spot<'_>, faults: &mut Faults) {
    let (bundle, insecure) = (spec.text("caBundle"), spec.flag("insecureSkipTLSVerify"));
    let Some(service) = spec.some("service") else {
        if !bundle.is_empty() {
            let bytes = format!("{} bytes", bundle.trim_end_matches('=').len() * 3 / 4);
            let rule = "local APIServices may not have a caBundle";
            faults.invalid(spec.path("caBundle"), bytes, rule);
        }
        if insecure {
            let rule = "local APIServices may not have insecureSkipTLSVerify";
            faults.invalid(spec.path("insecureSkipTLSVerify"), true, rule);
        }
        return;
    };
    required(&service, "namespace", faults);
    required(&service, "name", faults);
    let port = service.int("port");
    let broken = naming::port_number(port);
    if !broken.is_empty() {
        let rule = format!("port is not valid: {}", broken.join(", "));
        faults.invalid(service.path("port"), port, rule);
    }
    if insecure && !bundle.is_empty() {
        let rule = "may not be true if caBundle is present";
        faults.invalid(spec.path("insecureSkipTLSVerify"), true, rule);
    }
}
