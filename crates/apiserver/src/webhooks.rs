//! Admission webhooks: MutatingAdmissionWebhook and ValidatingAdmissionWebhook. They stand
//! between the synchronous plugins, in upstream's order:
//!
//! ```text
//! mutating plugins ─▶ mutating webhooks (▶ once more, if needed) ─▶ defaults, validation
//!     ─▶ validating plugins ─▶ validating webhooks, side by side ─▶ ResourceQuota ─▶ store
//! ```
//! Configurations are compiled when they change ([`source`]); a write that none is about costs
//! a look at an empty list.

mod call;
mod conditions;
mod foreign;
mod hook;
mod matching;
mod mutate;
mod resolve;
mod review;
mod source;
mod trail;
mod validate;
mod view;

use std::sync::Arc;

use admission::Operation;
use serde_json::{Value, json};

use crate::chain::Call;
use crate::registry::Resource;
use crate::server::Core;
use crate::verbs::write::Write;
use view::View;

pub(crate) use foreign::{ask_about, connection};
pub(crate) use mutate::mutate;
pub(crate) use resolve::Services;
pub(crate) use source::Hooks;
pub(crate) use validate::validate;

/// A question to webhooks: one write, as the client asked for it.
pub(crate) struct Asked<'a> {
    core: &'a Core,
    call: &'a Call,
    operation: Operation,
    /// In the version that the client speaks.
    resource: Arc<Resource>,
    subresource: &'a str,
    /// Of a Namespace its own name.
    namespace: &'a str,
    name: &'a str,
    view: View,
    dry_run: bool,
    /// Such as `CreateOptions`.
    options: Value,
}

impl<'a> Asked<'a> {
    /// What a write asks about the object it changes. `None` where webhooks are asked about
    /// something else ([`ask_about`]), or never.
    pub(crate) fn of(
        write: &'a Write<'a>,
        operation: Operation,
        name: &'a str,
    ) -> Option<Asked<'a>> {
        let is_foreign = matches!(write.call.info.subresource.as_str(), "binding" | "eviction")
            || write.subresource == "binding";
        let is_pod = write.names().group.is_empty() && write.names().plural == "pods";
        if operation == Operation::Connect || is_foreign && is_pod {
            return None;
        }
        let view = match write.subresource {
            "scale" => View::Scale,
            _ => View::Whole,
        };
        Asked::seen(write, operation, name, view)
    }

    fn seen(
        write: &'a Write<'a>,
        operation: Operation,
        name: &'a str,
        view: View,
    ) -> Option<Asked<'a>> {
        let (names, info) = (write.names(), &write.call.info);
        // No webhook may keep an administrator from mending webhooks.
        if names.group == "admissionregistration.k8s.io" {
            return None;
        }
        let is_own = info.group == names.group && info.resource == names.plural;
        let version = match is_own {
            true => info.version.as_str(),
            false => names.version.as_str(),
        };
        let now = write.core.registry.now();
        let resource = now.find(&names.group, version, &names.plural)?;
        let is_namespace = names.group.is_empty() && names.kind == "Namespace";
        Some(Asked {
            core: write.core,
            call: write.call,
            operation,
            resource,
            subresource: write.subresource,
            namespace: if is_namespace { name } else { write.namespace },
            name,
            view,
            dry_run: write.dry_run,
            options: options(write, operation),
        })
    }

    fn is_namespace(&self) -> bool {
        let names = &self.resource.row.names;
        names.group.is_empty() && names.plural == "namespaces" && self.subresource.is_empty()
    }
}

/// The options of a write, as its query says them.
fn options(write: &Write<'_>, operation: Operation) -> Value {
    let query = &write.call.query;
    let kind = match (operation, write.call.info.verb) {
        (Operation::Create, "patch") => "PatchOptions",
        (Operation::Create, _) => "CreateOptions",
        (Operation::Update, "patch") => "PatchOptions",
        (Operation::Update, _) => "UpdateOptions",
        (Operation::Delete, _) => "DeleteOptions",
        (Operation::Connect, _) => return Value::Null,
    };
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if write.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    let fields: &[&str] = match operation {
        Operation::Delete => &["propagationPolicy"],
        _ => &["fieldManager", "fieldValidation"],
    };
    for field in fields {
        if let Some(value) = query.get(field) {
            options[*field] = value.into();
        }
    }
    if kind == "PatchOptions" && query.flag("force") {
        options["force"] = true.into();
    }
    options
}
