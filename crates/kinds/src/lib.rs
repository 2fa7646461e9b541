//! The rules of every built-in kind: names, defaults, preparation, validation,
//! printer columns. A kind is a [`Row`]: data plus a [`Strategy`]. Verbs know
//! no kinds and kinds know no verbs; custom resources make rows at run time.

mod admissionregistration;
mod apiextensions;
mod apiregistration;
mod apps;
mod authentication;
mod authorization;
mod autoscaling;
mod batch;
mod certificates;
mod coordination;
mod core;
mod discovery;
mod flowcontrol;
mod go;
pub mod metadata;
mod networking;
mod node;
mod path;
mod plain;
mod policy;
mod rbac;
mod resource;
pub mod row;
mod scheduling;
mod spot;
mod storage;
mod table;
mod tree;
mod view;
mod warnings;

use std::sync::LazyLock;

pub use core::pod::qos_class;
pub use core::service_rules::validate_service_addresses;
pub use row::{Cells, Column, Row, ScalePaths, Strategy, Verbs};
pub use view::{View, views};

static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let groups = [
        core::rows(),
        apiregistration::rows(),
        apps::rows(),
        authentication::rows(),
        authorization::rows(),
        autoscaling::rows(),
        batch::rows(),
        certificates::rows(),
        networking::rows(),
        policy::rows(),
        rbac::rows(),
        storage::rows(),
        admissionregistration::rows(),
        apiextensions::rows(),
        scheduling::rows(),
        coordination::rows(),
        node::rows(),
        discovery::rows(),
        resource::rows(),
        flowcontrol::rows(),
    ];
    groups.into_iter().flatten().collect()
});

/// All built-in kinds, in the order in which discovery shows groups.
pub fn rows() -> &'static [Row] {
    &ROWS
}

/// The built-in kind of that group (empty for the core group) and name, such as `Pod`.
/// The preferred version comes first where there are several.
pub fn row(group: &str, kind: &str) -> Option<&'static Row> {
    rows()
        .iter()
        .find(|row| row.names.group == group && row.names.kind == kind)
}
