//! All plugins in upstream's order.
//!
//! The API server, for every write after authorization:
//! 1. [`Chain::awaited`] (optional): waits shortly for what is about to appear;
//! 2. [`Chain::mutate`] with the object as sent (not for deletions and connections), then
//!    defaults and validation;
//! 3. [`Chain::validate`] with the final object, its name generated; for a `Connect`, `None`;
//! 4. the store; then [`Chain::settled`], exactly once for each `validate` that said yes: also
//!    for each attempt of a retry, and for dry runs (not stored).

use meta::{Object, Status};

use crate::plugin::{Awaited, Lookup, Plugin, Request};
use crate::{
    certificates, claim_resize, default_class, default_toleration_seconds, limit_ranger,
    namespace_lifecycle, node_restriction, priority, quota, runtime_class, service_account,
    taint_nodes,
};

/// The first of the plugins that upstream asks behind the admission webhooks.
const BEHIND_WEBHOOKS: &str = "ResourceQuota";

/// Plugins in the order in which they are asked.
pub struct Chain {
    plugins: Vec<Box<dyn Plugin>>,
    /// How many of them are asked before the webhooks.
    before_webhooks: usize,
}

/// The plugins that are on by default, in upstream's order.
pub fn chain() -> Chain {
    Chain::new(vec![
        Box::new(namespace_lifecycle::NamespaceLifecycle),
        Box::new(limit_ranger::LimitRanger),
        Box::new(service_account::ServiceAccount),
        Box::new(node_restriction::NodeRestriction),
        Box::new(taint_nodes::TaintNodesByCondition),
        Box::new(priority::Priority),
        Box::new(default_toleration_seconds::DefaultTolerationSeconds),
        Box::new(default_class::STORAGE),
        Box::new(claim_resize::PersistentVolumeClaimResize),
        Box::new(runtime_class::RuntimeClass),
        Box::new(certificates::CertificateApproval),
        Box::new(certificates::CertificateSigning),
        Box::new(certificates::CertificateSubjectRestriction),
        Box::new(default_class::INGRESS),
        // Last, so that nothing is charged for what another plugin refuses.
        Box::new(quota::ResourceQuota::default()),
    ])
}

impl Chain {
    /// A chain of these plugins.
    pub fn new(plugins: Vec<Box<dyn Plugin>>) -> Chain {
        let mut all = plugins.iter();
        Chain {
            before_webhooks: all
                .position(|plugin| plugin.name() == BEHIND_WEBHOOKS)
                .unwrap_or(plugins.len()),
            plugins,
        }
    }

