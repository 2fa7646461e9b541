//! ResourceQuota.

use jiff::Timestamp;
use meta::Faults;
use serde_json::Value;

use super::pod::defaults::canonical_quantities;
use super::pod::validate::{validate_amount, validate_resource_name};
use crate::go::SCOPE_SELECTOR;
use crate::metadata::IMMUTABLE;
use crate::row::{Cells, Strategy};
use crate::spot::{Spot, amount, invalid_shown};
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

    fn prepare_create(&self, object: &mut Value) {
        object.set("status", serde_json::json!({}));
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let hard = Spot::new(object, "spec.hard");
        for (name, amount) in hard.fields("") {
            let path = hard.entry_path(name);
            validate_resource_name(name, &path, faults);
            if !name.contains('/') && !is_quota_name(name) {
                faults.invalid(&path, name, "must be a standard resource for quota");
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
            scopes.dedup();
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

/// What a scope narrows down must be something that it can be said of.
fn is_scope_for(scope: &str, resource: &str) -> bool {
    let compute = [
        "cpu",
        "memory",
        "limits.cpu",
        "limits.memory",
        "requests.cpu",
        "requests.memory",
    ];
    match scope {
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => resource == "pods" || compute.contains(&resource),
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => {
            matches!(resource, "persistentvolumeclaims" | "requests.storage")
        }
        _ => true,
    }
}

/// How many of the limited resources the scope does not fit.
fn misfits(spec: &Spot<'_>, scope: &str) -> usize {
    let names = spec.fields("hard").map(|(name, _)| name);
    names
        .filter(|name| is_quota_name(name) && !is_scope_for(scope, name))
        .count()
}

const MISFIT: &str = "unsupported scope applied to resource";
const PAIRS: [[&str; 2]; 2] = [
    ["BestEffort", "NotBestEffort"],
    ["Terminating", "NotTerminating"],
];

fn validate_scopes(quota: &Value, faults: &mut Faults) {
    let spec = Spot::new(quota, "spec");
    let (path, scopes) = (spec.path("scopes"), spec.at("scopes").clone());
    for scope in spec.list("scopes") {
        let scope = scope.as_str().unwrap_or("");
        if !SCOPES.contains(&scope) {
            faults.invalid(path.clone(), scopes.clone(), "unsupported scope");
        }
        for _ in 0..misfits(&spec, scope) {
            faults.invalid(path.clone(), scopes.clone(), MISFIT);
        }
    }
    let holds = |name: &&str| spec.texts("scopes").any(|scope| scope == *name);
    for pair in PAIRS {
        if pair.iter().all(holds) {
            faults.invalid(path.clone(), scopes.clone(), "conflicting scopes");
        }
    }
    let path = spec.path("scopeSelector.matchExpressions");
    for expression in spec.list("scopeSelector.matchExpressions") {
        validate_expression(&spec, expression, &path, faults);
    }
    let named = |name: &&str| {
        let mut all = spec.list("scopeSelector.matchExpressions").iter();
        all.any(|one| one.text("scopeName") == *name)
    };
    for pair in PAIRS {
        if pair.iter().all(named) {
            faults.invalid(path.clone(), scopes.clone(), "conflicting scopes");
        }
    }
}

/// Faults in one condition of a scope selector; `path` is the list's, as upstream reports.
fn validate_expression(spec: &Spot<'_>, expression: &Value, path: &str, faults: &mut Faults) {
    const ONLY_EXISTS: &str = "must be 'Exists' when scope is any of \
        ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
        ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
        ResourceQuotaScopeCrossNamespacePodAffinity";
    let (scope, operator) = (expression.text("scopeName"), expression.text("operator"));
    let count = expression.count("values");
    if !SCOPES.contains(&scope) {
        faults.invalid(format!("{path}.scopeName"), scope, "unsupported scope");
    }
    for _ in 0..misfits(spec, scope) {
        let selector = Spot {
            value: spec.at("scopeSelector"),
            path: path.into(),
        };
        invalid_shown(faults, &selector, &SCOPE_SELECTOR, MISFIT);
    }
    let valued = matches!(scope, "PriorityClass" | "VolumeAttributesClass");
    if SCOPES.contains(&scope) && !valued && operator != "Exists" {
        faults.invalid(format!("{path}.operator"), operator, ONLY_EXISTS);
    }
    match operator {
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
