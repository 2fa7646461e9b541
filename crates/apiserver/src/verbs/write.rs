//! What all writes share: names and namespaces, admission, bookkeeping, managed fields.

use kinds::Row;
use std::sync::Arc;
use std::time::{Duration, Instant};

use admission::Operation;
use meta::{Faults, Names, Object, Status};
use serde_json::{Map, Value};

use crate::chain::Call;
use crate::measure;
use crate::registry::Resource;
use crate::server::Core;
use crate::webhooks::{self, Asked};

/// How long a creation waits for what it needs.
const NEEDS_WAIT: Duration = Duration::from_secs(1);
/// What admission and authorization decide from.
const DECIDING: [&str; 19] = [
    "namespaces",
    "serviceaccounts",
    "services",
    "limitranges",
    "resourcequotas",
    "roles.rbac.authorization.k8s.io",
    "rolebindings.rbac.authorization.k8s.io",
    "clusterroles.rbac.authorization.k8s.io",
    "clusterrolebindings.rbac.authorization.k8s.io",
    "priorityclasses.scheduling.k8s.io",
    "storageclasses.storage.k8s.io",
    "runtimeclasses.node.k8s.io",
    "customresourcedefinitions.apiextensions.k8s.io",
    "mutatingwebhookconfigurations.admissionregistration.k8s.io",
    "validatingwebhookconfigurations.admissionregistration.k8s.io",
    "validatingadmissionpolicies.admissionregistration.k8s.io",
    "validatingadmissionpolicybindings.admissionregistration.k8s.io",
    "mutatingadmissionpolicies.admissionregistration.k8s.io",
    "mutatingadmissionpolicybindings.admissionregistration.k8s.io",
];

/// One write on its way.
pub(crate) struct Write<'a> {
    pub(crate) core: &'a Arc<Core>,
    pub(crate) call: &'a Call,
    pub(crate) resource: &'a Resource,
    /// The version that a client speaks of a custom resource, when it is not the stored one: its
    /// schema judges what is written.
    pub(crate) spoken: Option<&'a Resource>,
    /// Whose rules judge what is written: those of the version asked for, where it has some of
    /// its own for objects of the stored one.
    pub(crate) rules: &'a Row,
    pub(crate) namespace: &'a str,
    /// Such as `status`, or empty.
    pub(crate) subresource: &'a str,
    pub(crate) dry_run: bool,
    /// `DeleteOptions`, as the request has them.
    pub(crate) delete_options: Option<&'a Value>,
    /// Admission is done: what is written follows from an object that it has seen, such as a
    /// Binding.
    pub(crate) is_admitted: bool,
}

