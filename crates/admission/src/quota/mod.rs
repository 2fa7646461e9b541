//! ResourceQuota: a namespace takes no more than its quotas give.
//!
//! What is used is known late: a quota's status is counted by a controller from what is stored.
//! So the plugin keeps a ledger of what it has admitted since. `status.used` plus the ledger is
//! never too little, and while that fits, the answer is quick; when it does not fit, the
//! namespace's objects are counted exactly. Limits are taken from `spec.hard`, and a quota whose
//! status is still empty counts from its first moment.

mod ledger;
mod scope;
mod usage;

use std::collections::BTreeSet;
use std::sync::Arc;

use meta::{Object, Status};

use crate::plugin::{Lookup, Operation, Plugin, Request};
use crate::resources::{Resources, add, growth, read, shown};
use crate::tree::spec;
use ledger::{Account, Charge, Ledger};
pub use scope::matches_scopes;
pub use usage::{constraints, counted_resource, is_ignored, usage, usage_at};

const QUOTAS: &str = "resourcequotas";

/// The plugin and its ledger.
#[derive(Default)]
pub struct ResourceQuota {
    ledger: Ledger,
}

/// What objects of one resource take from a quota: `status.used` for the names of `spec.hard`
/// that this resource counts for, zero where nothing is taken.
pub fn used<'a>(
    quota: &Object,
    group_resource: &str,
    objects: impl IntoIterator<Item = &'a Object>,
) -> Resources {
    let names = tracked(quota, group_resource);
    let zero = names
        .iter()
        .map(|name| (name.clone(), meta::Quantity::ZERO));
    let mut sum: Resources = zero.collect();
    for object in objects {
        if matches_scopes(quota, group_resource, object) {
            add(&mut sum, &masked(&usage(group_resource, object), &names));
        }
    }
    sum
}

/// The names of `spec.hard` that a resource counts for.
pub fn tracked(quota: &Object, group_resource: &str) -> BTreeSet<String> {
    let hard = read(spec(quota).get("hard"));
    let ours = |name: &String| counted_resource(name).as_deref() == Some(group_resource);
    hard.into_keys().filter(ours).collect()
}

impl Plugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Object>,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        let Some(object) = object.filter(|object| counts(request, object)) else {
            return Ok(());
        };
        let quotas = lookup.list(QUOTAS, request.namespace);
        if quotas.is_empty() {
            self.ledger.forget(request.namespace);
            return Ok(());
        }
        let resource = request.names.group_resource();
        let claims = claims(request, &resource, object, &quotas)?;
        if claims.is_empty() {
            return Ok(());
        }
        let account = self.ledger.account(request.namespace);
        let mut account = account.lock();
        let asked = Question {
            request,
            object,
            resource: &resource,
            lookup,
        };
        for claim in &claims {
            fits(&mut account, claim, &asked)?;
        }
        if !request.dry_run {
            let takes = claims
                .into_iter()
                .map(|claim| (claim.quota.name().to_owned(), claim.takes));
            account.charge(Charge::new(request, &resource, object, takes.collect()));
        }
        Ok(())
    }

    fn settled(&self, request: &Request<'_>, object: Option<&Object>, stored: bool) {
        if request.operation == Operation::Delete && stored && request.is_on("namespaces") {
            self.ledger.forget(request.name);
        }
        let Some(object) = object.filter(|object| !request.dry_run && counts(request, object))
        else {
            return;
        };
        if let Some(account) = self.ledger.existing(request.namespace) {
            let resource = request.names.group_resource();
            account.lock().settle(&resource, request, object, stored);
        }
    }
}

/// What a write would take from one quota.
struct Claim {
    quota: Arc<Object>,
    /// All that the object takes, for what may be told to the user.
    takes: Resources,
}

struct Question<'a> {
    request: &'a Request<'a>,
    object: &'a Object,
    resource: &'a str,
    lookup: &'a dyn Lookup,
}

