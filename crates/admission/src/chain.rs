//! All plugins in upstream's order.
//!
//! The API server, for every write after authorization:
//! 1. [`Chain::awaited`] (optional): waits shortly for what is about to appear;
//! 2. [`Chain::mutate`] with the object as sent (not for deletions and connections), then
//!    defaults and validation;
//!    Policies and webhooks, which may have to wait, stand between the two halves of the plugins;
//! 3. [`Chain::validate`] with the final object, its name generated; for a `Connect`, `None`;
//! 4. the store; then [`Chain::settled`], exactly once for each `validate` that said yes: also
//!    for each attempt of a retry, and for dry runs (not stored).

use meta::{Object, Status};
use serde_json::Value;

use crate::measure::{Clock, Step, Times};
use crate::plugin::{Awaited, Lookup, Plugin, Request};
use crate::pod_security::PodSecurity;
use crate::settings::{ConfigError, Settings};
use crate::turns::Turns;
use crate::{
    always, always_pull_images, anti_affinity, certificates, claim_resize, declared_features,
    default_class, default_toleration_seconds, deny_external_ips, event_rate_limit,
    extended_resource_toleration, limit_ranger, namespace_auto_provision, namespace_exists,
    namespace_lifecycle, node_restriction, owner_references, pod_node_selector, pod_resize,
    pod_toleration_restriction, pod_topology_labels, priority, quota, runtime_class,
    service_account, storage_protection, taint_nodes,
};

/// The first of the plugins that upstream asks behind the admission webhooks.
const BEHIND_WEBHOOKS: &str = "ResourceQuota";

/// Plugins in the order in which they are asked.
pub struct Chain {
    plugins: Vec<Box<dyn Plugin>>,
    /// Who is asked about what.
    turns: Turns,
    /// How long each takes.
    times: Vec<Times>,
    /// How many of them are asked before the webhooks.
    before_webhooks: usize,
}

/// Makes a plugin, from its part of the configuration.
type Make = fn(&Value) -> Result<Box<dyn Plugin>, ConfigError>;

/// All plugins in upstream's order, with whether they are on by default.
const PLUGINS: &[(&str, bool, Make)] = &[
    ("AlwaysAdmit", false, |_| made(always::AlwaysAdmit)),
    ("NamespaceAutoProvision", false, |_| {
        made(namespace_auto_provision::NamespaceAutoProvision)
    }),
    ("NamespaceLifecycle", true, |_| {
        made(namespace_lifecycle::NamespaceLifecycle)
    }),
    ("NamespaceExists", false, |_| {
        made(namespace_exists::NamespaceExists)
    }),
    ("LimitPodHardAntiAffinityTopology", false, |_| {
        made(anti_affinity::LimitPodHardAntiAffinityTopology)
    }),
    ("LimitRanger", true, |_| made(limit_ranger::LimitRanger)),
    ("ServiceAccount", true, |_| {
        made(service_account::ServiceAccount)
    }),
    ("NodeRestriction", true, |_| {
        made(node_restriction::NodeRestriction)
    }),
    ("TaintNodesByCondition", true, |_| {
        made(taint_nodes::TaintNodesByCondition)
    }),
    ("AlwaysPullImages", false, |_| {
        made(always_pull_images::AlwaysPullImages)
    }),
    ("PodSecurity", true, |config| {
        made(PodSecurity::new(config)?)
    }),
    ("PodNodeSelector", false, |config| {
        made(pod_node_selector::PodNodeSelector::new(config)?)
    }),
    ("Priority", true, |_| made(priority::Priority)),
    ("DefaultTolerationSeconds", true, |_| {
        made(default_toleration_seconds::DefaultTolerationSeconds)
    }),
    ("PodTolerationRestriction", false, |config| {
        made(pod_toleration_restriction::PodTolerationRestriction::new(
            config,
        )?)
    }),
    ("EventRateLimit", false, |config| {
        made(event_rate_limit::EventRateLimit::new(config)?)
    }),
    ("ExtendedResourceToleration", false, |_| {
        made(extended_resource_toleration::ExtendedResourceToleration)
    }),
    ("DefaultStorageClass", true, |_| {
        made(default_class::STORAGE)
    }),
    ("StorageObjectInUseProtection", true, |_| {
        made(storage_protection::StorageObjectInUseProtection)
    }),
    ("OwnerReferencesPermissionEnforcement", false, |_| {
        made(owner_references::OwnerReferencesPermissionEnforcement)
    }),
    ("PersistentVolumeClaimResize", true, |_| {
        made(claim_resize::PersistentVolumeClaimResize)
    }),
    ("RuntimeClass", true, |_| made(runtime_class::RuntimeClass)),
    ("CertificateApproval", true, |_| {
        made(certificates::CertificateApproval)
    }),
    ("CertificateSigning", true, |_| {
        made(certificates::CertificateSigning)
    }),
    ("CertificateSubjectRestriction", true, |_| {
        made(certificates::CertificateSubjectRestriction)
    }),
    ("DefaultIngressClass", true, |_| {
        made(default_class::INGRESS)
    }),
    ("DenyServiceExternalIPs", false, |_| {
        made(deny_external_ips::DenyServiceExternalIps)
    }),
    ("PodTopologyLabels", true, |_| {
        made(pod_topology_labels::PodTopologyLabels)
    }),
    ("NodeDeclaredFeatureValidator", true, |_| {
        made(declared_features::NodeDeclaredFeatureValidator)
    }),
    ("PodResizeValidator", true, |_| {
        made(pod_resize::PodResizeValidator)
    }),
    // Last, so that nothing is charged for what another plugin refuses.
    ("ResourceQuota", true, |_| {
        made(quota::ResourceQuota::default())
    }),
    ("AlwaysDeny", false, |_| made(always::AlwaysDeny)),
];

