//! What a patch makes of an object, written as upstream writes it: levels that the patch touches in
//! alphabetical order, all else in the order of its types.

use schema::{Field, Shape, Type};
use serde_json::{Map, Value};

/// Fields that stand elsewhere in upstream's types than their protobuf tags say: behind the one
/// with this tag.
const MOVED: [(&str, &str, u32); 21] = [
    ("PodSpec", "initContainers", 1),
    ("PodSpec", "ephemeralContainers", 2),
    ("PodSpec", "automountServiceAccountToken", 9),
    ("PodSpec", "shareProcessNamespace", 13),
    ("PodStatus", "observedGeneration", 0),
    ("Container", "envFrom", 6),
    ("Container", "resizePolicy", 8),
    ("Container", "restartPolicy", 8),
    ("Container", "restartPolicyRules", 8),
    ("Container", "volumeDevices", 9),
    ("Container", "startupProbe", 11),
    ("Container", "terminationMessagePolicy", 13),
    ("ServiceSpec", "clusterIPs", 3),
    ("CertificateSigningRequestSpec", "signerName", 1),
    ("CertificateSigningRequestSpec", "expirationSeconds", 1),
    ("CertificateSigningRequestSpec", "usages", 1),
    ("JobSpec", "podFailurePolicy", 3),
    ("JobSpec", "successPolicy", 3),
    ("JobSpec", "backoffLimit", 3),
    ("JobSpec", "backoffLimitPerIndex", 3),
    ("JobSpec", "maxFailedIndexes", 3),
];

/// The outcome of a patch. `touched` is a tree of the fields that it goes through; `ty` is missing
/// where all is in alphabetical order.
pub(super) fn json(ty: Option<&Type>, old: &Value, new: &Value, touched: &Value) -> String {
    let mut text = String::new();
    let place = match ty {
        Some(ty) => Place::Struct(ty),
        None => Place::Plain,
    };
    touched_level(place, (old, new), touched, &mut text);
    // As Go's encoder writes them, wherever they stand.
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

/// The fields that a JSON patch goes through.
pub(super) fn touched(operations: &[u8]) -> Value {
    let operations: Value = serde_json::from_slice(operations).unwrap_or_default();
    let mut root = Value::Object(Map::new());
    for operation in operations.as_array().into_iter().flatten() {
        for name in ["path", "from"] {
            let path = operation.get(name).and_then(Value::as_str).unwrap_or("");
            let mut at = &mut root;
            for step in path.split('/').skip(1) {
                let step = step.replace("~1", "/").replace("~0", "~");
                if !at.is_object() {
                    *at = Value::Object(Map::new());
                }
                let Some(map) = at.as_object_mut() else { break };
                at = map.entry(step).or_insert(Value::Null);
            }
        }
    }
    root
}

/// What is known of a value's type.
#[derive(Clone, Copy)]
enum Place<'t> {
    Struct(&'t Type),
    Shape(&'t Shape),
    Plain,
}

impl<'t> Place<'t> {
    fn ty(self) -> Option<&'t Type> {
        match self {
            Place::Struct(ty) => Some(ty),
            Place::Shape(Shape::Struct(ty)) => Some(ty.get()),
            _ => None,
        }
    }

    fn field(self, name: &str) -> Place<'t> {
        if let Some(ty) = self.ty() {
            return ty
                .field(name)
                .map_or(Place::Plain, |own| Place::Shape(&own.shape));
        }
        match self {
            Place::Shape(Shape::Map(item, _)) => Place::Shape(item),
            _ => Place::Plain,
        }
    }

    fn item(self) -> Place<'t> {
        match self {
            Place::Shape(Shape::List(item, _)) => Place::Shape(item),
            _ => Place::Plain,
        }
    }
}

fn touched_level(
    place: Place<'_>,
    (old, new): (&Value, &Value),
    touched: &Value,
    text: &mut String,
) {
    match (new, touched.as_object()) {
        (Value::Object(map), Some(touched)) if old.is_object() => {
            fields(map.iter(), text, |name, value, text| {
                part(
                    place.field(name),
                    (old.get(name), value),
                    touched.get(name),
                    text,
                );
            });
        }
        (Value::Array(items), Some(touched)) if old.is_array() => {
            let items = items.iter().enumerate();
            list(items, text, |(at, value), text| {
                let own = touched.get(&at.to_string());
                part(place.item(), (old.get(at), value), own, text);
            });
        }
        _ => text.push_str(&new.to_string()),
    }
}

