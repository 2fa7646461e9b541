//! Secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use meta::{Faults, naming};
use serde_json::Value;

use super::config_map::{SIZE_MAX, decoded_length, validate_sealed};
use crate::row::{Cells, Strategy};
use crate::spot::{Spot, immutable, rules};
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Type, Data, Age";

pub(crate) struct Secret;

impl Strategy for Secret {
    fn default(&self, object: &mut Value) {
        object.fill_text("type", "Opaque");
        merge_plain_texts(object);
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let data = Spot::new(object, "data");
        let mut bytes = 0;
        for (key, value) in data.fields("") {
            rules(faults, data.entry_path(key), key, naming::config_key(key));
            bytes += decoded_length(value);
        }
        if bytes > SIZE_MAX {
            faults.too_long("data", SIZE_MAX);
        }
        validate_kind(object, &data, faults);
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        immutable(&Spot::new(object, ""), old, "type", faults);
        validate_sealed(object, old, &["data"], faults);
        self.validate_create(object, faults);
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["type"]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("type", object.text("type").into())]
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        if object.text("type") != "kubernetes.io/tls" {
            return Vec::new();
        }
        let lacks = |(field, word): &(&str, &str)| {
            let value = object.at("data").get(field).and_then(Value::as_str);
            let text = BASE64.decode(value.unwrap_or("")).unwrap_or_default();
            let begin: &[u8] = b"-----BEGIN";
            let has_pem = text.windows(begin.len()).any(|part| part == begin);
            (!has_pem).then(|| format!("tls: failed to find any PEM data in {word} input"))
        };
        // The first thing that is wrong is named.
        let parts = [("tls.crt", "certificate"), ("tls.key", "key")];
        parts.iter().find_map(lacks).into_iter().collect()
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

/// What must be there for the secret's type.
fn validate_kind(secret: &Value, data: &Spot<'_>, faults: &mut Faults) {
    const ACCOUNT: &str = "kubernetes.io/service-account.name";
    let missing = |key: &str| data.get(key).is_none();
    let mut require = |keys: &[&str]| {
        for key in keys {
            faults.required(data.entry_path(key), "");
        }
    };
    match secret.text("type") {
        "kubernetes.io/service-account-token" => {
            let name = secret.at("metadata.annotations").get(ACCOUNT);
            if name.and_then(Value::as_str).unwrap_or("").is_empty() {
                faults.required(format!("metadata.annotations[{ACCOUNT}]"), "");
            }
        }
        "kubernetes.io/dockercfg" => validate_json(data, ".dockercfg", faults),
        "kubernetes.io/dockerconfigjson" => validate_json(data, ".dockerconfigjson", faults),
        "kubernetes.io/basic-auth" if missing("username") && missing("password") => {
            require(&["username", "password"]);
        }
        "kubernetes.io/ssh-auth" => {
            let key = data.get("ssh-privatekey").and_then(Value::as_str);
            if key.unwrap_or("").is_empty() {
                require(&["ssh-privatekey"]);
            }
        }
        "kubernetes.io/tls" => {
            let keys = ["tls.crt", "tls.key"];
            let absent: Vec<_> = keys.into_iter().filter(|key| missing(key)).collect();
            require(&absent);
        }
        _ => {}
    }
}

fn validate_json(data: &Spot<'_>, key: &str, faults: &mut Faults) {
    let Some(text) = data.get(key).and_then(Value::as_str) else {
        return faults.required(data.entry_path(key), "");
    };
    let bytes = BASE64.decode(text).unwrap_or_default();
    let parsed = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes);
    if let Err(error) = parsed {
        let shown = "<secret contents redacted>";
        faults.invalid(data.entry_path(key), shown, error.to_string());
    }
}