    /// The names of the plugins, in order.
    pub fn names(&self) -> Vec<&'static str> {
        self.plugins.iter().map(|plugin| plugin.name()).collect()
    }

    /// The first thing that the write needs and the caches lack. Upstream waits up to 50 ms for
    /// a namespace and a second or two for a `default` service account.
    pub fn awaited(
        &self,
        request: &Request<'_>,
        object: &Object,
        lookup: &dyn Lookup,
    ) -> Option<Awaited> {
        self.plugins
            .iter()
            .find_map(|plugin| plugin.awaits(request, object, lookup))
    }

    /// Lets each plugin complete the object; the first refusal ends it.
    pub fn mutate(
        &self,
        request: &Request<'_>,
        object: &mut Object,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        for plugin in &self.plugins {
            plugin.mutate(request, object, lookup)?;
        }
        Ok(())
    }

    /// Asks each plugin; the first refusal ends it, and takes back what earlier ones charged.
    pub fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Object>,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        self.validate_before_webhooks(request, object, lookup)?;
        self.validate_behind_webhooks(request, object, lookup)
    }

    /// The first half of [`Chain::validate`]. When a webhook refuses after it, the caller says
    /// so by [`Chain::refused_by_webhook`].
    pub fn validate_before_webhooks(
        &self,
        request: &Request<'_>,
        object: Option<&Object>,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        self.validate_from(0, self.before_webhooks, request, object, lookup)
    }

    /// The second half of [`Chain::validate`].
    pub fn validate_behind_webhooks(
        &self,
        request: &Request<'_>,
        object: Option<&Object>,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        let (start, end) = (self.before_webhooks, self.plugins.len());
        self.validate_from(start, end, request, object, lookup)
    }

    fn validate_from(
        &self,
        start: usize,
        end: usize,
        request: &Request<'_>,
        object: Option<&Object>,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        let asked = self.plugins.iter().enumerate().take(end).skip(start);
        for (index, plugin) in asked {
            if let Err(status) = plugin.validate(request, object, lookup) {
                for earlier in self.plugins.iter().take(index) {
                    earlier.settled(request, object, false);
                }
                return Err(status);
            }
        }
        Ok(())
    }

    /// Tells the plugins before the webhooks that a webhook has refused.
    pub fn refused_by_webhook(&self, request: &Request<'_>, object: Option<&Object>) {
        for plugin in self.plugins.iter().take(self.before_webhooks) {
            plugin.settled(request, object, false);
        }
    }

    /// Tells each plugin what became of an admitted write.
    pub fn settled(&self, request: &Request<'_>, object: Option<&Object>, stored: bool) {
        for plugin in &self.plugins {
            plugin.settled(request, object, stored);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use serde_json::{Value, json};

    use super::*;
    use crate::plugin::Operation;
    use crate::testing::{World, object, request};

    struct Spy(&'static str, bool, Arc<Mutex<Vec<String>>>);

    impl Plugin for Spy {
        fn name(&self) -> &'static str {
            self.0
        }
        fn validate(
            &self,
            request: &Request<'_>,
            object: Option<&Object>,
            _lookup: &dyn Lookup,
        ) -> Result<(), Status> {
            self.2.lock().push(format!("{} asked", self.0));
            match self.1 {
                true => Ok(()),
                false => Err(request.refused(object, "no")),
            }
        }
        fn settled(&self, _request: &Request<'_>, _object: Option<&Object>, stored: bool) {
            self.2.lock().push(format!("{} {stored}", self.0));
        }
    }

    #[test]
    fn a_refusal_takes_back_what_was_charged_before_it() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let spy = |name, says| Box::new(Spy(name, says, Arc::clone(&log))) as Box<dyn Plugin>;
        let chain = Chain::new(vec![spy("a", true), spy("b", false), spy("c", true)]);
        let pod = object(json!({"metadata": {"generateName": "web-"}}));
        let asked = request(Operation::Create, "pods", "");
        let refusal = chain.validate(&asked.borrow(), Some(&pod), &World::default());
        assert_eq!(
            refusal.unwrap_err().message,
            "pods \"web-\" is forbidden: no"
        );
        assert_eq!(*log.lock(), ["a asked", "b asked", "a false"]);
    }

    #[test]
    fn the_order_is_upstreams() {
        assert_eq!(
            chain().names(),
            [
                "NamespaceLifecycle",
                "LimitRanger",
                "ServiceAccount",
                "NodeRestriction",
                "TaintNodesByCondition",
                "Priority",
                "DefaultTolerationSeconds",
                "DefaultStorageClass",
                "PersistentVolumeClaimResize",
                "RuntimeClass",
                "CertificateApproval",
                "CertificateSigning",
                "CertificateSubjectRestriction",
                "DefaultIngressClass",
                "ResourceQuota",
            ]
        );
    }

    /// Small pseudo-random numbers (SplitMix64), the same on every run.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut bits = self.0;
            bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (bits ^ (bits >> 31)) as usize % sides
        }

        fn tree(&mut self, depth: usize) -> Value {
            const WORDS: [&str; 24] = [
                "spec",
                "metadata",
                "status",
                "containers",
                "initContainers",
                "volumes",
                "env",
                "resources",
                "requests",
                "limits",
                "cpu",
                "memory",
                "storage",
                "name",
                "labels",
                "annotations",
                "tolerations",
                "ownerReferences",
                "serviceAccountName",
                "projected",
                "nodeSelector",
                "overhead",
                "priorityClassName",
                "ports",
            ];
            const LEAVES: [&str; 5] = ["", "1", "1Gi", "x", "-5m"];
            match self.roll(if depth == 0 { 4 } else { 8 }) {
                0 => Value::Null,
                1 => json!(self.roll(3)),
                2 => json!(self.roll(2) == 0),
                3 => json!(LEAVES[self.roll(LEAVES.len())]),
                4 | 5 => (0..self.roll(3)).map(|_| self.tree(depth - 1)).collect(),
                _ => {
                    let count = self.roll(6);
                    let entries = (0..count).map(|_| {
                        (
                            WORDS[self.roll(WORDS.len())].to_owned(),
                            self.tree(depth - 1),
                        )
                    });
                    Value::Object(entries.collect())
                }
            }
        }
    }

    #[test]
    fn no_tree_makes_a_plugin_panic() {
        let mut dice = Dice(1);
        let resources = [
            "pods",
            "pods/status",
            "pods/resize",
            "services",
            "persistentvolumeclaims",
            "nodes",
            "configmaps",
            "ingresses.networking.k8s.io",
            "serviceaccounts/token",
            "priorityclasses.scheduling.k8s.io",
            "leases.coordination.k8s.io",
            "certificatesigningrequests.certificates.k8s.io",
            "certificatesigningrequests.certificates.k8s.io/approval",
        ];
        let operations = [
            Operation::Create,
            Operation::Update,
            Operation::Delete,
            Operation::Connect,
        ];
        for round in 0..3_000 {
            let world = World::default();
            for (resource, name) in [
                ("namespaces", "default"),
                ("limitranges", "l"),
                ("resourcequotas", "q"),
                ("serviceaccounts", "default"),
                ("priorityclasses.scheduling.k8s.io", "x"),
                ("storageclasses.storage.k8s.io", "x"),
                ("runtimeclasses.node.k8s.io", "x"),
            ] {
                let mut tree = dice.tree(4);
                if !tree.is_object() {
                    tree = json!({});
                }
                let space = if name == "x" || resource == "namespaces" {
                    ""
                } else {
                    "default"
                };
                tree["metadata"] = json!({"name": name, "namespace": space});
                world.put(resource, tree);
            }
            let operation = operations[dice.roll(operations.len())];
            let mut asked = request(operation, resources[dice.roll(resources.len())], "x");
            let mut body = || Object::new(dice.tree(6)).unwrap_or_else(|| object(json!({})));
            let (mut new, old) = (body(), body());
            asked.old = (round % 2 == 0).then_some(old);
            if round % 3 == 0 {
                asked.user = auth::Identity::user("system:node:a", &["system:nodes"]);
            }
            let (chain, request) = (chain(), asked.borrow());
            let _ = chain.awaited(&request, &new, &world);
            let _ = chain.mutate(&request, &mut new, &world);
            if chain.validate(&request, Some(&new), &world).is_ok() {
                chain.settled(&request, Some(&new), round % 2 == 0);
            }
        }
    }
}
