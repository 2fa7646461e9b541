//! The part of admission that may have to wait: policies, whose objects a webhook may have to
//! convert, and MutatingAdmissionWebhook and ValidatingAdmissionWebhook. They stand between the
//! synchronous plugins, in upstream's order:
//!
//! ```text
//! plugins ─▶ mutating policies ─▶ mutating webhooks (▶ all once more, if these changed something)
//!     ─▶ defaults, validation ─▶ plugins ─▶ validating policies
//!     ─▶ validating webhooks, side by side ─▶ ResourceQuota ─▶ store
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

use std::borrow::Cow;
use std::sync::Arc;

use admission::{Later, Operation, Subject, Views};
use meta::Names;
use schema::TypeRef;
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
    view: View<'a>,
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
        if operation == Operation::Connect {
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
        view: View<'a>,
    ) -> Option<Asked<'a>> {
        let (names, info) = (write.names(), &write.call.info);
        // No webhook may keep an administrator from mending webhooks.
        if names.group == "admissionregistration.k8s.io" {
            return None;
        }
        let now = write.core.registry.now();
        let kept = &write.resource.cache;
        let is_same = |asked: &Arc<Resource>| match (&asked.cache, kept) {
            (Some(asked), Some(kept)) => Arc::ptr_eq(asked, kept),
            _ => asked.row.names == *names,
        };
        let asked = now.find(&info.group, &info.version, &info.resource);
        let asked = asked.filter(is_same);
        let own = || now.find(&names.group, &names.version, &names.plural);
        let resource = asked.or_else(own)?;
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

/// Whether anybody is to be asked before objects are made or changed.
pub(crate) fn may_mutate(core: &Core) -> bool {
    core.hooks.may_mutate() || core.policies.may_mutate()
}

/// Whether anybody is to be asked before objects are stored.
pub(crate) fn may_refuse(core: &Core) -> bool {
    core.hooks.may_refuse() || core.policies.may_refuse()
}

impl Asked<'_> {
    /// The same question to policies.
    fn subject(&self) -> Subject<'_> {
        Subject {
            operation: self.operation,
            names: &self.resource.row.names,
            subresource: self.subresource,
            namespace: self.namespace,
            name: self.name,
            user: &self.call.user,
            dry_run: self.dry_run,
            options: &self.options,
            notes: self.call,
            lookup: &self.core.lookup,
            views: self,
        }
    }

    /// Other versions, and groups, of the same objects.
    fn equivalents(&self) -> Vec<Arc<Resource>> {
        let own = &self.resource;
        let Some(cache) = own.cache.as_ref() else {
            return Vec::new();
        };
        let now = self.core.registry.now();
        let is_equivalent = |other: &&Arc<Resource>| {
            let kept = other.cache.as_ref();
            kept.is_some_and(|one| Arc::ptr_eq(one, cache)) && other.row.names != own.row.names
        };
        now.all().filter(is_equivalent).cloned().collect()
    }

    fn find(&self, names: &Names) -> Result<Arc<Resource>, meta::Status> {
        if self.resource.row.names == *names {
            return Ok(Arc::clone(&self.resource));
        }
        let now = self.core.registry.now();
        let found = now.find(&names.group, &names.version, &names.plural);
        found.ok_or_else(crate::dispatch::no_such_resource)
    }
}

impl Views for Asked<'_> {
    fn equivalents(&self) -> Vec<Names> {
        let all = Asked::equivalents(self).into_iter();
        all.map(|resource| resource.row.names.clone()).collect()
    }

    fn kind(&self, names: &Names) -> [String; 3] {
        match self.view.kind() {
            Some((group, version, kind)) => [group, version, kind].map(str::to_owned),
            None => [&names.group, &names.version, &names.kind].map(String::clone),
        }
    }

    fn shape(&self, names: &Names) -> Option<TypeRef> {
        match self.view.kind() {
            Some((group, version, kind)) => {
                let ty = schema::builtin(group, version, kind)?;
                schema::table::reference(&ty.name)
            }
            None => self.find(names).ok()?.ty.clone(),
        }
    }

    fn shown<'s, 'v: 's>(&'s self, names: &'s Names, kept: &'v Value) -> Later<'s, Cow<'v, Value>> {
        Box::pin(async move {
            let resource = self.find(names)?;
            Asked::shown(self, &resource, kept).await
        })
    }

    fn kept<'s>(&'s self, names: &'s Names, shown: Value, before: &'s Value) -> Later<'s, Value> {
        Box::pin(async move {
            let resource = self.find(names)?;
            Asked::kept(self, &resource, shown, before).await
        })
    }
}

/// The options of a write, as its query says them; those of a deletion may stand in its body.
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
    let mut options = match write.delete_options {
        Some(given) if operation == Operation::Delete => given.clone(),
        _ => json!({}),
    };
    options["kind"] = kind.into();
    options["apiVersion"] = "meta.k8s.io/v1".into();
    if write.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    let fields: &[&str] = match operation {
        Operation::Delete => &[],
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
