//! What is allowed but hardly meant, or will not work for much longer: parts that many kinds share.

use std::net::IpAddr;

use meta::naming;
use serde_json::Value;

use crate::spot::{Spot, amount};
use crate::table::quantity;
use crate::tree::Tree;

/// Labels of nodes that have other names today.
const NODE_LABELS: [(&str, &str); 8] = [
    (
        "beta.kubernetes.io/arch",
        "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
    ),
    (
        "beta.kubernetes.io/os",
        "deprecated since v1.14; use \"kubernetes.io/os\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    (
        "node-role.kubernetes.io/master",
        "use \"node-role.kubernetes.io/control-plane\" instead",
    ),
];

/// What to say of a node's label that is no longer used.
pub(crate) fn node_label(key: &str) -> Option<&'static str> {
    let found = NODE_LABELS.iter().find(|(label, _)| *label == key);
    found.map(|(_, message)| *message)
}

/// Names of annotations that have become fields; each with what to say of it.
pub(crate) fn annotations(object: &Spot<'_>, known: &[(&str, &str)]) -> Vec<String> {
    let Some(annotations) = object.some("metadata.annotations") else {
        return Vec::new();
    };
    let set = known
        .iter()
        .filter(|(key, _)| annotations.get(key).is_some());
    set.map(|(key, message)| format!("{}: {message}", annotations.entry_path(key)))
        .collect()
}

/// Expressions over nodes' labels, as they stand in a term of a node selector or in a label
/// selector.
pub(crate) fn expressions(term: &Spot<'_>) -> Vec<String> {
    let old = |expression: Spot<'_>| {
        let key = expression.text("key");
        let message = node_label(key)?;
        Some(format!("{}: {key} is {message}", expression.path("key")))
    };
    term.items("matchExpressions").filter_map(old).collect()
}

/// A term that is only preferred may have values that no label can have.
pub(crate) fn preference(term: &Spot<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    for expression in term.items("matchExpressions") {
        let key = expression.text("key");
        if let Some(message) = node_label(key) {
            warnings.push(format!("{}: {key} is {message}", expression.path("key")));
        }
        for value in expression.items("values") {
            let text = value.as_str().unwrap_or("");
            for rule in naming::label_value(text) {
                warnings.push(format!("{}: {text} is invalid, {rule}", value.path));
            }
        }
    }
    warnings
}

/// Bytes come whole.
pub(crate) fn fraction(list: &Spot<'_>, resource: &str) -> Option<String> {
    let value = list.get(resource)?;
    let broken = amount(value).is_some_and(|amount| amount.milli() % 1000 != 0);
    broken.then(|| {
        format!(
            "{}: fractional byte value \"{}\" is invalid, must be an integer",
            list.entry_path(resource),
            quantity(value)
        )
    })
}

/// The specification of a claim.
pub(crate) fn claim_spec(spec: &Spot<'_>) -> Vec<String> {
    let lists = ["resources.requests", "resources.limits"];
    let found = lists.map(|list| fraction(&spec.child(list), "storage"));
    found.into_iter().flatten().collect()
}

/// An address that can be written in a better way.
pub(crate) fn ip(path: &str, text: &str) -> Option<String> {
    let Ok(IpAddr::V6(address)) = text.parse() else {
        return None;
    };
    let better = address.to_string();
    (better != text).then(|| {
        format!(
            "{path}: IPv6 address \"{text}\" should be in RFC 5952 canonical format \
             (\"{better}\")"
        )
    })
}

/// The same for a range of addresses.
pub(crate) fn cidr(path: &str, text: &str) -> Option<String> {
    let (address, bits) = text.split_once('/')?;
    let Ok(IpAddr::V6(address)) = address.parse() else {
        return None;
    };
    let better = format!("{address}/{bits}");
    (better != text).then(|| {
        format!(
            "{path}: IPv6 CIDR value \"{text}\" should be in RFC 5952 canonical format \
             (\"{better}\")"
        )
    })
}

/// The same for the texts in a list of addresses or ranges.
pub(crate) fn each<'s>(
    list: impl Iterator<Item = Spot<'s>>,
    warning: fn(&str, &str) -> Option<String>,
) -> Vec<String> {
    list.filter_map(|one| warning(&one.path, one.as_str().unwrap_or("")))
        .collect()
}

/// The end of names that belong to configurations in files.
pub(crate) fn static_suffix(object: &Value) -> Vec<String> {
    const SUFFIX: &str = ".static.k8s.io";
    let reserved = object.text("metadata.name").ends_with(SUFFIX);
    let warning = format!(
        "metadata.name: names ending with \"{SUFFIX}\" are reserved for static manifest-based \
         configurations and cannot be managed via the API"
    );
    reserved.then_some(warning).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_best_written_one_way() {
        assert_eq!(ip("a", "10.0.0.1"), None);
        assert_eq!(ip("a", "2001:db8::1"), None);
        assert_eq!(
            ip("a.b[0]", "2001:DB8:0::1").as_deref(),
            Some(
                "a.b[0]: IPv6 address \"2001:DB8:0::1\" should be in RFC 5952 canonical format \
                 (\"2001:db8::1\")"
            )
        );
        assert_eq!(cidr("a", "10.0.0.0/8"), None);
        assert_eq!(
            cidr("a", "2001:db8:0::/64").as_deref(),
            Some(
                "a: IPv6 CIDR value \"2001:db8:0::/64\" should be in RFC 5952 canonical format \
                 (\"2001:db8::/64\")"
            )
        );
    }
}
