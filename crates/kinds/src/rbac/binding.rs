//! RoleBinding and ClusterRoleBinding.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
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
