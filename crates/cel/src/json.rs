//! Values back to JSON.

use base64::Engine as _;
use serde_json::{Number, Value as Json};

use crate::value::{Key, Value};

impl Value<'_> {
    /// The value as JSON; `None` for what JSON cannot say (types, library values, numbers that are not finite).
    pub fn to_json(&self) -> Option<Json> {
        Some(match self {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Int(value) => Json::from(*value),
            Value::Uint(value) => Json::from(*value),
            Value::Double(value) => Json::Number(Number::from_f64(*value)?),
            Value::String(text) => Json::String(text.to_string()),
            Value::Bytes(bytes) => {
                Json::String(base64::engine::general_purpose::STANDARD.encode(bytes))
            }
            Value::Duration(duration) => Json::String(crate::time::format_duration(*duration)),
            Value::Timestamp(at) => Json::String(at.to_string()),
            Value::JsonList(list) => Json::Array(list.items.to_vec()),
            Value::JsonMap(map) => Json::Object(map.map.clone()),
            Value::List(items) => {
                Json::Array(items.iter().map(Value::to_json).collect::<Option<_>>()?)
            }
            Value::Map(map) => {
                let entry =
                    |(key, value): (&Key<'_>, &Value<'_>)| Some((key_text(key), value.to_json()?));
                Json::Object(map.iter().map(entry).collect::<Option<_>>()?)
            }
            Value::Object(made) => {
                let field =
                    |(name, value): (&String, &Value<'_>)| Some((name.clone(), value.to_json()?));
                Json::Object(made.fields.iter().map(field).collect::<Option<_>>()?)
            }
            Value::Optional(Some(value)) => value.to_json()?,
            Value::Optional(None) => Json::Null,
            Value::Opaque(opaque) => Json::String(opaque.text()?),
            Value::Type(_) => return None,
        })
    }
}

fn key_text(key: &Key<'_>) -> String {
    match key {
        Key::Bool(value) => value.to_string(),
        Key::Int(value) => value.to_string(),
        Key::Uint(value) => value.to_string(),
        Key::String(text) => text.to_string(),
    }
}
