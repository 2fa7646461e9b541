//! Every field of every kind survives the way to protobuf and back.

use schema::protobuf::{decode, encode};
use schema::{Shape, Type, builtin, check, named, table};
use serde_json::{Map, Value, json};

/// Types that hold themselves end here.
const DEPTH_MAX: usize = 9;

/// A tree with every field of the type set.
fn full(ty: &Type, depth: usize) -> Value {
    let fields = ty.fields.iter();
    let set = fields.filter_map(|field| {
        let value = match (&*field.json, field.enumeration.first()) {
            // Not in messages: the envelope has them.
            ("apiVersion" | "kind", _) if field.tag == 0 => return None,
            (_, Some(_)) if matches!(field.shape, Shape::List(..) | Shape::Map(..)) => {
                sample(&field.shape, depth)?
            }
            (_, Some(word)) => json!(word),
            _ => sample(&field.shape, depth)?,
        };
        Some((field.json.to_string(), value))
    });
    Value::Object(set.collect())
}

fn sample(shape: &Shape, depth: usize) -> Option<Value> {
    Some(match shape {
        Shape::Bool => true.into(),
        Shape::Int32 => (-7).into(),
        Shape::Int64 => (1_i64 << 40).into(),
        Shape::Double => 2.5.into(),
        Shape::Text => "text".into(),
        Shape::Bytes => "aGk=".into(),
        Shape::IntOrString => "25%".into(),
        Shape::Quantity => "1500m".into(),
        Shape::Time => "2026-01-31T12:00:00Z".into(),
        Shape::MicroTime => "2026-01-31T12:00:00.000001Z".into(),
        Shape::Duration => "1m30s".into(),
        Shape::Json | Shape::Raw => json!({"any": ["thing", 1]}),
        Shape::FieldsV1 => json!({"f:metadata": {}}),
        Shape::Struct(_) if depth >= DEPTH_MAX => return None,
        Shape::Struct(ty) => full(ty.get(), depth + 1),
        Shape::List(item, _) => json!([sample(item, depth + 1)?]),
        Shape::Map(item, _) => json!({"key": sample(item, depth + 1)?}),
        Shape::OneOf(shapes) => sample(shapes.first()?, depth + 1)?,
    })
}

#[test]
fn nothing_is_lost() {
    let mut kinds = 0;
    for name in table::names() {
        let ty = named(name).unwrap();
        if ty.kinds.is_empty() {
            continue;
        }
        let mut tree = full(ty, 0);
        let unknown = check(ty, &mut tree).unwrap();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
        let mut back = decode(ty, &encode(ty, &tree)).unwrap();
        check(ty, &mut back).unwrap();
        same(name, &tree, &back);
        kinds += 1;
    }
    assert!(kinds > 130, "{kinds}");
}

/// Names the first field that differs, for trees too large to print.
fn same(path: &str, a: &Value, b: &Value) {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let all: Map<String, Value> = a.iter().chain(b).map(own).collect();
            for name in all.keys() {
                let get = |map: &Map<String, Value>| map.get(name).cloned().unwrap_or_default();
                same(&format!("{path}.{name}"), &get(a), &get(b));
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let both = a.iter().zip(b);
            both.for_each(|(a, b)| same(path, a, b));
        }
        (a, b) => assert_eq!(a, b, "{path}"),
    }
}

fn own((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}

#[test]
fn every_field_has_a_tag_of_its_own() {
    for name in table::names() {
        let ty = named(name).unwrap();
        let tagged = ty.fields.iter().filter(|field| field.tag > 0);
        let mut tags: Vec<(&[u32], u32)> =
            tagged.map(|field| (&field.within[..], field.tag)).collect();
        let count = tags.len();
        tags.sort_unstable();
        tags.dedup();
        assert_eq!(tags.len(), count, "{name}");
        // What `/version` says is JSON only.
        let has_message = !name.ends_with("version.Info");
        let untagged = ty
            .fields
            .iter()
            .filter(|field| has_message && field.tag == 0);
        for field in untagged {
            assert!(
                matches!(&*field.json, "apiVersion" | "kind"),
                "{name}.{}",
                field.json
            );
        }
    }
    assert!(builtin("", "v1", "Pod").is_some());
}