impl<'a> Write<'a> {
    /// The write that a request asks for, in whichever version.
    pub(crate) fn of(
        core: &'a Arc<Core>,
        call: &'a Call,
        resource: &'a Resource,
    ) -> Result<Write<'a>, Status> {
        super::given::check(call)?;
        let is_spoken = resource.custom && resource.seen.is_some();
        let spoken = is_spoken.then_some(resource);
        let asked = resource;
        let resource = resource.stored();
        let rules = if asked.custom { resource } else { asked };
        Ok(Write {
            core,
            call,
            resource,
            spoken,
            rules: &rules.row,
            namespace: match resource.row.names.is_namespaced() {
                true => &call.info.namespace,
                false => "",
            },
            subresource: &call.info.subresource,
            dry_run: crate::body::is_dry_run(call),
            delete_options: None,
            is_admitted: false,
        })
    }

    pub(crate) fn names(&self) -> &'a Names {
        &self.resource.row.names
    }

    /// Runs the mutating plugins, policies and webhooks, and then checks the rights to hand out
    /// rights.
    pub(crate) async fn mutate(
        &self,
        operation: Operation,
        name: &str,
        object: Value,
        old: Option<&Object>,
    ) -> Result<Value, Status> {
        let begun = Instant::now();
        let mutated = self.mutated(operation, name, object, old).await;
        measure::admitted("admit", operation, mutated.is_err(), begun.elapsed());
        mutated
    }

    async fn mutated(
        &self,
        operation: Operation,
        name: &str,
        object: Value,
        old: Option<&Object>,
    ) -> Result<Value, Status> {
        if self.is_admitted {
            return Ok(object);
        }
        let mut object = Object(object);
        self.complete(operation, name, &mut object, old).await?;
        if webhooks::may_mutate(self.core)
            && let Some(asked) = Asked::of(self, operation, name)
        {
            let mutated = webhooks::mutate(&asked, object.0, old, |mut object| {
                Box::pin(async move {
                    self.complete(operation, name, &mut object, old).await?;
                    Ok(object)
                })
            });
            object = Object(Box::pin(mutated).await?);
        }
        let (user, names) = (&self.call.user, self.names());
        let authorizer = &self.core.authorizer;
        let checked = authorizer.check_escalation(user, names, self.namespace, &object, old);
        checked.await?;
        Ok(object.0)
    }

    /// Runs the mutating plugins.
    pub(crate) async fn complete(
        &self,
        operation: Operation,
        name: &str,
        object: &mut Object,
        old: Option<&Object>,
    ) -> Result<(), Status> {
        let core = self.core;
        let request = self.request(operation, name, old);
        let Some(answers) = &self.call.answers else {
            return core.admission.mutate(&request, object, &core.lookup);
        };
        let (before, lookup) = (object.clone(), core.lookup.with(answers));
        loop {
            let mutated = core.admission.mutate(&request, object, &lookup);
            if !self.call.find_answers(&core.authorizer).await {
                return mutated;
            }
            object.clone_from(&before);
        }
    }

    /// Asks the validating plugins before policies and webhooks.
    async fn validate(
        &self,
        request: &admission::Request<'_>,
        object: Option<&Object>,
    ) -> Result<(), Status> {
        let core = self.core;
        let Some(answers) = &self.call.answers else {
            let lookup = &core.lookup;
            return core
                .admission
                .validate_before_policies(request, object, lookup);
        };
        let lookup = core.lookup.with(answers);
        loop {
            let validated = core
                .admission
                .validate_before_policies(request, object, &lookup);
            if answers.are_missing() && validated.is_ok() {
                core.admission.refused_between(request, object);
            }
            if !self.call.find_answers(&core.authorizer).await {
                return validated;
            }
        }
    }

    /// Lets the plugins judge an object that is not kept.
    pub(crate) async fn judge(
        &self,
        operation: Operation,
        name: &str,
        object: &Object,
    ) -> Result<(), Status> {
        let request = self.request(operation, name, None);
        let (admission, lookup) = (&self.core.admission, &self.core.lookup);
        self.validate(&request, Some(object)).await?;
        admission.validate_behind_webhooks(&request, Some(object), lookup)?;
        admission.settled(&request, Some(object), false);
        Ok(())
    }

    /// Waits a moment for what the new object needs and a controller is about to make, such as a
    /// namespace's service account.
    pub(crate) async fn await_needs(&self, name: &str, object: Value) -> Value {
        let object = Object(object);
        let request = self.request(Operation::Create, name, None);
        let core = self.core;
        let end = tokio::time::Instant::now() + NEEDS_WAIT;
        while let Some(missing) = core.admission.awaited(&request, &object, &core.lookup) {
            if missing.create && !self.make(&missing).await {
                break;
            }
            let resources = core.registry.now();
            let cache = resources
                .by_name(missing.resource)
                .and_then(|own| own.cache.clone());
            drop(resources);
            let Some(cache) = cache else {
                break;
            };
            let mut growth = cache.growth();
            growth.catch_up();
            // It may have come in between.
            if core
                .admission
                .awaited(&request, &object, &core.lookup)
                .is_none()
            {
                break;
            }
            let grown = tokio::time::timeout_at(end, growth.changed()).await;
            if !matches!(grown, Ok(Ok(()))) {
                break;
            }
        }
        object.0
    }

    /// Makes what a plugin finds missing; whether it is there now, or will soon be.
    async fn make(&self, missing: &admission::Awaited) -> bool {
        let names = {
            let resources = self.core.registry.now();
            let own = resources.by_name(missing.resource);
            own.map(|own| own.row.names.clone())
        };
        let Some(names) = names else {
            return false;
        };
        let server = crate::ApiServer {
            core: Arc::clone(self.core),
        };
        let client = server.client(auth::Identity::loopback());
        let namespace = Some(missing.namespace.as_str()).filter(|own| !own.is_empty());
        let body = serde_json::json!({"metadata": {"name": missing.name}});
        let path = names.path(namespace, None);
        let made = Box::pin(client.send_value(http::Method::POST, &path, &body)).await;
        match made {
            Err(status) if !status.is_already_exists() => {
                tracing::warn!(%status, name = missing.name, "cannot make what is missing");
                false
            }
            _ => {
                self.core.feed.fresh().await;
                true
            }
        }
    }

    /// Runs the validating plugins, policies and webhooks. Whoever admitted the write learns how it ended.
    pub(crate) async fn admit<'w>(
        &'w self,
        operation: Operation,
        name: &'w str,
        object: Option<&'w Object>,
        old: Option<&'w Object>,
    ) -> Result<Admitted<'w>, Status> {
        let begun = Instant::now();
        let admitted = self.admitted(operation, name, object, old).await;
        measure::admitted("validate", operation, admitted.is_err(), begun.elapsed());
        admitted
    }

    async fn admitted<'w>(
        &'w self,
        operation: Operation,
        name: &'w str,
        object: Option<&'w Object>,
        old: Option<&'w Object>,
    ) -> Result<Admitted<'w>, Status> {
        let core = self.core;
        let request = self.request(operation, name, old);
        if self.is_admitted {
            return Ok(Admitted {
                request: None,
                core,
                object,
                stored: false,
            });
        }
        let deletes = operation == Operation::Delete;
        let asks = webhooks::may_refuse(core) || deletes && core.hooks.may_mutate();
        let asked = match asks {
            true => Asked::of(self, operation, name),
            false => None,
        };
        self.validate(&request, object).await?;
        if let Some(asked) = asked {
            let objects = (object.map(|object| &object.0), old.map(|old| &old.0));
            let heard = Box::pin(webhooks::validate(&asked, objects)).await;
            if let Err(status) = heard {
                core.admission.refused_between(&request, object);
                return Err(status);
            }
        }
        let (admission, lookup) = (&core.admission, &core.lookup);
        admission.validate_behind_webhooks(&request, object, lookup)?;
        Ok(Admitted {
            core,
            request: Some(request),
            object,
            stored: false,
        })
    }

    fn request<'w>(
        &'w self,
        operation: Operation,
        name: &'w str,
        old: Option<&'w Object>,
    ) -> admission::Request<'w> {
        admission::Request {
            operation,
            names: self.names(),
            namespace: self.namespace,
            name,
            subresource: self.subresource,
            user: &self.call.user,
            old,
            dry_run: self.dry_run,
            notes: self.call,
        }
    }

    /// Whether the caches may be behind the store; what admission refused may then be allowed.
    pub(crate) fn may_be_stale(&self) -> bool {
        self.core.feed.applied() < self.core.store.revision()
    }

    /// Records who set which field, of objects in the version of `by`.
    pub(crate) fn own_fields(&self, by: &Resource, old: Option<&Value>, new: &mut Value) {
        let Some(ty) = &by.ty else {
            return;
        };
        let manager = self.call.field_manager();
        // Versions that differ in their name have the same fields.
        let spoken = self
            .spoken
            .filter(|spoken| !spoken.is_converted_by_webhook());
        let names = spoken.map_or(&by.row.names, |spoken| &spoken.row.names);
        schema::update_managed_fields(
            ty.get(),
            old,
            new,
            schema::UpdateOptions {
                manager: &manager,
                api_version: &names.api_version(),
                subresource: self.subresource,
                now: &meta::time::now(),
                reset: reset_paths(by, self.subresource),
            },
        );
    }

    /// 422 unless there are no faults.
    pub(crate) fn check(&self, name: &str, faults: &Faults) -> Result<(), Status> {
        match faults.is_empty() {
            true => Ok(()),
            false => Err(Status::invalid(self.names(), name, faults)),
        }
    }

    /// Waits until the caches have a write that others decide from, so that whoever was told of
    /// it meets its effects.
    pub(crate) async fn settle(&self, revision: i64) {
        let name = self.names().group_resource();
        if DECIDING.contains(&name.as_str()) {
            self.core.feed.reached(revision).await;
        }
    }

    /// Passes on what the kind wants its users to know.
    pub(crate) fn warn(&self, object: &Value) {
        for warning in self.resource.row.strategy.warnings(object) {
            self.call.warn(warning);
        }
    }
}

