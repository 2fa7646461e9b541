//! Faults in what containers ask for and may use.

use std::collections::BTreeSet;

use meta::{FaultKind, Faults, Quantity, naming};
use serde_json::Value;

use crate::core::pod::defaults::container_requests;
use crate::spot::{NOT_NEGATIVE, Spot, amount, invalid_shown, named, rules, unsupported};
use crate::table::{plain, quantity};
use crate::tree::Tree;

const FIELDS: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const BYTES: [&str; 13] = [
    "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
];

/// Names that every cluster knows, with and without the prefixes that quotas use.
const STANDARD: [&str; 20] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];
/// Names that count things, so that halves make no sense.
const COUNTED: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether a resource of somebody else's, such as `example.com/gpu`.
pub(crate) fn is_extended(name: &str) -> bool {
    let quota = format!("requests.{name}");
    !is_native(name) && !name.starts_with("requests.") && naming::qualified_name(&quota).is_empty()
}

/// Whether more may be promised than there is.
pub(crate) fn is_overcommitted(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// Faults in a resource's name, as quotas and limit ranges may have it.
pub(crate) fn validate_name(name: &str, path: &str, faults: &mut Faults) -> bool {
    let broken = naming::qualified_name(name);
    if !broken.is_empty() {
        rules(faults, path, name, broken);
        return false;
    }
    let huge = is_huge_page(name) || name.starts_with("requests.hugepages-");
    if !name.contains('/') && !STANDARD.contains(&name) && !huge {
        let rule = "must be a standard resource type or fully qualified";
        faults.invalid(path, name, rule);
        return false;
    }
    true
}

/// The same for what containers may ask for.
pub(crate) fn validate_container_name(name: &str, path: &str, faults: &mut Faults) {
    let sound = validate_name(name, path, faults);
    let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage");
    if !name.contains('/') {
        if !standard && !is_huge_page(name) {
            faults.invalid(path, name, "must be a standard resource for containers");
        }
    } else if sound && !is_native(name) && !is_extended(name) {
        faults.invalid(path, name, "doesn't follow extended resource name standard");
    }
}

/// Faults in an amount: negative, or a part of something that is counted.
pub(crate) fn validate_amount(name: &str, value: &Value, path: &str, faults: &mut Faults) {
    let Some(amount) = amount(value) else {
        return;
    };
    if amount.is_negative() {
        faults.invalid(path, quantity(value), NOT_NEGATIVE);
    }
    let counted = COUNTED.contains(&name) || is_extended(name);
    if counted && amount.milli() % 1000 != 0 {
        faults.invalid(path, quantity(value), "must be an integer");
    }
}

/// Faults in a container's `resources`.
pub(super) fn validate_container(resources: &Spot<'_>, spec: &Spot<'_>, faults: &mut Faults) {
    validate_requirements(resources, faults);
    let pod_claims: BTreeSet<_> = spec
        .list("resourceClaims")
        .iter()
        .map(|claim| claim.text("name"))
        .collect();
    let mut seen = BTreeSet::new();
    for claim in resources.items("claims") {
        let (name, request) = (claim.text("name"), claim.text("request"));
        if name.is_empty() {
            faults.required(claim.path.clone(), "");
            continue;
        }
        if !seen.insert((name.to_owned(), request.to_owned())) {
            faults.duplicate(claim.path.clone(), name);
        }
        if !pod_claims.contains(name) {
            let list: Vec<_> = pod_claims.iter().copied().collect();
            let which = match list.is_empty() {
                true => " which is empty".to_owned(),
                false => format!(": {}", list.join(", ")),
            };
            let detail = format!("must be one of the names in pod.spec.resourceClaims{which}");
            faults.add(claim.path.clone(), FaultKind::NotFound, name.into(), detail);
        }
    }
}

/// Faults in `overhead`, which is a list of limits without more.
pub(crate) fn validate_overhead(overhead: &Spot<'_>, faults: &mut Faults) {
    for (name, value) in overhead.fields("") {
        let path = format!("{}.limits[{name}]", overhead.path);
        validate_container_name(name, &path, faults);
        validate_amount(name, value, &path, faults);
    }
}

fn validate_requirements(resources: &Spot<'_>, faults: &mut Faults) {
    let (limits, requests) = (resources.child("limits"), resources.child("requests"));
    for (name, value) in limits.fields("") {
        let path = limits.entry_path(name);
        validate_container_name(name, &path, faults);
        validate_amount(name, value, &path, faults);
        validate_huge_page(name, value, &path, faults);
    }
    for (name, value) in requests.fields("") {
        let path = requests.entry_path(name);
        validate_container_name(name, &path, faults);
        validate_amount(name, value, &path, faults);
        validate_huge_page(name, value, &path, faults);
        let limit = limits.get(name);
        match (amount(value), limit.and_then(amount)) {
            (Some(request), Some(limit)) if request != limit && !is_overcommitted(name) => {
                let rule = format!("must be equal to {name} limit of {limit}");
                faults.invalid(requests.path.clone(), quantity(value), rule);
            }
            (Some(request), Some(limit)) if request > limit => {
                let rule = format!("must be less than or equal to {name} limit of {limit}");
                faults.invalid(requests.path.clone(), quantity(value), rule);
            }
            (_, None) if limit.is_none() && !is_overcommitted(name) => faults.required(
                limits.path.clone(),
                "Limit must be set for non overcommitable resources",
            ),
            _ => {}
        }
    }
    let names = limits.fields("").chain(requests.fields(""));
    let names: Vec<_> = names.map(|(name, _)| name).collect();
    let huge = names.iter().any(|name| is_huge_page(name));
    if huge && !names.contains(&"cpu") && !names.contains(&"memory") {
        faults.forbidden(resources.path.clone(), "HugePages require cpu or memory");
    }
}

fn validate_huge_page(name: &str, value: &Value, path: &str, faults: &mut Faults) {
    let Some(size) = name.strip_prefix("hugepages-") else {
        return;
    };
    let (Ok(size), Some(amount)) = (Quantity::parse(size), amount(value)) else {
        return;
    };
    if size.value() > 0 && amount.value() % size.value() != 0 {
        let text = quantity(value);
        let rule = format!("{text} is not positive integer multiple of {name}");
        faults.invalid(path, text, rule);
    }
}

/// Faults in the pod's own `resources`.
pub(super) fn validate_pod_level(spec: &Spot<'_>, faults: &mut Faults) {
    let Some(resources) = spec.some("resources") else {
        return;
    };
    if resources.has("claims") {
        let rule = "claims may not be set for Resources at pod-level";
        faults.forbidden(resources.path("claims"), rule);
    }
    for list in ["limits", "requests"] {
        let list = resources.child(list);
        for (name, _) in list.fields("") {
            if !matches!(name, "cpu" | "memory") && !is_huge_page(name) {
                let words = ["cpu", "hugepages-*", "memory"];
                unsupported(faults, list.entry_path(name), name, &words);
            }
        }
    }
    validate_requirements(&resources, faults);
    let pod = serde_json::json!({ "spec": spec.value });
    for (name, value) in resources.fields("requests") {
        let (Some(sum), Some(own)) = (container_requests(&pod, name), amount(value)) else {
            continue;
        };
        if sum > own {
            let rule =
                format!("must be greater than or equal to aggregate container requests of {sum}");
            let path = resources.child("requests").entry_path(name);
            faults.invalid(path, quantity(value), rule);
        }
    }
    for list in ["containers", "initContainers"] {
        for (index, container) in spec.list(list).iter().enumerate() {
            for (name, value) in container.fields("resources.limits") {
                let own = resources.at("limits").get(name).and_then(amount);
                let (Some(limit), Some(own)) = (amount(value), own) else {
                    continue;
                };
                if limit > own {
                    let path = format!("{}.{list}[{index}][{name}].limits", resources.path);
                    let rule = format!("must be less than or equal to pod limits of {own}");
                    faults.invalid(path, quantity(value), rule);
                }
            }
        }
    }
}

/// Faults in `resourceClaims`.
pub(super) fn validate_claims(spec: &Spot<'_>, faults: &mut Faults) {
    let mut seen = BTreeSet::new();
    for claim in spec.items("resourceClaims") {
        let name = claim.text("name").to_owned();
        if !name.is_empty() && seen.contains(&name) {
            faults.duplicate(claim.path("name"), name);
        } else {
            named(&claim, "name", naming::dns1123_label, faults);
            seen.insert(name);
        }
        let both = [
            claim.has("resourceClaimName"),
            claim.has("resourceClaimTemplateName"),
        ];
        let rule = match both {
            [true, true] => {
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            }
            [false, false] => {
                "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            }
            _ => "",
        };
        if !rule.is_empty() {
            invalid_shown(faults, &claim, &crate::go::RESOURCE_CLAIM, rule);
        }
        for field in ["resourceClaimName", "resourceClaimTemplateName"] {
            if let Some(name) = claim.some(field) {
                let text = name.value.as_str().unwrap_or("");
                rules(faults, name.path, text, naming::dns1123_subdomain(text));
            }
        }
    }
}

/// Faults in a reference to a container's resource from a variable.
pub(super) fn validate_field_ref(field: &Spot<'_>, faults: &mut Faults) {
    let resource = field.text("resource");
    let huge = ["requests.hugepages-", "limits.hugepages-"];
    let huge = huge.iter().any(|prefix| resource.starts_with(prefix));
    if resource.is_empty() {
        faults.required(field.path("resource"), "");
    } else if !FIELDS.contains(&resource) && !huge {
        unsupported(faults, field.path("resource"), resource, &FIELDS);
    }
    validate_divisor(field, resource, faults);
}

/// The same from a volume, where the container must be named.
pub(super) fn validate_volume_field_ref(field: &Spot<'_>, faults: &mut Faults) {
    if field.text("containerName").is_empty() {
        faults.required(field.path("containerName"), "");
        return validate_divisor(field, field.text("resource"), faults);
    }
    validate_field_ref(field, faults);
}

fn validate_divisor(field: &Spot<'_>, resource: &str, faults: &mut Faults) {
    let Some(divisor) = amount(field.at("divisor")).filter(|divisor| !divisor.is_zero()) else {
        return;
    };
    let text = plain(&divisor.to_string().into());
    let kind = resource.split_once('.').map_or("", |(_, kind)| kind);
    let (sound, words, what) = match kind {
        "cpu" => (["1m", "1"].contains(&text.as_str()), "1m and 1", "cpu"),
        _ => {
            let words = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei";
            let what = match kind {
                "memory" => "memory",
                "ephemeral-storage" => "local ephemeral storage",
                kind if is_huge_page(kind) => "hugepages",
                _ => return,
            };
            (BYTES.contains(&text.as_str()), words, what)
        }
    };
    if !sound {
        let rule = format!("only divisor's values {words} are supported with the {what} resource");
        faults.invalid(field.path("divisor"), resource, rule);
    }
}