/// Whether this write can change what is used at all.
fn counts(request: &Request<'_>, object: &Object) -> bool {
    if request.namespace.is_empty() {
        return false;
    }
    let create = request.operation == Operation::Create;
    let update = request.operation == Operation::Update;
    if request.resource_is("pods") {
        let moved = || {
            let old = request.old;
            old.is_some_and(|old| scope::is_terminating(old) != scope::is_terminating(object))
        };
        return match request.subresource {
            "" => create || (update && moved()),
            "resize" => update,
            _ => false,
        };
    }
    let changes = request.resource_is("services") || request.resource_is("persistentvolumeclaims");
    request.subresource.is_empty()
        && (create || (update && changes))
        && !is_ignored(&request.names.group_resource())
}

/// What the write would take from each quota that it concerns; quotas from which it takes nothing
/// are left out. Fails for objects that do not state what a quota needs to know.
fn claims(
    request: &Request<'_>,
    resource: &str,
    object: &Object,
    quotas: &[Arc<Object>],
) -> Result<Vec<Claim>, Status> {
    let mut claims = Vec::new();
    let takes = usage(resource, object);
    let old = request
        .old
        .filter(|_| request.operation == Operation::Update);
    for quota in quotas {
        let names = tracked(quota, resource);
        if names.is_empty() || !matches_scopes(quota, resource, object) {
            continue;
        }
        constraints(resource, &names, object).map_err(|why| {
            request.refused(
                Some(object),
                &format!("failed quota: {}: {why}", quota.name()),
            )
        })?;
        let negative = takes.iter().filter(|(_, amount)| amount.is_negative());
        let negative: Vec<&str> = negative.map(|(name, _)| name.as_str()).collect();
        if !negative.is_empty() {
            let why = format!(
                "quota usage is negative for resource(s): {}",
                negative.join(",")
            );
            return Err(request.refused(Some(object), &why));
        }
        let before = match old.filter(|old| matches_scopes(quota, resource, old)) {
            Some(old) => usage(resource, old),
            None => Resources::new(),
        };
        let takes = masked(&growth(&takes, &before), &names);
        if !takes.is_empty() {
            claims.push(Claim {
                quota: Arc::clone(quota),
                takes,
            });
        }
    }
    Ok(claims)
}

/// Whether a claim fits: quickly by status and ledger, else by counting.
fn fits(account: &mut Account, claim: &Claim, asked: &Question<'_>) -> Result<(), Status> {
    let hard = read(spec(&claim.quota).get("hard"));
    let status = read(claim.quota.0.pointer("/status/used"));
    let name = claim.quota.name();
    let known = claim
        .takes
        .keys()
        .all(|resource| status.contains_key(resource));
    if known && account.is_trusted(name, asked.resource) {
        let mut used = status.clone();
        add(&mut used, &account.charged(name));
        if exceeded(&used, claim, &hard).is_empty() {
            return Ok(());
        }
    }
    let visible = asked.lookup.list(asked.resource, asked.request.namespace);
    let mut used = used(
        &claim.quota,
        asked.resource,
        visible.iter().map(Arc::as_ref),
    );
    let reflected = used.iter().all(|(resource, amount)| {
        status
            .get(resource)
            .is_some_and(|counted| counted >= amount)
    });
    let revisions = visible
        .iter()
        .map(|object| (object.name(), object.resource_version()));
    let counted = revisions.collect();
    add(
        &mut used,
        &account.recount(name, asked.resource, reflected, &counted),
    );
    let over = exceeded(&used, claim, &hard);
    if over.is_empty() {
        return Ok(());
    }
    let why = format!(
        "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
        shown(&masked(&claim.takes, &over)),
        shown(&masked(&used, &over)),
        shown(&masked(&hard, &over)),
    );
    Err(asked.request.refused(Some(asked.object), &why))
}

/// The names of what would go beyond the limits.
fn exceeded(used: &Resources, claim: &Claim, hard: &Resources) -> BTreeSet<String> {
    let mut after = used.clone();
    add(&mut after, &claim.takes);
    let over = |name: &&String| {
        hard.get(*name)
            .zip(after.get(*name))
            .is_some_and(|(limit, after)| after > limit)
    };
    claim.takes.keys().filter(over).cloned().collect()
}

fn masked(resources: &Resources, names: &BTreeSet<String>) -> Resources {
    let wanted = resources.iter().filter(|(name, _)| names.contains(*name));
    wanted
        .map(|(name, amount)| (name.clone(), *amount))
        .collect()
}

#[cfg(test)]
mod tests;
