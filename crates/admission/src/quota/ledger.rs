//! What was admitted and may not be counted yet.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use meta::Object;
use parking_lot::Mutex;

use crate::plugin::{Operation, Request};
use crate::resources::{Resources, add};

/// Beyond so many charges, an account is counted exactly each time until some can be dropped.
const CHARGES_MAX: usize = 10_000;
/// A stored object that caches do not show after this time is gone again.
const VISIBLE_WITHIN: Duration = Duration::from_secs(10);
/// A write that nobody settled has failed.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);

/// An account per namespace that has quotas.
#[derive(Default)]
pub(super) struct Ledger(Mutex<HashMap<String, Arc<Mutex<Account>>>>);

/// The charges of one namespace.
#[derive(Default)]
pub(super) struct Account {
    charges: Vec<Charge>,
    /// Quotas, and resources of theirs, whose status has been seen to hold all that was not
    /// charged here. Until then, and so after a restart, older objects may not be counted yet.
    trusted: HashSet<(String, String)>,
}

/// One admitted write.
pub(super) struct Charge {
    resource: String,
    name: String,
    uid: String,
    /// The revision an update started from; `None` for creations.
    from: Option<String>,
    /// By name of the quota.
    takes: BTreeMap<String, Resources>,
    since: Instant,
    stored: bool,
}

impl Charge {
    pub(super) fn new(
        request: &Request<'_>,
        resource: &str,
        object: &Object,
        takes: BTreeMap<String, Resources>,
    ) -> Charge {
        let old = request
            .old
            .filter(|_| request.operation == Operation::Update);
        Charge {
            resource: resource.into(),
            name: object.name().into(),
            uid: object.uid().into(),
            from: old.map(|old| old.resource_version().to_owned()),
            takes,
            since: Instant::now(),
            stored: false,
        }
    }

    fn is_of(&self, resource: &str, request: &Request<'_>, object: &Object) -> bool {
        (self.resource.as_str(), self.name.as_str()) == (resource, object.name())
            && (self.uid.is_empty() || object.uid().is_empty() || self.uid == object.uid())
            && self.from.is_some() == (request.operation == Operation::Update)
    }

    fn is_abandoned(&self) -> bool {
        !self.stored && self.since.elapsed() > SETTLED_WITHIN
    }

    /// Whether the objects that were counted (revisions by name) show what the write led to, be it
    /// that the object is gone again.
    fn is_visible(&self, counted: &HashMap<&str, &str>) -> bool {
        match counted.get(self.name.as_str()) {
            Some(revision) => self.from.as_deref() != Some(*revision),
            None => self.stored && self.since.elapsed() > VISIBLE_WITHIN,
        }
    }
}

impl Ledger {
    pub(super) fn account(&self, namespace: &str) -> Arc<Mutex<Account>> {
        Arc::clone(self.0.lock().entry(namespace.into()).or_default())
    }

    pub(super) fn existing(&self, namespace: &str) -> Option<Arc<Mutex<Account>>> {
        self.0.lock().get(namespace).cloned()
    }

    pub(super) fn forget(&self, namespace: &str) {
        self.0.lock().remove(namespace);
    }
}

impl Account {
    pub(super) fn charge(&mut self, charge: Charge) {
        self.charges.push(charge);
    }

    /// A write ended: what was not stored is taken back.
    pub(super) fn settle(
        &mut self,
        resource: &str,
        request: &Request<'_>,
        object: &Object,
        stored: bool,
    ) {
        let open = |charge: &Charge| !charge.stored && charge.is_of(resource, request, object);
        let Some(index) = self.charges.iter().rposition(open) else {
            return;
        };
        match stored {
            true => self.charges[index].stored = true,
            false => drop(self.charges.swap_remove(index)),
        }
    }

    /// Whether status and charges together are known to be no less than what is used.
    pub(super) fn is_trusted(&self, quota: &str, resource: &str) -> bool {
        let key = (quota.to_owned(), resource.to_owned());
        self.trusted.contains(&key) && self.charges.len() < CHARGES_MAX
    }

    /// All that was charged to a quota.
    pub(super) fn charged(&self, quota: &str) -> Resources {
        let mut sum = Resources::new();
        for charge in self.charges.iter().filter(|charge| !charge.is_abandoned()) {
            if let Some(takes) = charge.takes.get(quota) {
                add(&mut sum, takes);
            }
        }
        sum
    }

    /// What was charged to a quota and is not among the objects that were counted (revisions by
    /// name). When the quota's status is known to hold all of those (`reflected`), their charges
    /// are dropped.
    pub(super) fn recount(
        &mut self,
        quota: &str,
        resource: &str,
        reflected: bool,
        counted: &HashMap<&str, &str>,
    ) -> Resources {
        let mut sum = Resources::new();
        self.charges.retain(|charge| !charge.is_abandoned());
        for charge in self
            .charges
            .iter_mut()
            .filter(|charge| charge.resource == resource)
        {
            let visible = charge.is_visible(counted);
            match charge.takes.get(quota) {
                Some(takes) if !visible => add(&mut sum, takes),
                Some(_) if reflected => drop(charge.takes.remove(quota)),
                _ => {}
            }
        }
        self.charges.retain(|charge| !charge.takes.is_empty());
        if reflected {
            self.trusted.insert((quota.to_owned(), resource.to_owned()));
        }
        sum
    }
}
