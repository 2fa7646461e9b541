//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: expressions that judge and change writes.
//!
//! [`Policies`] is told of every policy and binding as it is stored, compiles each policy once, and
//! pairs policies with their bindings. A write looks at an empty list when there are none.

mod compile;
mod evaluate;
mod matching;
mod mutating;
mod params;
mod scene;
pub mod typing;
mod validating;

use std::collections::BTreeMap;
use std::sync::Arc;

use auth::Authorizer;
use meta::{Object, Status};
use parking_lot::{Mutex, RwLock};

use crate::plugin::{Lookup, Plugin, Request};
use compile::{Binding, Policy};
pub use scene::Rights;

/// The resources that [`Policies::set`] and [`Policies::remove`] must be told about.
pub const WATCHES: [&str; 4] = [
    "validatingadmissionpolicies.admissionregistration.k8s.io",
    "validatingadmissionpolicybindings.admissionregistration.k8s.io",
    "mutatingadmissionpolicies.admissionregistration.k8s.io",
    "mutatingadmissionpolicybindings.admissionregistration.k8s.io",
];

/// All policies and bindings, compiled.
pub struct Policies {
    authorizer: Arc<Authorizer>,
    known: Mutex<Known>,
    validating: RwLock<Arc<[Hook]>>,
    mutating: RwLock<Arc<[Hook]>>,
}

#[derive(Default)]
struct Known {
    /// By resource and name.
    policies: BTreeMap<(&'static str, String), Arc<Policy>>,
    bindings: BTreeMap<(&'static str, String), Arc<Binding>>,
}

/// A policy and its bindings; policies without any do nothing.
struct Hook {
    policy: Arc<Policy>,
    bindings: Vec<Arc<Binding>>,
}

impl Policies {
    /// No policies yet. `authorizer` answers for the variable of that name.
    pub fn new(authorizer: Arc<Authorizer>) -> Arc<Policies> {
        Arc::new(Policies {
            authorizer,
            known: Mutex::default(),
            validating: RwLock::new(Arc::new([])),
            mutating: RwLock::new(Arc::new([])),
        })
    }

    /// A new or changed object of one of [`WATCHES`].
    pub fn set(&self, group_resource: &str, object: &Object) {
        let mut known = self.known.lock();
        let name = object.name().to_owned();
        match WATCHES.iter().position(|own| *own == group_resource) {
            Some(0) => drop(
                known
                    .policies
                    .insert((WATCHES[0], name), Policy::validating(object)),
            ),
            Some(1) => drop(
                known
                    .bindings
                    .insert((WATCHES[1], name), Binding::read(object)),
            ),
            Some(2) => drop(
                known
                    .policies
                    .insert((WATCHES[2], name), Policy::mutating(object)),
            ),
            Some(3) => drop(
                known
                    .bindings
                    .insert((WATCHES[3], name), Binding::read(object)),
            ),
            _ => return,
        }
        self.pair(&known);
    }

    /// An object of one of [`WATCHES`] is gone.
    pub fn remove(&self, group_resource: &str, name: &str) {
        let Some(own) = WATCHES.iter().find(|own| **own == group_resource) else {
            return;
        };
        let mut known = self.known.lock();
        let key = (*own, name.to_owned());
        known.policies.remove(&key);
        known.bindings.remove(&key);
        self.pair(&known);
    }

    fn pair(&self, known: &Known) {
        let hooks = |policies: &str, bindings: &str| -> Arc<[Hook]> {
            let of = |policy: &Policy| -> Vec<Arc<Binding>> {
                let own = known
                    .bindings
                    .iter()
                    .filter(|((resource, _), _)| *resource == bindings);
                own.filter(|(_, binding)| binding.policy == policy.name)
                    .map(|(_, binding)| Arc::clone(binding))
                    .collect()
            };
            let own = known
                .policies
                .iter()
                .filter(|((resource, _), _)| *resource == policies);
            let hooks = own.map(|(_, policy)| Hook {
                policy: Arc::clone(policy),
                bindings: of(policy),
            });
            hooks.filter(|hook| !hook.bindings.is_empty()).collect()
        };
        *self.validating.write() = hooks(WATCHES[0], WATCHES[1]);
        *self.mutating.write() = hooks(WATCHES[2], WATCHES[3]);
    }
}

/// Policies judge neither themselves nor questions about rights: nobody could mend them.
fn is_exempt(request: &Request<'_>) -> bool {
    let names = request.names;
    match names.group.as_str() {
        "authentication.k8s.io" | "authorization.k8s.io" => true,
        "admissionregistration.k8s.io" => names.plural.contains("admissionpolic"),
        _ => false,
    }
}

/// The plugin that lets policies refuse writes.
pub struct ValidatingAdmissionPolicy(pub Arc<Policies>);

impl Plugin for ValidatingAdmissionPolicy {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionPolicy"
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Object>,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        let hooks = Arc::clone(&self.0.validating.read());
        match hooks.is_empty() || is_exempt(request) {
            true => Ok(()),
            false => validating::judge(&self.0, &hooks, request, object, lookup),
        }
    }
}

/// The plugin that lets policies change objects.
pub struct MutatingAdmissionPolicy(pub Arc<Policies>);

impl MutatingAdmissionPolicy {
    fn change(
        &self,
        request: &Request<'_>,
        object: &mut Object,
        lookup: &dyn Lookup,
        again: bool,
    ) -> Result<(), Status> {
        let hooks = Arc::clone(&self.0.mutating.read());
        match hooks.is_empty() || is_exempt(request) {
            true => Ok(()),
            false => mutating::change(&self.0, &hooks, request, object, lookup, again),
        }
    }
}

impl Plugin for MutatingAdmissionPolicy {
    fn name(&self) -> &'static str {
        "MutatingAdmissionPolicy"
    }

    fn may_reinvoke(&self) -> bool {
        !self.0.mutating.read().is_empty()
    }

    fn mutate(
        &self,
        request: &Request<'_>,
        object: &mut Object,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        self.change(request, object, lookup, false)
    }

    fn mutate_again(
        &self,
        request: &Request<'_>,
        object: &mut Object,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        self.change(request, object, lookup, true)
    }
}
