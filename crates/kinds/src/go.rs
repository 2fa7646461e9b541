//! Values as upstream's messages show them: by the fields of its internal types, in their
//! order, zero values and all.

use serde_json::Value;

use crate::tree::Tree;

/// What a value is shown as.
pub(crate) enum Shape {
    /// As its JSON; absent, as the text given here.
    Plain(&'static str),
    /// A structure; absent, with zero values in all fields.
    Struct(&'static [Field]),
    /// A structure, or null when absent.
    Pointer(&'static [Field]),
    /// A list of structures, or null when absent.
    List(&'static [Field]),
}

/// One field of a structure.
pub(crate) struct Field {
    json: &'static str,
    shown: &'static str,
    shape: Shape,
    /// Not shown when empty.
    omitted: bool,
}

const fn field(json: &'static str, shown: &'static str, shape: Shape) -> Field {
    Field {
        json,
        shown,
        shape,
        omitted: false,
    }
}

const fn optional(json: &'static str, shape: Shape) -> Field {
    Field {
        json,
        shown: json,
        shape,
        omitted: true,
    }
}

const TEXT: Shape = Shape::Plain("\"\"");
const ZERO: Shape = Shape::Plain("0");
const NULL: Shape = Shape::Plain("null");

/// `SeccompProfile` and `AppArmorProfile`.
pub(crate) const PROFILE: Shape = Shape::Struct(&[
    field("type", "Type", TEXT),
    field("localhostProfile", "LocalhostProfile", NULL),
]);
/// `PodResourceClaim`.
pub(crate) const RESOURCE_CLAIM: Shape = Shape::Struct(&[
    field("name", "Name", TEXT),
    field("resourceClaimName", "ResourceClaimName", NULL),
    field(
        "resourceClaimTemplateName",
        "ResourceClaimTemplateName",
        NULL,
    ),
]);
/// `Taint`.
pub(crate) const TAINT: Shape = Shape::Struct(&[
    field("key", "Key", TEXT),
    field("value", "Value", TEXT),
    field("effect", "Effect", TEXT),
    field("timeAdded", "TimeAdded", NULL),
]);
/// `NodeAddress`.
pub(crate) const NODE_ADDRESS: Shape = Shape::Struct(&[
    field("type", "Type", TEXT),
    field("address", "Address", TEXT),
]);
/// `ServicePort`.
pub(crate) const SERVICE_PORT: Shape = Shape::Struct(&[
    field("name", "Name", TEXT),
    field("protocol", "Protocol", TEXT),
    field("appProtocol", "AppProtocol", NULL),
    field("port", "Port", ZERO),
    field("targetPort", "TargetPort", ZERO),
    field("nodePort", "NodePort", ZERO),
]);
/// `ScopeSelector`.
pub(crate) const SCOPE_SELECTOR: Shape = Shape::Struct(&[field(
    "matchExpressions",
    "MatchExpressions",
    Shape::List(&[
        field("scopeName", "ScopeName", TEXT),
        field("operator", "Operator", TEXT),
        field("values", "Values", NULL),
    ]),
)]);
/// `SuccessPolicy` of a job.
pub(crate) const SUCCESS_POLICY: Shape = Shape::Struct(&[field(
    "rules",
    "Rules",
    Shape::List(&[
        field("succeededIndexes", "SucceededIndexes", NULL),
        field("succeededCount", "SucceededCount", NULL),
    ]),
)]);
/// `LabelSelector`, which is shown as in the API.
pub(crate) const LABEL_SELECTOR: Shape = Shape::Pointer(&[
    optional("matchLabels", NULL),
    optional(
        "matchExpressions",
        Shape::List(&[
            field("key", "key", TEXT),
            field("operator", "operator", TEXT),
            optional("values", NULL),
        ]),
    ),
]);
/// The strategies of deployments and daemon sets.
pub(crate) const STRATEGY: Shape = Shape::Struct(&[
    field("type", "Type", TEXT),
    field(
        "rollingUpdate",
        "RollingUpdate",
        Shape::Pointer(&[
            field("maxUnavailable", "MaxUnavailable", ZERO),
            field("maxSurge", "MaxSurge", ZERO),
        ]),
    ),
]);
const STATEFUL_ROLLING: &[Field] = &[
    field("partition", "Partition", ZERO),
    field("maxUnavailable", "MaxUnavailable", NULL),
];
/// The rolling update of a stateful set.
pub(crate) const STATEFUL_UPDATE: Shape = Shape::Pointer(STATEFUL_ROLLING);
/// The strategy of a stateful set.
pub(crate) const STATEFUL_STRATEGY: Shape = Shape::Struct(&[
    field("type", "Type", TEXT),
    field(
        "rollingUpdate",
        "RollingUpdate",
        Shape::Pointer(STATEFUL_ROLLING),
    ),
]);

/// The value in upstream's notation.
pub(crate) fn shown(value: &Value, shape: &Shape) -> String {
    match shape {
        Shape::Plain(zero) if value.is_null() => (*zero).to_owned(),
        Shape::Plain(_) => value.to_string(),
        Shape::Pointer(_) | Shape::List(_) if value.is_null() => "null".to_owned(),
        Shape::Struct(fields) | Shape::Pointer(fields) => structure(value, fields),
        Shape::List(fields) => {
            let items: Vec<_> = value
                .list("")
                .iter()
                .map(|one| structure(one, fields))
                .collect();
            format!("[{}]", items.join(","))
        }
    }
}

fn structure(value: &Value, fields: &[Field]) -> String {
    let relevant = fields
        .iter()
        .filter(|field| !field.omitted || value.count(field.json) > 0);
    let parts: Vec<_> = relevant
        .map(|field| {
            let text = shown(value.at(field.json), &field.shape);
            format!("\"{}\":{text}", field.shown)
        })
        .collect();
    format!("{{{}}}", parts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
        ] {
            assert_eq!(shown(&value, shape), expected);
        }
    }
}