/// Upstream's plugins that have nothing to do while the alpha kinds they guard are not served, or
/// that run in a stage of their own. They may be named, so that upstream's flags can be kept.
const IDLE: [&str; 8] = [
    "ClusterTrustBundleAttest",
    "JobValidation",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "PodGroupProtection",
    "PodGroupWorkloadExists",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
];

fn made(plugin: impl Plugin) -> Result<Box<dyn Plugin>, ConfigError> {
    Ok(Box::new(plugin))
}

/// The plugins that are on by default, in upstream's order.
pub fn chain() -> Chain {
    let on = PLUGINS.iter().filter(|(_, on, _)| *on);
    // Without a configuration there is nothing to refuse.
    let plugins = on.filter_map(|(_, _, make)| make(&Value::Null).ok());
    Chain::new(plugins.collect())
}

/// The plugins that an operator wants, in upstream's order.
pub fn chain_with(settings: &Settings) -> Result<Chain, ConfigError> {
    let known = PLUGINS.iter().map(|(name, _, _)| *name);
    let known: Vec<_> = known.chain(IDLE).collect();
    settings.check(&known)?;
    let mut plugins = Vec::new();
    for (name, on, make) in PLUGINS {
        let has = |list: &[String]| list.iter().any(|one| one == name);
        if has(&settings.enable) || (*on && !has(&settings.disable)) {
            plugins.push(make(settings.of(name))?);
        }
    }
    Ok(Chain::new(plugins))
}

impl Chain {
    /// A chain of these plugins.
    pub fn new(plugins: Vec<Box<dyn Plugin>>) -> Chain {
        let mut all = plugins.iter();
        Chain {
            before_webhooks: all
                .position(|plugin| plugin.name() == BEHIND_WEBHOOKS)
                .unwrap_or(plugins.len()),
            turns: Turns::of(&plugins),
            times: plugins.iter().map(|_| Times::default()).collect(),
            plugins,
        }
    }

