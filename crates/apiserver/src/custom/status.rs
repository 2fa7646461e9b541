//! What a definition's status says: which names it has, and whether it is served.

use std::collections::BTreeSet;
use std::sync::Arc;

use ::custom::definition::{
    approval_condition, is_true, remove_condition, set_condition, structural_faults,
};
use meta::Object;
use serde_json::{Map, Value};

use crate::verbs::write::text;

/// Names of resources, with the reason upstream gives when one is taken.
const RESOURCE_NAMES: [(&str, &str); 2] = [
    ("plural", "PluralConflict"),
    ("singular", "SingularConflict"),
];
/// The same of kinds.
const KIND_NAMES: [(&str, &str); 2] = [("kind", "KindConflict"), ("listKind", "ListKindConflict")];

/// Whether a name that the definition asks for belongs to another.
pub(super) fn has_conflict(definition: &Value) -> bool {
    definition.pointer("/spec/names") != definition.pointer("/status/acceptedNames")
}

/// Whether a definition's resources are to be served.
pub(super) fn is_served(definition: &Value) -> bool {
    is_true(definition, "NamesAccepted") || is_true(definition, "Established")
}

/// The definition with the status that it should have. `siblings`: the others of its group.
pub(super) fn next(definition: &Value, siblings: &[Arc<Object>]) -> Value {
    let mut next = definition.clone();
    if has_conflict(definition) {
        accept_names(&mut next, siblings);
    }
    note_structure(&mut next);
    if let Some((status, reason, message)) = approval_condition(definition) {
        let kind = "KubernetesAPIApprovalPolicyConformant";
        set_condition(&mut next, kind, status, reason, &message);
    }
    if is_true(&next, "NamesAccepted") && !is_true(&next, "Established") {
        let text = "the initial names have been accepted";
        set_condition(
            &mut next,
            "Established",
            "True",
            "InitialNamesAccepted",
            text,
        );
    }
    next
}

struct Used {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

fn used(definition: &Value, siblings: &[Arc<Object>]) -> Used {
    let mut used = Used {
        resources: BTreeSet::new(),
        kinds: BTreeSet::new(),
    };
    let all = siblings.iter().map(|other| &other.0).chain([definition]);
    for names in all.filter_map(|own| own.pointer("/status/acceptedNames")) {
        let own = |field: &str| text(names, &format!("/{field}")).to_owned();
        used.resources.extend(["plural", "singular"].map(own));
        used.resources.extend(short(names));
        used.kinds.extend(["kind", "listKind"].map(own));
    }
    used
}

fn short(names: &Value) -> impl Iterator<Item = String> {
    let list = names.get("shortNames").and_then(Value::as_array);
    let list = list.into_iter().flatten().filter_map(Value::as_str);
    list.map(str::to_owned)
}

fn accept_names(definition: &mut Value, siblings: &[Arc<Object>]) {
    let used = used(definition, siblings);
    let null = Value::Null;
    let wanted = definition.pointer("/spec/names").unwrap_or(&null).clone();
    let accepted = definition.pointer("/status/acceptedNames");
    let accepted = accepted.unwrap_or(&null).clone();
    let mut names: Map<String, Value> = accepted.as_object().cloned().unwrap_or_default();
    let mut conflict: Option<(&str, String)> = None;
    let own = |names: &Value, field: &str| text(names, &format!("/{field}")).to_owned();
    let is_taken = |name: &str, before: &str, used: &BTreeSet<String>| {
        (name != before && used.contains(name)).then(|| format!("{name:?} is already in use"))
    };
    let mut take = |field: &str, reason: &'static str, used: &BTreeSet<String>| {
        let name = own(&wanted, field);
        match is_taken(&name, &own(&accepted, field), used) {
            Some(why) => conflict = Some((reason, why)),
            None => drop(names.insert(field.into(), name.into())),
        }
    };
    for (field, reason) in RESOURCE_NAMES {
        take(field, reason, &used.resources);
    }
    let before: BTreeSet<String> = short(&accepted).collect();
    let taken = short(&wanted).filter(|name| !before.contains(name));
    let taken: Vec<String> = taken
        .filter_map(|name| is_taken(&name, "", &used.resources))
        .collect();
    let short_conflict = match taken.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        several => Some(format!("[{}]", several.join(", "))),
    };
    for (field, reason) in KIND_NAMES {
        take(field, reason, &used.kinds);
    }
    match short_conflict {
        Some(why) => conflict = conflict.or(Some(("ShortNamesConflict", why))),
        None => copy(&wanted, "shortNames", &mut names),
    }
    copy(&wanted, "categories", &mut names);
    meta::object::map_at(definition, "status").insert("acceptedNames".into(), names.into());
    let (status, reason, message) = match &conflict {
        Some((reason, why)) => ("False", *reason, why.as_str()),
        None => ("True", "NoConflicts", "no conflicts found"),
    };
    set_condition(definition, "NamesAccepted", status, reason, message);
    let established = definition
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    let established = established.into_iter().flatten();
    let mut established = established.filter(|own| own["type"] == "Established");
    if established.next().is_none() && conflict.is_some() {
        let text = "not all names are accepted";
        set_condition(definition, "Established", "False", "NotAccepted", text);
    }
}

