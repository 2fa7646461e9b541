//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: expressions that judge and change writes.
//!
//! [`Policies`] is told of every policy and binding as it is stored, compiles each policy once, and
//! pairs policies with their bindings. A write looks at an empty list when there are none.

mod compile;
mod evaluate;
mod matching;
mod measure;
mod mutating;
mod params;
mod scene;
mod subject;
pub mod typing;
mod validating;
mod versions;

use std::collections::BTreeMap;
use std::sync::Arc;

use auth::Authorizer;
use meta::{Object, Status};
use parking_lot::{Mutex, RwLock};
use serde_json::Value;

use crate::rounds::Rounds;
use crate::settings::Settings;
use compile::{Binding, Policy};
pub use scene::Rights;
pub use subject::{Later, Subject, Views};

/// Upstream's names of the two plugins that policies are.
const MUTATING: &str = "MutatingAdmissionPolicy";
const VALIDATING: &str = "ValidatingAdmissionPolicy";

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
    /// Whether an operator wants mutating and validating policies.
    wanted: [bool; 2],
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
    pub fn new(authorizer: Arc<Authorizer>, settings: &Settings) -> Arc<Policies> {
        Arc::new(Policies {
            authorizer,
            wanted: [MUTATING, VALIDATING].map(|name| !settings.disables(name)),
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
        let [mutates, validates] = self.wanted;
        if validates {
            *self.validating.write() = hooks(WATCHES[0], WATCHES[1]);
        }
        if mutates {
            *self.mutating.write() = hooks(WATCHES[2], WATCHES[3]);
        }
    }

    fn rights(&self, subject: &Subject<'_>) -> Arc<Rights> {
        Rights::new(&self.authorizer, subject)
    }

    /// Whether there is any mutating policy.
    pub fn may_mutate(&self) -> bool {
        !self.mutating.read().is_empty()
    }

    /// Whether there is any validating policy.
    pub fn may_refuse(&self) -> bool {
        !self.validating.read().is_empty()
    }

    /// Lets all mutating policies change an object, as it is kept. Whether any has, and the
    /// object. `again`: this is the second pass.
    pub async fn mutate(
        &self,
        subject: &Subject<'_>,
        object: Value,
        old: Option<&Value>,
        rounds: &mut Rounds,
        again: bool,
    ) -> Result<(bool, Value), Status> {
        let hooks = Arc::clone(&self.mutating.read());
        if hooks.is_empty() || is_exempt(subject) {
            return Ok((false, object));
        }
        if again {
            rounds.begin_again(&object);
        }
        let mut change = mutating::Change::new(self, subject, old, rounds, again);
        let object = change.run(&hooks, object).await?;
        let changed = change.changed;
        rounds.end(&object);
        Ok((changed, object))
    }

    /// Lets all validating policies judge a new and an old object, as they are kept.
    pub async fn validate(
        &self,
        subject: &Subject<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let hooks = Arc::clone(&self.validating.read());
        match hooks.is_empty() || is_exempt(subject) {
            true => Ok(()),
            false => validating::judge(self, &hooks, subject, (object, old)).await,
        }
    }
}

/// Policies judge neither themselves nor questions about rights: nobody could mend them.
fn is_exempt(subject: &Subject<'_>) -> bool {
    let names = subject.names;
    match names.group.as_str() {
        "authentication.k8s.io" | "authorization.k8s.io" => true,
        "admissionregistration.k8s.io" => names.plural.contains("admissionpolic"),
        _ => false,
    }
}
