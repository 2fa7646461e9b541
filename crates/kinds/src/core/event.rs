//! Event, as the core group shows it.

use jiff::Timestamp;
use meta::{Faults, naming};
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::spot::{Spot, named, required};
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
    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        validate(object, faults);
    }

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

/// An event lives where the object is that it is about; of cluster-wide ones, in `default`.
fn validate(event: &Value, faults: &mut Faults) {
    let own = event.text("metadata.namespace");
    let about = event.text("involvedObject.namespace");
    let new_style = !event.text("eventTime").is_empty();
    let fits = match (about, own) {
        ("", "" | "default") => true,
        ("", "kube-system") => new_style,
        ("", _) => false,
        _ => new_style || about == own,
    };
    if !fits {
        let rule = "does not match event.namespace";
        faults.invalid("involvedObject.namespace", about, rule);
    }
    if !new_style {
        return;
    }
    let root = Spot::new(event, "");
    named(&root, "reportingComponent", naming::qualified_name, faults);
    for field in ["reportingInstance", "action", "reason"] {
        required(&root, field, faults);
    }
    for (field, most) in LENGTHS {
        if event.text(field).len() > most {
            faults.invalid(field, "", format!("can have at most {most} characters"));
        }
    }
}

const LENGTHS: [(&str, usize); 4] = [
    ("reportingInstance", 128),
    ("action", 128),
    ("reason", 128),
    ("message", 1024),
];
