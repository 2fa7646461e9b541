//! How important groups and versions are in discovery, as upstream ranks them.

/// Of custom resources.
pub(super) const CUSTOM: (i64, i64) = (1_000, 100);

/// Group, importance of the group, versions with theirs.
type Rank = (&'static str, i64, &'static [(&'static str, i64)]);

const RANKS: [Rank; 22] = [
    ("", 18_000, &[("v1", 1)]),
    ("apps", 17_800, &[("v1", 15)]),
    ("events.k8s.io", 17_750, &[("v1", 15), ("v1beta1", 5)]),
    (
        "authentication.k8s.io",
        17_700,
        &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)],
    ),
    ("authorization.k8s.io", 17_600, &[("v1", 15)]),
    ("autoscaling", 17_500, &[("v1", 15), ("v2", 30)]),
    ("batch", 17_400, &[("v1", 15), ("v1beta1", 9)]),
    (
        "certificates.k8s.io",
        17_300,
        &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)],
    ),
    ("networking.k8s.io", 17_200, &[("v1", 15), ("v1beta1", 9)]),
    ("policy", 17_100, &[("v1", 15), ("v1beta1", 9)]),
    ("rbac.authorization.k8s.io", 17_000, &[("v1", 15)]),
    (
        "storage.k8s.io",
        16_800,
        &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)],
    ),
    ("apiextensions.k8s.io", 16_700, &[("v1", 15)]),
    (
        "admissionregistration.k8s.io",
        16_700,
        &[("v1", 15), ("v1beta1", 12), ("v1alpha1", 9)],
    ),
    ("scheduling.k8s.io", 16_600, &[("v1", 15), ("v1alpha2", 2)]),
    (
        "coordination.k8s.io",
        16_500,
        &[("v1", 15), ("v1beta1", 13), ("v1alpha2", 12)],
    ),
    (
        "node.k8s.io",
        16_300,
        &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)],
    ),
    ("discovery.k8s.io", 16_200, &[("v1", 15), ("v1beta1", 12)]),
    (
        "resource.k8s.io",
        16_200,
        &[("v1", 21), ("v1beta2", 15), ("v1beta1", 9), ("v1alpha3", 1)],
    ),
    (
        "flowcontrol.apiserver.k8s.io",
        16_100,
        &[("v1", 21), ("v1beta3", 18)],
    ),
    ("internal.apiserver.k8s.io", 16_000, &[("v1alpha1", 9)]),
    ("storagemigration.k8s.io", 15_800, &[("v1beta1", 9)]),
];

/// `groupPriorityMinimum` and `versionPriority` of a built-in group and version; those of
/// `apiregistration.k8s.io` have no APIService.
pub(super) fn builtin(group: &str, version: &str) -> Option<(i64, i64)> {
    let (_, of_group, versions) = RANKS.iter().find(|(own, _, _)| *own == group)?;
    let (_, of_version) = versions.iter().find(|(own, _)| *own == version)?;
    Some((*of_group, *of_version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_builtin_group_and_version_has_its_rank() {
        for row in kinds::rows() {
            let names = &row.names;
            let known = builtin(&names.group, &names.version).is_some();
            let own = names.group == "apiregistration.k8s.io";
            assert!(known != own, "{}/{}", names.group, names.version);
        }
    }
}
