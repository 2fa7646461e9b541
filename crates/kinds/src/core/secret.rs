//! Secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::table::{age, cells, name};
use crate::tree::Tree;


pub(crate) const COLUMNS: &str = "Name, Type, Data, Age";

pub(crate) struct Secret;

impl Strategy for Secret {
    fn default(&self, object: &mut Value) {
        object.fill_text("type", "Opaque");
        merge_plain_texts(object);
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["type"]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("type", object.text("type").into())]
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        cells![
            name(object),
            object.text("type"),
            object.count("data"),
            age(object, now),
        ]
    }
}

/// `stringData` is for writing only: it joins `data`, encoded.
fn merge_plain_texts(secret: &mut Value) {
    if let Value::Object(plain) = secret.at("stringData").clone() {
        secret.fill_map("data");
        if let Some(Value::Object(data)) = secret.at_mut("data") {
            for (key, text) in plain {
                let text = text.as_str().unwrap_or("");
                data.insert(key, BASE64.encode(text).into());
            }
        }
    }
    secret.drop_field("stringData");
}