impl Write<'_> {
    /// Passes on what the kind wants those to know who change its objects.
    pub(crate) fn warn_of_change(&self, object: &Value, old: &Value) {
        let strategy = &self.resource.row.strategy;
        for warning in strategy.warnings_update(object, old) {
            self.call.warn(warning);
        }
    }
}

/// A write that admission let pass; tells the plugins at its end whether it was stored.
pub(crate) struct Admitted<'w> {
    core: &'w Core,
    /// `None`: nobody was asked.
    request: Option<admission::Request<'w>>,
    object: Option<&'w Object>,
    stored: bool,
}

impl Admitted<'_> {
    /// The write is in the store.
    pub(crate) fn stored(mut self) {
        self.stored = true;
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if let Some(request) = &self.request {
            let admission = &self.core.admission;
            admission.settled(request, self.object, self.stored);
        }
    }
}

/// Paths that nobody owns through this endpoint, since it does not change them.
pub(crate) fn reset_paths(resource: &Resource, subresource: &str) -> &'static [&'static str] {
    match (subresource, resource.row.has_status) {
        ("", true) => &["status"],
        ("status", _) => &["spec", "metadata.labels", "metadata.deletionTimestamp"],
        _ => &[],
    }
}

/// `metadata`, made when it is missing.
pub(crate) fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    meta::object::map_at(object, "metadata")
}

