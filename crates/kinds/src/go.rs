//! Values as upstream's messages show them: by the fields of its internal types, in their
//! order, zero values and all.

mod diff;
mod text;

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

use text::Form;

/// How a value is shown: the name of a structure of `types.txt`, after `*` when it is null where
/// absent, after `[` or `{` in a list or a map.
pub(crate) struct Shape(&'static str);

/// `SeccompProfile` and `AppArmorProfile`.
pub(crate) const PROFILE: Shape = Shape("SeccompProfile");
pub(crate) const RESOURCE_CLAIM: Shape = Shape("PodResourceClaim");
pub(crate) const DISTINGUISHER: Shape = Shape("FlowDistinguisherMethod");
pub(crate) const TOLERATION: Shape = Shape("Toleration");
pub(crate) const EPHEMERAL_CONTAINER: Shape = Shape("EphemeralContainer");
pub(crate) const TAINT: Shape = Shape("Taint");
pub(crate) const NODE_ADDRESS: Shape = Shape("NodeAddress");
pub(crate) const SERVICE_PORT: Shape = Shape("ServicePort");
pub(crate) const SCOPE_SELECTOR: Shape = Shape("ScopeSelector");
pub(crate) const SUCCESS_POLICY: Shape = Shape("*SuccessPolicy");
pub(crate) const FAILURE_POLICY: Shape = Shape("*PodFailurePolicy");
pub(crate) const POD_TEMPLATE: Shape = Shape("PodTemplateSpec");
pub(crate) const POD_SPEC: Shape = Shape("PodSpec");
pub(crate) const CLAIM_SPEC: Shape = Shape("PersistentVolumeClaimSpec");
pub(crate) const VOLUME_SOURCE: Shape = Shape("PersistentVolumeSource");
pub(crate) const VOLUME_AFFINITY: Shape = Shape("*VolumeNodeAffinity");
pub(crate) const ROLE_REF: Shape = Shape("RoleRef");
pub(crate) const ATTACHMENT_SPEC: Shape = Shape("VolumeAttachmentSpec");
pub(crate) const NODE_DRIVER: Shape = Shape("CSINodeDriver");
pub(crate) const PARENT: Shape = Shape("*ParentReference");
/// Of devices.
pub(crate) const CLAIM: Shape = Shape("ResourceClaimSpec");
pub(crate) const CLAIM_TEMPLATE: Shape = Shape("ResourceClaimTemplateSpec");
pub(crate) const REFERENCE: Shape = Shape("ObjectReference");
pub(crate) const MAYBE_REFERENCE: Shape = Shape("*ObjectReference");
pub(crate) const EVENT_SOURCE: Shape = Shape("EventSource");
/// A text that is empty where absent.
pub(crate) const TEXT: Shape = Shape("s");
/// A number that is zero where absent.
pub(crate) const NUMBER: Shape = Shape("i");
/// What is null where absent.
pub(crate) const MAYBE: Shape = Shape("*");
/// `LabelSelector`, which is shown as in the API.
pub(crate) const LABEL_SELECTOR: Shape = Shape("*LabelSelector");
/// The strategies of deployments and daemon sets.
pub(crate) const STRATEGY: Shape = Shape("DeploymentStrategy");
/// The rolling update of a stateful set.
pub(crate) const STATEFUL_UPDATE: Shape = Shape("*RollingUpdateStatefulSetStrategy");
/// The strategy of a stateful set.
pub(crate) const STATEFUL_STRATEGY: Shape = Shape("StatefulSetUpdateStrategy");

/// One field of a structure.
struct Field {
    shown: &'static str,
    /// Where the API has it.
    path: String,
    kind: &'static str,
    /// Not shown when empty.
    omitted: bool,
}

static TYPES: LazyLock<HashMap<&'static str, Vec<Field>>> = LazyLock::new(|| {
    let mut types: HashMap<_, Vec<Field>> = HashMap::new();
    let mut name = "";
    for line in include_str!("go/types.txt").lines() {
        match line.strip_prefix(' ') {
            _ if line.starts_with('#') => {}
            None => name = line,
            Some(fields) => {
                let fields = fields.split(' ').filter_map(field);
                types.entry(name).or_default().extend(fields);
            }
        }
    }
    types
});

fn field(text: &'static str) -> Option<Field> {
    let (names, kind) = text.split_once(':')?;
    let (shown, path) = match names.split_once('=') {
        Some((shown, path)) => (shown, path.to_owned()),
        None => {
            let (first, rest) = names.split_at_checked(1)?;
            (names, first.to_lowercase() + rest)
        }
    };
    let omitted = kind.ends_with('?');
    let kind = kind.trim_end_matches('?');
    Some(Field {
        shown,
        path,
        kind,
        omitted,
    })
}

/// The value in upstream's notation.
pub(crate) fn shown(value: &Value, shape: &Shape) -> String {
    text::written(value, shape.0, Form::Line)
}

/// What differs between two values, line by line, as upstream shows it.
pub(crate) fn difference(old: &Value, new: &Value, shape: &Shape) -> String {
    let written = |value| text::written(value, shape.0, Form::Lines);
    diff::unified(&written(old), &written(new))
}