fn copy(from: &Value, field: &str, into: &mut Map<String, Value>) {
    match from.get(field) {
        Some(own) => drop(into.insert(field.into(), own.clone())),
        None => drop(into.remove(field)),
    }
}

/// Definitions of old may have schemas that are not structural.
fn note_structure(definition: &mut Value) {
    const KIND: &str = "NonStructuralSchema";
    let mut broken: Vec<String> = Vec::new();
    if definition.pointer("/spec/preserveUnknownFields") == Some(&Value::Bool(true)) {
        broken.push("spec.preserveUnknownFields: Invalid value: true: must be false".into());
    }
    let versions = definition
        .pointer("/spec/versions")
        .and_then(Value::as_array);
    for (at, version) in versions.into_iter().flatten().enumerate() {
        if let Some(schema) = version.pointer("/schema/openAPIV3Schema") {
            let path = format!("spec.versions[{at}].schema.openAPIV3Schema");
            let faults = structural_faults(schema, &path);
            broken.extend(faults.iter().map(ToString::to_string));
        }
    }
    match broken.as_slice() {
        [] => remove_condition(definition, KIND),
        [one] => set_condition(definition, KIND, "True", "Violations", one),
        several => {
            let all = format!("[{}]", several.join(", "));
            set_condition(definition, KIND, "True", "Violations", &all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn definition(plural: &str, kind: &str, short: &[&str]) -> Value {
        json!({"metadata": {"name": format!("{plural}.a.b")}, "spec": {"group": "a.b",
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind,
                "listKind": format!("{kind}List"), "shortNames": short}},
            "status": {"acceptedNames": {"kind": "", "plural": ""}}})
    }

    fn condition<'a>(definition: &'a Value, kind: &str) -> (&'a str, &'a str, &'a str) {
        let mut all = definition["status"]["conditions"]
            .as_array()
            .unwrap()
            .iter();
        let own = all.find(|own| own["type"] == kind).unwrap();
        let word = |field: &str| own[field].as_str().unwrap();
        (word("status"), word("reason"), word("message"))
    }

    #[test]
    fn free_names_are_accepted() {
        let one = next(&definition("as", "A", &["x"]), &[]);
        assert_eq!(one["status"]["acceptedNames"], one["spec"]["names"]);
        assert_eq!(
            condition(&one, "NamesAccepted"),
            ("True", "NoConflicts", "no conflicts found")
        );
        assert_eq!(
            condition(&one, "Established"),
            (
                "True",
                "InitialNamesAccepted",
                "the initial names have been accepted"
            )
        );
        assert!(is_served(&one) && !has_conflict(&one));
        assert_eq!(next(&one, &[]), one);
    }

    #[test]
    fn names_of_others_are_refused_until_they_are_free() {
        let first = Arc::new(Object(next(&definition("as", "A", &["x"]), &[])));
        let second = next(&definition("bs", "A", &["x"]), &[Arc::clone(&first)]);
        assert_eq!(
            condition(&second, "NamesAccepted"),
            ("False", "ListKindConflict", "\"AList\" is already in use")
        );
        assert_eq!(
            condition(&second, "Established"),
            ("False", "NotAccepted", "not all names are accepted")
        );
        assert_eq!(second["status"]["acceptedNames"]["plural"], "bs");
        assert!(!is_served(&second) && has_conflict(&second));
        let third = next(&second, &[]);
        assert!(is_served(&third) && !has_conflict(&third), "{third}");
        let short = next(&definition("cs", "C", &["x", "as"]), &[first]);
        assert_eq!(
            condition(&short, "NamesAccepted"),
            (
                "False",
                "ShortNamesConflict",
                "[\"x\" is already in use, \"as\" is already in use]"
            )
        );
    }
}