/// Text at a JSON pointer.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    meta::object::at(object, pointer)
        .and_then(Value::as_str)
        .unwrap_or("")
}

/// The namespace of a written object is that of the request.
pub(crate) fn place(names: &Names, namespace: &str, object: &mut Value) -> Result<(), Status> {
    let metadata = metadata(object);
    if !names.is_namespaced() {
        metadata.remove("namespace");
        return Ok(());
    }
    let own = metadata
        .get("namespace")
        .and_then(Value::as_str)
        .unwrap_or("");
    if own.is_empty() {
        metadata.insert("namespace".into(), namespace.into());
    } else if own != namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the \
             request",
        ));
    }
    Ok(())
}

/// Whether two objects are the same but for the version and the times of managed fields.
pub(crate) fn same(old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else {
        return old == new;
    };
    let rest = |map: &Map<String, Value>, other: &Map<String, Value>| {
        map.iter()
            .filter(|(name, _)| *name != "metadata")
            .all(|(name, value)| other.get(name) == Some(value))
    };
    rest(old, new) && rest(new, old) && same_metadata(old.get("metadata"), new.get("metadata"))
}

fn same_metadata(old: Option<&Value>, new: Option<&Value>) -> bool {
    let (Some(Value::Object(old)), Some(Value::Object(new))) = (old, new) else {
        return old == new;
    };
    let rest = |map: &Map<String, Value>, other: &Map<String, Value>| {
        map.iter()
            .filter(|(name, _)| !matches!(name.as_str(), "managedFields" | "resourceVersion"))
            .all(|(name, value)| other.get(name) == Some(value))
    };
    rest(old, new)
        && rest(new, old)
        && same_managers(old.get("managedFields"), new.get("managedFields"))
}

fn managers(managed: Option<&Value>) -> &[Value] {
    let managers = managed.and_then(Value::as_array);
    managers.map_or(&[], Vec::as_slice)
}

fn same_managers(old: Option<&Value>, new: Option<&Value>) -> bool {
    let same = |(old, new): (&Value, &Value)| match (old.as_object(), new.as_object()) {
        (Some(old), Some(new)) => {
            let timeless =
                |entry: &Map<String, Value>| entry.len() - usize::from(entry.contains_key("time"));
            timeless(old) == timeless(new)
                && old
                    .iter()
                    .all(|(name, value)| name == "time" || new.get(name) == Some(value))
        }
        _ => old == new,
    };
    let (old, new) = (managers(old), managers(new));
    old.len() == new.len() && old.iter().zip(new).all(same)
}
