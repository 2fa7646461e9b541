//! The messages of OpenAPI v3.

use serde_json::Value;

use super::gnostic::{As, Message, Write, named, texts};
use crate::protobuf::wire::Writer;

static DOCUMENT: Message = Message {
    fields: &[
        ("openapi", 1, As::Text),
        ("info", 2, As::One(info)),
        ("paths", 4, As::One(paths)),
        ("components", 5, As::One(components)),
        ("security", 6, As::Each(security_requirement)),
    ],
    extensions: 9,
};

static INFO: Message = Message {
    fields: &[
        ("title", 1, As::Text),
        ("description", 2, As::Text),
        ("version", 6, As::Text),
    ],
    extensions: 7,
};

static COMPONENTS: Message = Message {
    fields: &[
        ("schemas", 1, As::Named(schema_or_reference)),
        ("securitySchemes", 7, As::Named(security_scheme)),
    ],
    extensions: 10,
};

static SECURITY_SCHEME: Message = Message {
    fields: &[
        ("type", 1, As::Text),
        ("description", 2, As::Text),
        ("name", 3, As::Text),
        ("in", 4, As::Text),
    ],
    extensions: 9,
};

static PATH_ITEM: Message = Message {
    fields: &[
        ("summary", 2, As::Text),
        ("description", 3, As::Text),
        ("get", 4, As::One(operation)),
        ("put", 5, As::One(operation)),
        ("post", 6, As::One(operation)),
        ("delete", 7, As::One(operation)),
        ("options", 8, As::One(operation)),
        ("head", 9, As::One(operation)),
        ("patch", 10, As::One(operation)),
        ("parameters", 13, As::Each(parameter)),
    ],
    extensions: 14,
};

static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, As::Texts),
        ("summary", 2, As::Text),
        ("description", 3, As::Text),
        ("operationId", 5, As::Text),
        ("parameters", 6, As::Each(parameter)),
        ("requestBody", 7, As::One(request_body)),
        ("responses", 8, As::One(responses)),
        ("deprecated", 10, As::Bool),
    ],
    extensions: 13,
};

static PARAMETER: Message = Message {
    fields: &[
        ("name", 1, As::Text),
        ("in", 2, As::Text),
        ("description", 3, As::Text),
        ("required", 4, As::Bool),
        ("schema", 10, As::One(schema_or_reference)),
    ],
    extensions: 14,
};

static REQUEST_BODY: Message = Message {
    fields: &[
        ("description", 1, As::Text),
        ("content", 2, As::Named(media_type)),
        ("required", 3, As::Bool),
    ],
    extensions: 4,
};

static RESPONSE: Message = Message {
    fields: &[
        ("description", 1, As::Text),
        ("content", 3, As::Named(media_type)),
    ],
    extensions: 5,
};

static MEDIA_TYPE: Message = Message {
    fields: &[("schema", 1, As::One(schema_or_reference))],
    extensions: 5,
};

static SCHEMA: Message = Message {
    fields: &[
        ("nullable", 1, As::Bool),
        ("example", 7, As::Any),
        ("deprecated", 8, As::Bool),
        ("title", 9, As::Text),
        ("multipleOf", 10, As::Double),
        ("maximum", 11, As::Double),
        ("exclusiveMaximum", 12, As::Bool),
        ("minimum", 13, As::Double),
        ("exclusiveMinimum", 14, As::Bool),
        ("maxLength", 15, As::Int),
        ("minLength", 16, As::Int),
        ("pattern", 17, As::Text),
        ("maxItems", 18, As::Int),
        ("minItems", 19, As::Int),
        ("uniqueItems", 20, As::Bool),
        ("maxProperties", 21, As::Int),
        ("minProperties", 22, As::Int),
        ("required", 23, As::Texts),
        ("enum", 24, As::Anys),
        ("type", 25, As::Text),
        ("allOf", 26, As::Each(schema_or_reference)),
        ("oneOf", 27, As::Each(schema_or_reference)),
        ("anyOf", 28, As::Each(schema_or_reference)),
        ("not", 29, As::One(schema)),
        ("items", 30, As::One(items)),
        ("properties", 31, As::Named(schema_or_reference)),
        ("additionalProperties", 32, As::One(additional)),
        ("default", 33, As::One(default)),
        ("description", 34, As::Text),
        ("format", 35, As::Text),
    ],
    extensions: 36,
};

static REFERENCE: Message = Message {
    fields: &[
        ("$ref", 1, As::Text),
        ("summary", 2, As::Text),
        ("description", 3, As::Text),
    ],
    extensions: 0,
};

/// The message of a whole document.
pub fn document(tree: &Value) -> Vec<u8> {
    let mut out = Writer::default();
    DOCUMENT.write(tree, &mut out);
    out.finish()
}

fn info(tree: &Value, out: &mut Writer) {
    INFO.write(tree, out);
}

fn paths(tree: &Value, out: &mut Writer) {
    named(1, tree, |tree, out| PATH_ITEM.write(tree, out), out);
}

fn components(tree: &Value, out: &mut Writer) {
    COMPONENTS.write(tree, out);
}

fn security_requirement(tree: &Value, out: &mut Writer) {
    named(1, tree, texts, out);
}

fn operation(tree: &Value, out: &mut Writer) {
    OPERATION.write(tree, out);
}

/// The thing itself under tag 1, or a reference to it under tag 2.
fn either(message: &Message, tree: &Value, out: &mut Writer) {
    match tree.get("$ref") {
        Some(_) => out.message(2, |out| REFERENCE.write(tree, out)),
        None => out.message(1, |out| message.write(tree, out)),
    }
}

fn schema_or_reference(tree: &Value, out: &mut Writer) {
    either(&SCHEMA, tree, out);
}

fn security_scheme(tree: &Value, out: &mut Writer) {
    either(&SECURITY_SCHEME, tree, out);
}

fn parameter(tree: &Value, out: &mut Writer) {
    either(&PARAMETER, tree, out);
}

fn request_body(tree: &Value, out: &mut Writer) {
    either(&REQUEST_BODY, tree, out);
}

fn responses(tree: &Value, out: &mut Writer) {
    const RESPONSE_OR_REFERENCE: Write = |tree, out| either(&RESPONSE, tree, out);
    named(2, tree, RESPONSE_OR_REFERENCE, out);
}

fn media_type(tree: &Value, out: &mut Writer) {
    MEDIA_TYPE.write(tree, out);
}

fn schema(tree: &Value, out: &mut Writer) {
    SCHEMA.write(tree, out);
}

fn items(tree: &Value, out: &mut Writer) {
    out.message(1, |out| schema_or_reference(tree, out));
}

fn additional(tree: &Value, out: &mut Writer) {
    match tree {
        Value::Bool(allowed) => out.int(2, i64::from(*allowed)),
        tree => out.message(1, |out| schema_or_reference(tree, out)),
    }
}

/// Defaults that are no single value have no form.
fn default(tree: &Value, out: &mut Writer) {
    match tree {
        Value::Number(number) => out.double(1, number.as_f64().unwrap_or(0.0)),
        Value::Bool(value) => out.int(2, i64::from(*value)),
        Value::String(text) => out.bytes(3, text.as_bytes()),
        _ => {}
    }
}
