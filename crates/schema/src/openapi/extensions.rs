//! What the published schemas of single types say besides what follows from their fields.

use serde_json::{Map, Value, json};

use super::schemas::wrap;
use crate::types::Type;

/// Type, the field that says which other field is set, and what it then says.
type Union = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

/// Types of which one field at most is set.
const UNIONS: [Union; 6] = [
    (
        "io.k8s.api.core.v1.AppArmorProfile",
        "type",
        &[("localhostProfile", "LocalhostProfile")],
    ),
    (
        "io.k8s.api.core.v1.PodSchedulingGroup",
        "",
        &[("podGroupName", "PodGroupName")],
    ),
    (
        "io.k8s.api.core.v1.SeccompProfile",
        "type",
        &[("localhostProfile", "LocalhostProfile")],
    ),
    (
        "io.k8s.api.flowcontrol.v1.LimitResponse",
        "type",
        &[("queuing", "Queuing")],
    ),
    (
        "io.k8s.api.flowcontrol.v1.PriorityLevelConfigurationSpec",
        "type",
        &[("exempt", "Exempt"), ("limited", "Limited")],
    ),
    (
        "io.k8s.api.flowcontrol.v1.Subject",
        "kind",
        &[
            ("group", "Group"),
            ("serviceAccount", "ServiceAccount"),
            ("user", "User"),
        ],
    ),
];

/// What single fields say; what is empty is not said.
const FIELDS: [(&str, &str, &str, &str); 5] = [
    (
        "io.k8s.api.core.v1.PersistentVolumeClaimStatus",
        "allocatedResourceStatuses",
        "x-kubernetes-map-type",
        "granular",
    ),
    (
        "io.k8s.api.core.v1.PersistentVolumeSpec",
        "claimRef",
        "x-kubernetes-map-type",
        "granular",
    ),
    (
        "io.k8s.apimachinery.pkg.apis.meta.v1.APIResource",
        "verbs",
        "x-kubernetes-list-type",
        "",
    ),
    (
        "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent",
        "object",
        "description",
        "The object as it is now, or as it was before it was deleted; of an error its Status.",
    ),
    (
        "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIServiceSpec",
        "caBundle",
        "x-kubernetes-list-type",
        "atomic",
    ),
];

/// Adds what is known of a type to its schema.
pub(super) fn add(ty: &Type, schema: &mut Map<String, Value>) {
    if let Some((_, discriminator, fields)) = UNIONS.iter().find(|(name, ..)| *name == ty.name) {
        let fields: Map<String, Value> = fields
            .iter()
            .map(|(field, value)| ((*field).to_owned(), (*value).into()))
            .collect();
        let mut union = json!({"fields-to-discriminateBy": fields});
        if !discriminator.is_empty() {
            union["discriminator"] = (*discriminator).into();
        }
        schema.insert("x-kubernetes-unions".into(), json!([union]));
    }
    let own = FIELDS.iter().filter(|(name, ..)| *name == ty.name);
    for (_, field, key, value) in own {
        let properties = schema.get_mut("properties");
        let property = properties.and_then(|properties| properties.get_mut(*field));
        let Some(property) = property.and_then(Value::as_object_mut) else {
            continue;
        };
        match *value {
            "" => drop(property.remove(*key)),
            value => drop(property.insert((*key).to_owned(), value.into())),
        }
        *property = wrap(std::mem::take(property));
    }
}
