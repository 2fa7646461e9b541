//! `meta.k8s.io/v1 Table` and `PartialObjectMetadata`.

use jiff::Timestamp;
use kinds::Row;
use meta::Status;
use serde_json::{Value, json};

use crate::chain::Query;
use crate::registry::Resource;

/// What each row carries besides its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    /// The `includeObject` parameter.
    pub(crate) fn read(query: &Query) -> Result<Include, Status> {
        match query.get("includeObject") {
            None | Some("Metadata") => Ok(Include::Metadata),
            Some("None") => Ok(Include::None),
            Some("Object") => Ok(Include::Object),
            Some(other) => Err(Status::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: \
                 must be 'Metadata', 'Object', 'None', or empty"
            ))),
        }
    }
}

/// One row; `object` is as it is kept.
pub(crate) fn row(resource: &Resource, object: Value, include: Include, now: Timestamp) -> Value {
    let cells = resource.row.strategy.cells(&object, now);
    match include {
        Include::None => json!({"cells": cells, "object": null}),
        Include::Metadata => json!({"cells": cells, "object": metadata_only(object)}),
        Include::Object => json!({"cells": cells, "object": resource.shown(object)}),
    }
}

/// A table; watches send the columns with the first event only.
pub(crate) fn table(row: &Row, rows: Vec<Value>, metadata: Value, with_columns: bool) -> Value {
    let columns: Vec<Value> = match with_columns {
        true => row.columns.iter().map(column).collect(),
        false => Vec::new(),
    };
    // Kinds without a printer of their own have upstream's general one, which leaves rows out.
    let general = row
        .columns
        .get(1)
        .is_some_and(|own| own.name == "Created At");
    let rows = match general && rows.is_empty() {
        true => Value::Null,
        false => rows.into(),
    };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns, "rows": rows,
    })
}

fn column(column: &kinds::Column) -> Value {
    json!({
        "name": column.name, "type": column.kind, "format": column.format,
        "description": column.description, "priority": column.priority,
    })
}

/// The object with nothing but its metadata.
pub(crate) fn metadata_only(mut object: Value) -> Value {
    let metadata = object.get_mut("metadata").map(Value::take);
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata.unwrap_or_else(|| json!({})),
    })
}