fn part(
    place: Place<'_>,
    (old, new): (Option<&Value>, &Value),
    touched: Option<&Value>,
    text: &mut String,
) {
    match (touched, old) {
        (None, _) => typed(place, new, text),
        (Some(touched), Some(old)) => touched_level(place, (old, new), touched, text),
        (Some(_), None) => text.push_str(&new.to_string()),
    }
}

/// A value in the order of its type.
fn typed(place: Place<'_>, value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => match place.ty() {
            Some(ty) => {
                let mut sorted: Vec<(&String, &Value)> = map.iter().collect();
                sorted.sort_by_cached_key(|(name, _)| rank(ty, name));
                fields(sorted.into_iter(), text, |name, value, text| {
                    typed(place.field(name), value, text);
                });
            }
            None => fields(map.iter(), text, |name, value, text| {
                typed(place.field(name), value, text);
            }),
        },
        Value::Array(items) => list(items.iter(), text, |value, text| {
            typed(place.item(), value, text);
        }),
        other => text.push_str(&other.to_string()),
    }
}

/// Where a field stands: what an object is comes first, what is unknown last.
fn rank(ty: &Type, name: &str) -> Vec<u32> {
    match name {
        "kind" if !ty.kinds.is_empty() => return vec![0, 0],
        "apiVersion" if !ty.kinds.is_empty() => return vec![0, 1],
        _ => {}
    }
    let own = ty.short_name();
    let mut moved = MOVED.iter().zip(1..);
    let moved = moved.find(|((ty, field, _), _)| *ty == own && *field == name);
    let tags = |field: &Field| {
        let mut tags = field.within.clone();
        tags.push(field.tag);
        tags
    };
    match (moved, ty.field(name)) {
        (Some(((_, _, behind), at)), Some(_)) => vec![*behind, at],
        (_, Some(field)) => tags(field),
        _ => vec![u32::MAX],
    }
}

fn fields<'v>(
    pairs: impl Iterator<Item = (&'v String, &'v Value)>,
    text: &mut String,
    write: impl Fn(&str, &Value, &mut String),
) {
    text.push('{');
    for (at, (name, value)) in pairs.enumerate() {
        if at > 0 {
            text.push(',');
        }
        text.push_str(&Value::from(name.as_str()).to_string());
        text.push(':');
        write(name, value, text);
    }
    text.push('}');
}

fn list<T>(items: impl Iterator<Item = T>, text: &mut String, write: impl Fn(T, &mut String)) {
    text.push('[');
    for (at, item) in items.enumerate() {
        if at > 0 {
            text.push(',');
        }
        write(item, text);
    }
    text.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn touched_levels_are_sorted_and_others_in_order() {
        let ty = schema::builtin("apps", "v1", "Deployment").unwrap();
        let old = json!({"kind": "Deployment", "apiVersion": "apps/v1",
            "metadata": {"name": "a", "uid": "u", "labels": {"a": "<b>"}},
            "spec": {"replicas": 1, "template": {"spec": {"containers": [
                {"name": "c", "image": "i", "env": [], "envFrom": []}]}},
                "selector": {"matchLabels": {"a": "b"}}}});
        let mut new = old.clone();
        new["spec"]["replicas"] = "x".into();
        let shown = json(Some(ty), &old, &new, &json!({"spec": {"replicas": "x"}}));
        let wanted = concat!(
            r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a","uid":"u","#,
            r#""labels":{"a":"\u003cb\u003e"}},"spec":{"replicas":"x","selector":{"matchLabels":"#,
            r#"{"a":"b"}},"template":{"spec":{"containers":[{"name":"c","image":"i","#,
            r#""envFrom":[],"env":[]}]}}}}"#
        );
        assert_eq!(shown, wanted);
        let operations = br#"[{"op":"replace","path":"/spec/replicas","value":"x"}]"#;
        assert_eq!(json(Some(ty), &old, &new, &touched(operations)), wanted);
        assert_eq!(json(None, &old, &old, &json!({})), {
            let text = old.to_string();
            text.replace('<', "\\u003c").replace('>', "\\u003e")
        });
    }
}
