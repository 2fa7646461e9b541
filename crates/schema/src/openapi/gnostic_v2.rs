//! The messages of OpenAPI v2.

use serde_json::Value;

use super::gnostic::{As, Message, named, texts};
use crate::protobuf::wire::Writer;

static INFO: Message = Message {
    fields: &[
        ("title", 1, As::Text),
        ("version", 2, As::Text),
        ("description", 3, As::Text),
    ],
    extensions: 7,
};

static PATH_ITEM: Message = Message {
    fields: &[
        ("get", 2, As::One(operation)),
        ("put", 3, As::One(operation)),
        ("post", 4, As::One(operation)),
        ("delete", 5, As::One(operation)),
        ("options", 6, As::One(operation)),
        ("head", 7, As::One(operation)),
        ("patch", 8, As::One(operation)),
        ("parameters", 9, As::Each(parameter)),
    ],
    extensions: 10,
};

static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, As::Texts),
        ("summary", 2, As::Text),
        ("description", 3, As::Text),
        ("operationId", 5, As::Text),
        ("produces", 6, As::Texts),
        ("consumes", 7, As::Texts),
        ("parameters", 8, As::Each(parameter)),
        ("responses", 9, As::One(responses)),
        ("schemes", 10, As::Texts),
        ("deprecated", 11, As::Bool),
    ],
    extensions: 13,
};

static BODY_PARAMETER: Message = Message {
    fields: &[
        ("description", 1, As::Text),
        ("name", 2, As::Text),
        ("in", 3, As::Text),
        ("required", 4, As::Bool),
        ("schema", 5, As::One(schema)),
    ],
    extensions: 6,
};

static QUERY_PARAMETER: Message = Message {
    fields: &[
        ("required", 1, As::Bool),
        ("in", 2, As::Text),
        ("description", 3, As::Text),
        ("name", 4, As::Text),
        ("type", 6, As::Text),
        ("format", 7, As::Text),
        ("uniqueItems", 20, As::Bool),
    ],
    extensions: 23,
};

static PATH_PARAMETER: Message = Message {
    fields: &[
        ("required", 1, As::Bool),
        ("in", 2, As::Text),
        ("description", 3, As::Text),
        ("name", 4, As::Text),
        ("type", 5, As::Text),
        ("format", 6, As::Text),
        ("uniqueItems", 19, As::Bool),
    ],
    extensions: 22,
};

static RESPONSE: Message = Message {
    fields: &[
        ("description", 1, As::Text),
        ("schema", 2, As::One(schema_item)),
    ],
    extensions: 5,
};

static SCHEMA: Message = Message {
    fields: &[
        ("$ref", 1, As::Text),
        ("format", 2, As::Text),
        ("title", 3, As::Text),
        ("description", 4, As::Text),
        ("default", 5, As::Any),
        ("multipleOf", 6, As::Double),
        ("maximum", 7, As::Double),
        ("exclusiveMaximum", 8, As::Bool),
        ("minimum", 9, As::Double),
        ("exclusiveMinimum", 10, As::Bool),
        ("maxLength", 11, As::Int),
        ("minLength", 12, As::Int),
        ("pattern", 13, As::Text),
        ("maxItems", 14, As::Int),
        ("minItems", 15, As::Int),
        ("uniqueItems", 16, As::Bool),
        ("maxProperties", 17, As::Int),
        ("minProperties", 18, As::Int),
        ("required", 19, As::Texts),
        ("enum", 20, As::Anys),
        ("additionalProperties", 21, As::One(additional)),
        ("type", 22, As::One(texts)),
        ("items", 23, As::One(items)),
        ("allOf", 24, As::Each(schema)),
        ("properties", 25, As::Named(schema)),
        ("example", 30, As::Any),
    ],
    extensions: 31,
};

static API_KEY: Message = Message {
    fields: &[
        ("type", 1, As::Text),
        ("name", 2, As::Text),
        ("in", 3, As::Text),
        ("description", 4, As::Text),
    ],
    extensions: 5,
};

/// `Info`.
pub(super) fn info(tree: &Value, out: &mut Writer) {
    INFO.write(tree, out);
}

/// `PathItem`.
pub(super) fn path_item(tree: &Value, out: &mut Writer) {
    PATH_ITEM.write(tree, out);
}

/// `Schema`.
pub(super) fn schema(tree: &Value, out: &mut Writer) {
    SCHEMA.write(tree, out);
}

/// `SecurityDefinitionsItem`.
pub(super) fn security_definition(tree: &Value, out: &mut Writer) {
    out.message(2, |out| API_KEY.write(tree, out));
}

/// `SecurityRequirement`.
pub(super) fn security_requirement(tree: &Value, out: &mut Writer) {
    named(1, tree, texts, out);
}

fn operation(tree: &Value, out: &mut Writer) {
    OPERATION.write(tree, out);
}

/// A parameter is a body, or one of the others, of which two are used.
fn parameter(tree: &Value, out: &mut Writer) {
    out.message(1, |out| match tree["in"].as_str() {
        Some("body") => out.message(1, |out| BODY_PARAMETER.write(tree, out)),
        Some("path") => out.message(2, |out| {
            out.message(4, |out| PATH_PARAMETER.write(tree, out));
        }),
        _ => out.message(2, |out| {
            out.message(3, |out| QUERY_PARAMETER.write(tree, out));
        }),
    });
}

fn responses(tree: &Value, out: &mut Writer) {
    named(
        1,
        tree,
        |tree, out| out.message(1, |out| RESPONSE.write(tree, out)),
        out,
    );
}

fn schema_item(tree: &Value, out: &mut Writer) {
    out.message(1, |out| schema(tree, out));
}

fn items(tree: &Value, out: &mut Writer) {
    out.message(1, |out| schema(tree, out));
}

fn additional(tree: &Value, out: &mut Writer) {
    match tree {
        Value::Bool(allowed) => out.int(2, i64::from(*allowed)),
        tree => out.message(1, |out| schema(tree, out)),
    }
}
