//! Event, as the core group shows it.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::table::{cells, or, since};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Last Seen, Type, Reason, Object, Subobject*, Source*, Message, \
     First Seen*, Count*, Name*";

const SELECTABLE: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

pub(crate) struct Event;

impl Strategy for Event {
    fn selectable_field_names(&self) -> &'static [&'static str] {
        SELECTABLE
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let value = |field: &str| match field {
            "source" => or(
                object.text("source.component"),
                object.text("reportingComponent"),
            )
            .to_owned(),
            path => object.text(path).to_owned(),
        };
        SELECTABLE
            .iter()
            .map(|field| (*field, value(field)))
            .collect()
    }

    fn cells(&self, event: &Value, now: Timestamp) -> Cells {
        let first = or(event.text("firstTimestamp"), event.text("eventTime"));
        let last = or(event.text("lastTimestamp"), first);
        let (last, count) = match event.has("series") {
            true => (
                event.text("series.lastObservedTime"),
                event.int("series.count"),
            ),
            false => (last, event.int("count").max(1)),
        };
        let kind = event.text("involvedObject.kind").to_lowercase();
        let target = match event.text("involvedObject.name") {
            "" => kind,
            name => format!("{kind}/{name}"),
        };
        cells![
            since(last, now),
            event.text("type"),
            event.text("reason"),
            target,
            event.text("involvedObject.fieldPath"),
            source(event),
            event.text("message").trim(),
            since(first, now),
            count,
            event.text("metadata.name"),
        ]
    }
}

fn source(event: &Value) -> String {
    let component = or(
        event.text("source.component"),
        event.text("reportingComponent"),
    );
    match or(event.text("source.host"), event.text("reportingInstance")) {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    }
}
