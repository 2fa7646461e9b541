//! ResourceQuota.

use jiff::Timestamp;
use meta::Faults;
use serde_json::Value;

use super::pod::defaults::canonical_quantities;
use super::pod::validate::{validate_amount, validate_resource_name};
use crate::metadata::IMMUTABLE;
use crate::row::{Cells, Strategy};
use crate::spot::{Spot, amount};
use crate::table::{age, cells, name, quantity};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Request, Limit, Age";

pub(crate) struct ResourceQuota;

impl Strategy for ResourceQuota {
    fn default(&self, object: &mut Value) {
        for path in ["spec.hard", "status.hard", "status.used"] {
            if let Some(list) = object.at_mut(path) {
                canonical_quantities(list);
            }
        }
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let hard = Spot::new(object, "spec.hard");
        for (name, amount) in hard.fields("") {
            let path = hard.entry_path(name);
            validate_resource_name(name, &path, faults);
            if !name.contains('/') && !is_quota_name(name) {
                faults.invalid(path.as_str(), name, "must be a standard resource for quota");
            }
            validate_amount(name, amount, &path, faults);
        }
        validate_scopes(object, faults);
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        self.validate_create(object, faults);
        let sorted = |quota: &Value| {
            let mut scopes: Vec<_> = quota.texts("spec.scopes").map(str::to_owned).collect();
            scopes.sort();
            scopes
        };
        if sorted(object) != sorted(old) {
            let scopes = object.at("spec.scopes").clone();
            faults.invalid("spec.scopes", scopes, IMMUTABLE);
        }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let hard = object.at("spec.hard");
        let above = |resource: &str| {
            let bare = matches!(resource, "cpu" | "memory").then_some(resource.to_owned());
            let names = [Some(format!("requests.{resource}")), bare];
            let name = names
                .into_iter()
                .flatten()
                .find(|name| hard.get(name).is_some())?;
            let limit_name = format!("limits.{resource}");
            let (request, limit) = (hard.get(&name)?, hard.get(&limit_name)?);
            (amount(request)? > amount(limit)?).then(|| {
                format!(
                    "ResourceQuota {name} ({}) should be less than {limit_name} ({})",
                    quantity(request),
                    quantity(limit)
                )
            })
        };
        let known = ["cpu", "memory", "storage", "ephemeral-storage"];
        known.into_iter().filter_map(above).collect()
    }

    fn warnings_update(&self, _object: &Value, _old: &Value) -> Vec<String> {
        Vec::new()
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let used = object.at("status.used");
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (resource, hard) in object.fields("status.hard") {
            let used = quantity(used.get(resource).unwrap_or(&Value::Null));
            let part = format!("{resource}: {used}/{}", quantity(hard));
            match resource.starts_with("limits.") {
                true => limits.push(part),
                false => requests.push(part),
            }
        }
        let [requests, limits] = [requests, limits].map(|parts| parts.join(", "));
        cells![name(object), requests, limits, age(object, now)]
    }
}

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];

fn validate_scopes(quota: &Value, faults: &mut Faults) {
    let spec = Spot::new(quota, "spec");
    let (path, scopes) = (spec.path("scopes"), spec.at("scopes").clone());
    for scope in spec.texts("scopes") {
        if !SCOPES.contains(&scope) {
            faults.invalid(path.clone(), scopes.clone(), "unsupported scope");
        }
    }
    let holds = |name: &str| spec.texts("scopes").any(|scope| scope == name);
    for [one, other] in [
        ["BestEffort", "NotBestEffort"],
        ["Terminating", "NotTerminating"],
    ] {
        if holds(one) && holds(other) {
            faults.invalid(path.clone(), scopes.clone(), "conflicting scopes");
        }
    }
    let path = spec.path("scopeSelector.matchExpressions");
    for expression in spec.list("scopeSelector.matchExpressions") {
        let (scope, count) = (expression.text("scopeName"), expression.count("values"));
        if !SCOPES.contains(&scope) {
            faults.invalid(format!("{path}.scopeName"), scope, "unsupported scope");
        }
        match expression.text("operator") {
            "In" | "NotIn" if count == 0 => faults.required(
                format!("{path}.values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            "Exists" | "DoesNotExist" if count > 0 => faults.invalid(
                format!("{path}.values"),
                expression.at("values").clone(),
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                let rule = "not a valid selector operator";
                faults.invalid(format!("{path}.operator"), other, rule);
            }
        }
    }
}

/// Names without a domain that quotas may limit.
fn is_quota_name(name: &str) -> bool {
    let plain = name
        .strip_prefix("requests.")
        .or_else(|| name.strip_prefix("limits."))
        .unwrap_or(name);
    let compute = matches!(plain, "cpu" | "memory" | "ephemeral-storage");
    let counted = matches!(
        name,
        "pods"
            | "resourcequotas"
            | "services"
            | "replicationcontrollers"
            | "secrets"
            | "persistentvolumeclaims"
            | "configmaps"
            | "services.nodeports"
            | "services.loadbalancers"
    );
    let huge = name.starts_with("hugepages-") || name.starts_with("requests.hugepages-");
    compute || counted || huge || name == "requests.storage"
}