    /// The names of the plugins, in order.
    pub fn names(&self) -> Vec<&'static str> {
        self.plugins.iter().map(|plugin| plugin.name()).collect()
    }

    #[cfg(test)]
    pub(crate) fn turns(&self) -> &Turns {
        &self.turns
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
        let mut clock = Clock::start();
        for place in self.turns.get(Step::Admit, request.operation) {
            let plugin = &self.plugins[*place];
            let asked = plugin.mutate(request, object, lookup);
            let what = (plugin.name(), Step::Admit, request.operation);
            self.times[*place].tell(what, asked.is_err(), &mut clock);
            asked?;
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
        self.validate_before_policies(request, object, lookup)?;
        self.validate_behind_webhooks(request, object, lookup)
    }

    /// The first half of [`Chain::validate`]. When a policy or webhook refuses after it, the
    /// caller says so by [`Chain::refused_between`].
    pub fn validate_before_policies(
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
        let asked = self.turns.get(Step::Validate, request.operation).iter();
        let mut clock = Clock::start();
        for index in asked.copied().filter(|place| (start..end).contains(place)) {
            let plugin = &self.plugins[index];
            let answered = plugin.validate(request, object, lookup);
            let what = (plugin.name(), Step::Validate, request.operation);
            self.times[index].tell(what, answered.is_err(), &mut clock);
            if let Err(status) = answered {
                for earlier in self.plugins.iter().take(index) {
                    earlier.settled(request, object, false);
                }
                return Err(status);
            }
        }
        Ok(())
    }

    /// Tells the plugins before policies and webhooks that one of these has refused.
    pub fn refused_between(&self, request: &Request<'_>, object: Option<&Object>) {
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
    use serde_json::json;

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
                "PodSecurity",
                "Priority",
                "DefaultTolerationSeconds",
                "DefaultStorageClass",
                "StorageObjectInUseProtection",
                "PersistentVolumeClaimResize",
                "RuntimeClass",
                "CertificateApproval",
                "CertificateSigning",
                "CertificateSubjectRestriction",
                "DefaultIngressClass",
                "PodTopologyLabels",
                "NodeDeclaredFeatureValidator",
                "PodResizeValidator",
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

    /// All plugins that can be had without a configuration, but the one that refuses everything.
    fn everything() -> Chain {
        let names = PLUGINS.iter().map(|(name, _, _)| (*name).to_owned());
        let settings = Settings {
            enable: names.filter(|name| name != "AlwaysDeny").collect(),
            ..Settings::default()
        };
        chain_with(&settings).expect("settings without faults")
    }

    #[test]
    fn settings_choose_plugins() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let settings = Settings {
            enable: list(&["AlwaysPullImages", "JobValidation"]),
            disable: list(&["PodSecurity"]),
            ..Settings::default()
        };
        let names = chain_with(&settings).expect("a chain").names();
        assert!(names.contains(&"AlwaysPullImages") && !names.contains(&"PodSecurity"));
        let refused = |settings: Settings| {
            chain_with(&settings)
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        };
        let unknown = Settings {
            enable: list(&["Nonsense"]),
            ..Settings::default()
        };
        assert_eq!(refused(unknown), "admission plugin Nonsense: unknown");
        let both = Settings {
            enable: list(&["PodSecurity"]),
            disable: list(&["PodSecurity"]),
            ..Settings::default()
        };
        assert_eq!(
            refused(both),
            "admission plugin PodSecurity: is both enabled and disabled"
        );
    }

    #[test]
    fn a_file_configures_plugins() {
        let file = json!({"apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "AdmissionConfiguration",
            "plugins": [{"name": "EventRateLimit", "path": "events.yaml"},
                {"name": "PodSecurity", "configuration": null}]});
        let mut settings = Settings::default();
        let done = settings.configure(&file, &mut |path| match path {
            "events.yaml" => Ok(json!({"limits": []})),
            _ => Err("no such file".into()),
        });
        assert_eq!(done, Ok(()));
        assert_eq!(settings.plugins["EventRateLimit"], json!({"limits": []}));
        assert_eq!(settings.plugins["PodSecurity"], Value::Null);
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
            let (chain, request) = (everything(), asked.borrow());
            let _ = chain.awaited(&request, &new, &world);
            let _ = chain.mutate(&request, &mut new, &world);
            if chain.validate(&request, Some(&new), &world).is_ok() {
                chain.settled(&request, Some(&new), round % 2 == 0);
            }
        }
    }
}
