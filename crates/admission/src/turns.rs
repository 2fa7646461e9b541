//! Which plugins are asked about which writes, as upstream's say of themselves: the others cost
//! nothing, and no time of theirs is told.

use Operation::{Connect, Create, Delete, Update};

use crate::measure::Step;
use crate::plugin::{Operation, Plugin};

const ALL: &[Operation] = &[Create, Update, Delete, Connect];
const WRITES: &[Operation] = &[Create, Update];
const LASTING: &[Operation] = &[Create, Update, Delete];
const NONE: &[Operation] = &[];

/// The plugins, with the operations about which they are asked to complete the object, and to
/// judge it.
const HANDLED: &[(&str, &[Operation], &[Operation])] = &[
    ("AlwaysAdmit", ALL, ALL),
    ("AlwaysDeny", ALL, ALL),
    ("AlwaysPullImages", WRITES, WRITES),
    ("CertificateApproval", NONE, &[Update]),
    ("CertificateSigning", NONE, &[Update]),
    ("CertificateSubjectRestriction", NONE, &[Create]),
    ("DefaultIngressClass", &[Create], NONE),
    ("DefaultStorageClass", &[Create], NONE),
    ("DefaultTolerationSeconds", WRITES, NONE),
    ("DenyServiceExternalIPs", NONE, WRITES),
    ("EventRateLimit", NONE, WRITES),
    ("ExtendedResourceToleration", WRITES, NONE),
    ("LimitPodHardAntiAffinityTopology", NONE, WRITES),
    ("LimitRanger", WRITES, WRITES),
    // It only waits.
    ("NamespaceAutoProvision", NONE, NONE),
    ("NamespaceExists", NONE, LASTING),
    ("NamespaceLifecycle", LASTING, LASTING),
    ("NodeDeclaredFeatureValidator", NONE, &[Update]),
    ("NodeRestriction", NONE, LASTING),
    ("OwnerReferencesPermissionEnforcement", NONE, WRITES),
    ("PersistentVolumeClaimResize", NONE, &[Update]),
    ("PodNodeSelector", &[Create], &[Create]),
    ("PodResizeValidator", NONE, &[Update]),
    ("PodSecurity", NONE, WRITES),
    ("PodTolerationRestriction", WRITES, WRITES),
    ("PodTopologyLabels", &[Create], NONE),
    ("Priority", LASTING, LASTING),
    ("ResourceQuota", NONE, WRITES),
    ("RuntimeClass", &[Create], &[Create]),
    ("ServiceAccount", WRITES, WRITES),
    ("StorageObjectInUseProtection", &[Create], NONE),
    ("TaintNodesByCondition", &[Create], NONE),
];

/// For each step and operation the places in the chain of those who are asked, in order.
pub(crate) struct Turns([[Box<[usize]>; 4]; 2]);

impl Turns {
    pub(crate) fn of(plugins: &[Box<dyn Plugin>]) -> Turns {
        let asked = |step, operation| {
            let places = plugins.iter().enumerate();
            let asked = places.filter(|(_, plugin)| handles(plugin.name(), step, operation));
            asked.map(|(place, _)| place).collect()
        };
        let operations = [Create, Update, Delete, Connect];
        let steps = [Step::Admit, Step::Validate];
        Turns(steps.map(|step| operations.map(|operation| asked(step, operation))))
    }

    pub(crate) fn get(&self, step: Step, operation: Operation) -> &[usize] {
        &self.0[step as usize][operation as usize]
    }
}

/// Plugins that are not known here are always asked.
fn handles(name: &str, step: Step, operation: Operation) -> bool {
    let known = HANDLED.iter().find(|(own, ..)| *own == name);
    known.is_none_or(|(_, admits, validates)| match step {
        Step::Admit => admits.contains(&operation),
        Step::Validate => validates.contains(&operation),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::chain;

    #[test]
    fn plugins_are_asked_about_what_they_handle() {
        let chain = chain();
        let names = |step, operation| -> Vec<&str> {
            let all = chain.names();
            let turns = chain.turns().get(step, operation);
            turns.iter().map(|place| all[*place]).collect()
        };
        assert_eq!(
            names(Step::Admit, Update),
            [
                "NamespaceLifecycle",
                "LimitRanger",
                "ServiceAccount",
                "Priority",
                "DefaultTolerationSeconds"
            ]
        );
        assert_eq!(
            names(Step::Validate, Delete),
            ["NamespaceLifecycle", "NodeRestriction", "Priority"]
        );
        assert!(names(Step::Validate, Connect).is_empty());
        for name in chain.names() {
            assert!(HANDLED.iter().any(|(own, ..)| *own == name), "{name}");
        }
        assert!(handles("Another", Step::Admit, Connect));
    }
}