/// Whether two values mean the same to upstream: lists and maps that are empty are as good as
/// absent, structures are not.
pub(crate) fn equal(one: &Value, other: &Value, shape: &Shape) -> bool {
    let written = |value| text::written(value, shape.0, Form::Meaning);
    one == other || written(one) == written(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_shape_is_known() {
        for shape in [
            PROFILE,
            RESOURCE_CLAIM,
            TAINT,
            NODE_ADDRESS,
            SERVICE_PORT,
            SCOPE_SELECTOR,
            SUCCESS_POLICY,
            FAILURE_POLICY,
            POD_TEMPLATE,
            POD_SPEC,
            CLAIM_SPEC,
            VOLUME_SOURCE,
            VOLUME_AFFINITY,
            ROLE_REF,
            ATTACHMENT_SPEC,
            NODE_DRIVER,
            PARENT,
            CLAIM,
            CLAIM_TEMPLATE,
            REFERENCE,
            MAYBE_REFERENCE,
            EVENT_SOURCE,
            LABEL_SELECTOR,
            STRATEGY,
            STATEFUL_UPDATE,
            STATEFUL_STRATEGY,
        ] {
            let name = shape.0.trim_start_matches(['*', '[', '{']);
            assert!(TYPES.contains_key(name), "{name}");
        }
    }

    #[test]
    fn every_type_is_known() {
        for (name, fields) in TYPES.iter() {
            for field in fields {
                let kind = field.kind.trim_start_matches(['*', '[', '{']);
                assert!(
                    kind.len() < 2 || TYPES.contains_key(kind),
                    "{name}: {}",
                    field.kind
                );
            }
        }
    }

    #[test]
    fn values_show_all_their_fields_in_order() {
        for (value, shape, expected) in [
            (
                json!({"localhostProfile": "p"}),
                &PROFILE,
                r#"{"Type":"","LocalhostProfile":"p"}"#,
            ),
            (
                json!({"type": "x"}),
                &STRATEGY,
                r#"{"Type":"x","RollingUpdate":null}"#,
            ),
            (
                json!({"type": "x", "rollingUpdate": {"maxSurge": "25%"}}),
                &STRATEGY,
                r#"{"Type":"x","RollingUpdate":{"MaxUnavailable":0,"MaxSurge":"25%"}}"#,
            ),
            (
                json!({"matchExpressions": [{"operator": "In", "key": "a"}]}),
                &LABEL_SELECTOR,
                r#"{"matchExpressions":[{"key":"a","operator":"In"}]}"#,
            ),
            (json!({}), &LABEL_SELECTOR, "{}"),
            (Value::Null, &LABEL_SELECTOR, "null"),
            (
                json!({"matchExpressions": [{"scopeName": "a", "values": ["b"]}]}),
                &SCOPE_SELECTOR,
                r#"{"MatchExpressions":[{"ScopeName":"a","Operator":"","Values":["b"]}]}"#,
            ),
            (
                json!({"apiGroup": "a<b"}),
                &ROLE_REF,
                r#"{"APIGroup":"a\u003cb","Kind":"","Name":""}"#,
            ),
        ] {
            assert_eq!(shown(&value, shape), expected);
        }
    }

    #[test]
    fn a_template_shows_its_metadata_without_a_name_of_their_own() {
        let template = json!({"metadata": {"labels": {"b": "c", "a": "b"}}});
        let text = shown(&template, &POD_TEMPLATE);
        let head = r#"{"labels":{"a":"b","b":"c"},"Spec":{"Volumes":null,"#;
        assert!(text.starts_with(head), "{text}");
    }

    #[test]
    fn what_is_empty_is_absent_but_for_structures() {
        let term = |term: Value| json!({"affinity": {"podAffinity": term}});
        for (one, other, expected) in [
            (json!({}), json!({"volumes": [], "nodeSelector": {}}), true),
            (json!({}), json!({"affinity": {}}), false),
            (json!({}), json!({"hostname": ""}), true),
            (json!({}), json!({"hostnameOverride": ""}), false),
            (term(json!({})), term(Value::Null), false),
        ] {
            assert_eq!(equal(&one, &other, &POD_SPEC), expected, "{one} {other}");
        }
    }

    #[test]
    fn what_pods_share_with_their_node_is_in_the_security_context() {
        let old = json!({"hostPID": true, "securityContext": {"runAsUser": 1}});
        let new = json!({"hostPID": false, "securityContext": {"runAsUser": 1}});
        let expected = "@@ -13,7 +13,7 @@\n  \"NodeName\": \"\",\n  \"SecurityContext\": {\n   \
                        \"HostNetwork\": false,\n-  \"HostPID\": true,\n+  \"HostPID\": false,\n   \
                        \"HostIPC\": false,\n   \"ShareProcessNamespace\": null,\n   \
                        \"HostUsers\": null,\n";
        assert_eq!(difference(&old, &new, &POD_SPEC), expected);
    }
}
