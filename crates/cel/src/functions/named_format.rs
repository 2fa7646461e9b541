//! Named formats: `format.dns1123Label().validate(text)`.

use base64::Engine as _;

use super::{Outcome, Spec, no_overload};
use crate::opaque::Opaque;
use crate::value::Value;

/// What is wrong with a text.
type Validate = fn(&str) -> Vec<String>;

/// A format.
#[derive(Debug)]
pub struct NamedFormat {
    name: &'static str,
    pub(crate) shown: &'static str,
    validate: Validate,
}

const MAKE: &[&str] = &["-> kubernetes.NamedFormat"];

const FORMATS: &[NamedFormat] = &[
    NamedFormat {
        name: "dns1123Label",
        shown: "DNS1123Label",
        validate: meta::naming::dns1123_label,
    },
    NamedFormat {
        name: "dns1123Subdomain",
        shown: "DNS1123Subdomain",
        validate: meta::naming::dns1123_subdomain,
    },
    NamedFormat {
        name: "dns1035Label",
        shown: "DNS1035Label",
        validate: meta::naming::dns1035_label,
    },
    NamedFormat {
        name: "qualifiedName",
        shown: "QualifiedName",
        validate: meta::naming::qualified_name,
    },
    NamedFormat {
        name: "dns1123LabelPrefix",
        shown: "DNS1123LabelPrefix",
        validate: |text| meta::naming::dns1123_label(&completed(text)),
    },
    NamedFormat {
        name: "dns1123SubdomainPrefix",
        shown: "DNS1123SubdomainPrefix",
        validate: |text| meta::naming::dns1123_subdomain(&completed(text)),
    },
    NamedFormat {
        name: "dns1035LabelPrefix",
        shown: "DNS1035LabelPrefix",
        validate: |text| meta::naming::dns1035_label(&completed(text)),
    },
    NamedFormat {
        name: "labelValue",
        shown: "LabelValue",
        validate: meta::naming::label_value,
    },
    NamedFormat {
        name: "uri",
        shown: "URI",
        validate: |text| match crate::url::Url::parse(text) {
            Ok(_) => Vec::new(),
            Err(error) => vec![format!("parse {text:?}: {error}")],
        },
    },
    NamedFormat {
        name: "uuid",
        shown: "uuid",
        validate: |text| unless(is_uuid(text), "does not match the UUID format"),
    },
    NamedFormat {
        name: "byte",
        shown: "byte",
        validate: |text| {
            let decoded = base64::engine::general_purpose::STANDARD.decode(text);
            unless(!text.is_empty() && decoded.is_ok(), "invalid base64")
        },
    },
    NamedFormat {
        name: "date",
        shown: "date",
        validate: |text| {
            unless(
                text.len() == 10 && crate::time::parse_date(text).is_some(),
                "invalid date",
            )
        },
    },
    NamedFormat {
        name: "datetime",
        shown: "datetime",
        validate: |text| {
            unless(
                crate::time::parse_timestamp(text).is_some(),
                "invalid datetime",
            )
        },
    },
];

pub(super) const TABLE: &[Spec] = &[
    Spec {
        name: "validate",
        call: validate,
        overloads: &["kubernetes.NamedFormat . string -> optional<list<string>>"],
    },
    Spec {
        name: "format.named",
        call: |args| match args {
            [Value::String(name)] => {
                Ok(find(name).map_or(Value::Optional(None), |own| Value::some(made(own))))
            }
            _ => no_overload(),
        },
        overloads: &["string -> optional<kubernetes.NamedFormat>"],
    },
    Spec {
        name: "format.dns1123Label",
        call: |_| constant("dns1123Label"),
        overloads: MAKE,
    },
    Spec {
        name: "format.dns1123Subdomain",
        call: |_| constant("dns1123Subdomain"),
        overloads: MAKE,
    },
    Spec {
        name: "format.dns1035Label",
        call: |_| constant("dns1035Label"),
        overloads: MAKE,
    },
    Spec {
        name: "format.qualifiedName",
        call: |_| constant("qualifiedName"),
        overloads: MAKE,
    },
    Spec {
        name: "format.dns1123LabelPrefix",
        call: |_| constant("dns1123LabelPrefix"),
        overloads: MAKE,
    },
    Spec {
        name: "format.dns1123SubdomainPrefix",
        call: |_| constant("dns1123SubdomainPrefix"),
        overloads: MAKE,
    },
    Spec {
        name: "format.dns1035LabelPrefix",
        call: |_| constant("dns1035LabelPrefix"),
        overloads: MAKE,
    },
    Spec {
        name: "format.labelValue",
        call: |_| constant("labelValue"),
        overloads: MAKE,
    },
    Spec {
        name: "format.uri",
        call: |_| constant("uri"),
        overloads: MAKE,
    },
    Spec {
        name: "format.uuid",
        call: |_| constant("uuid"),
        overloads: MAKE,
    },
    Spec {
        name: "format.byte",
        call: |_| constant("byte"),
        overloads: MAKE,
    },
    Spec {
        name: "format.date",
        call: |_| constant("date"),
        overloads: MAKE,
    },
    Spec {
        name: "format.datetime",
        call: |_| constant("datetime"),
        overloads: MAKE,
    },
];

fn find(name: &str) -> Option<&'static NamedFormat> {
    FORMATS.iter().find(|own| own.name == name)
}

fn made<'a>(own: &'static NamedFormat) -> Value<'a> {
    Value::opaque(Opaque::Format(own))
}

fn constant<'a>(name: &str) -> Outcome<'a> {
    find(name).map_or_else(no_overload, |own| Ok(made(own)))
}

/// A prefix may end in a dash, which a generated name will follow.
fn completed(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{rest}a"),
        _ => prefix.to_owned(),
    }
}

fn unless(right: bool, message: &str) -> Vec<String> {
    if right {
        Vec::new()
    } else {
        vec![message.to_owned()]
    }
}

fn is_uuid(text: &str) -> bool {
    let hex: Vec<u8> = text.bytes().filter(|c| *c != b'-').collect();
    let dashed = text.len() == 36
        && [8, 13, 18, 23]
            .iter()
            .all(|at| text.as_bytes()[*at] == b'-');
    hex.len() == 32 && hex.iter().all(u8::is_ascii_hexdigit) && (dashed || text.len() == 32)
}

fn validate<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Opaque(opaque), Value::String(text)] => match &**opaque {
            Opaque::Format(own) => {
                let faults = (own.validate)(text);
                Ok(match faults.is_empty() {
                    true => Value::Optional(None),
                    false => {
                        Value::some(Value::list(faults.into_iter().map(Value::text).collect()))
                    }
                })
            }
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}
