//! RoleBinding and ClusterRoleBinding.

use jiff::Timestamp;
use meta::{Faults, naming};
use serde_json::Value;

use crate::go::ROLE_REF;
use crate::row::{Cells, Strategy};
use crate::spot::{Spot, invalid_shown, named, required, rules, same, unsupported};
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Role, Age, Users*, Groups*, ServiceAccounts*";
const GROUP: &str = super::GROUP;

pub(crate) const CLUSTER: Binding = Binding { cluster: true };
pub(crate) const NAMESPACED: Binding = Binding { cluster: false };

pub(crate) struct Binding {
    cluster: bool,
}

impl Strategy for Binding {
    fn default(&self, object: &mut Value) {
        object.fill_text("roleRef.apiGroup", GROUP);
        for subject in object.list_mut("subjects") {
            if matches!(subject.text("kind"), "User" | "Group") {
                subject.fill_text("apiGroup", GROUP);
            }
        }
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let role = Spot::new(object, "roleRef");
        if role.text("apiGroup") != GROUP {
            unsupported(
                faults,
                role.path("apiGroup"),
                role.text("apiGroup"),
                &[GROUP],
            );
        }
        let kinds: &[&str] = match self.cluster {
            true => &["ClusterRole"],
            false => &["Role", "ClusterRole"],
        };
        if !kinds.contains(&role.text("kind")) {
            unsupported(faults, role.path("kind"), role.text("kind"), kinds);
        }
        named(&role, "name", naming::path_segment, faults);
        for subject in Spot::new(object, "").items("subjects") {
            validate_subject(&subject, self.cluster, faults);
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        self.validate_create(object, faults);
        let role = object.at("roleRef");
        if !same(role, old.at("roleRef")) {
            let role = Spot::new(object, "roleRef");
            invalid_shown(faults, &role, &ROLE_REF, "cannot change roleRef");
        }
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        meta::naming::path_segment(name)
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let role = object.at("roleRef");
        cells![
            name(object),
            format!("{}/{}", role.text("kind"), role.text("name")),
            age(object, now),
            subjects(object, "User"),
            subjects(object, "Group"),
            subjects(object, "ServiceAccount"),
        ]
    }
}

fn subjects(object: &Value, kind: &str) -> String {
    let subjects = object.list("subjects").iter();
    let of_kind = subjects.filter(|subject| subject.text("kind") == kind);
    let names = of_kind.map(|subject| match subject.text("namespace") {
        namespace if kind == "ServiceAccount" && !namespace.is_empty() => {
            format!("{namespace}/{}", subject.text("name"))
        }
        _ => subject.text("name").to_owned(),
    });
    names.collect::<Vec<_>>().join(", ")
}

fn validate_subject(subject: &Spot<'_>, cluster: bool, faults: &mut Faults) {
    required(subject, "name", faults);
    let group = subject.text("apiGroup");
    let path = subject.path("apiGroup");
    match subject.text("kind") {
        "ServiceAccount" => {
            let name = subject.text("name");
            if !name.is_empty() {
                let broken = naming::dns1123_subdomain(name);
                rules(faults, subject.path("name"), name, broken);
            }
            if !group.is_empty() {
                unsupported(faults, path, group, &[""]);
            }
            if cluster {
                required(subject, "namespace", faults);
            }
        }
        "User" | "Group" if group == GROUP => {}
        "User" | "Group" => unsupported(faults, path, group, &[GROUP]),
        other => {
            let words = ["ServiceAccount", "User", "Group"];
            unsupported(faults, subject.path("kind"), other, &words);
        }
    }
}
