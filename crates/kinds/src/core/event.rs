//! Event, as the core group shows it.

use jiff::Timestamp;
use meta::{Faults, naming};
use serde_json::Value;

use crate::go::{EVENT_SOURCE, MAYBE, MAYBE_REFERENCE, NUMBER, REFERENCE, Shape, TEXT};
use crate::metadata::IMMUTABLE;
use crate::row::{Cells, Strategy};
use crate::spot::{Spot, immutable_shown, required, rules, same};
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

/// Events as `v1` has them, whose clients may say nearly anything.
pub(crate) const CORE: Event = Event { strict: false };
/// The same written as `events.k8s.io/v1`.
pub(crate) const STRICT: Event = Event { strict: true };

pub(crate) struct Event {
    strict: bool,
}

impl Strategy for Event {
    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        validate(object, self.strict, faults);
        if self.strict {
            validate_strict(object, faults);
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        validate(object, self.strict, faults);
        if !self.strict {
            return;
        }
        if !same(object.at("series"), old.at("series")) {
            validate_series(object, faults);
        }
        let root = Spot::new(object, "");
        for (field, shape) in &FIXED {
            immutable_shown(&root, old, field, shape, faults);
        }
        // Upstream gives this one its newer name, also where it is shown as the other.
        if object.text("reportingComponent") != old.text("reportingComponent") {
            let value = object.text("reportingComponent");
            faults.invalid("reportingController", value, IMMUTABLE);
        }
        immutable_shown(&root, old, "reportingInstance", &TEXT, faults);
    }

    fn default(&self, object: &mut Value) {
        object.fill("eventTime", Value::Null);
    }

    /// Old clients name events as they like.
    fn validate_name(&self, name: &str) -> Vec<String> {
        match self.strict {
            true => naming::dns1123_subdomain(name),
            false => naming::path_segment(name),
        }
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

/// What `events.k8s.io/v1` does not let anybody change.
/// The reason twice, as upstream does.
const FIXED: [(&str, Shape); 12] = [
    ("involvedObject", REFERENCE),
    ("reason", TEXT),
    ("message", TEXT),
    ("source", EVENT_SOURCE),
    ("firstTimestamp", MAYBE),
    ("lastTimestamp", MAYBE),
    ("count", NUMBER),
    ("reason", TEXT),
    ("type", TEXT),
    ("eventTime", MAYBE),
    ("action", TEXT),
    ("related", MAYBE_REFERENCE),
];

/// An event lives where the object is that it is about; of cluster-wide ones, in `default`.
fn validate(event: &Value, strict: bool, faults: &mut Faults) {
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
    let path = match strict {
        true => "reportingController",
        false => "reportingComponent",
    };
    let controller = event.text("reportingComponent");
    if controller.is_empty() {
        faults.required(path, "");
    }
    rules(faults, path, controller, naming::qualified_name(controller));
    let root = Spot::new(event, "");
    for field in ["reportingInstance", "action", "reason"] {
        required(&root, field, faults);
    }
    for (field, most) in LENGTHS {
        if event.text(field).len() > most {
            faults.invalid(field, "", format!("can have at most {most} characters"));
        }
    }
}

/// What `events.k8s.io/v1` asks of new events beyond that.
fn validate_strict(event: &Value, faults: &mut Faults) {
    validate_series(event, faults);
    if event.text("eventTime").is_empty() {
        faults.required("eventTime", "");
    }
    let kind = event.text("type");
    if !matches!(kind, "Normal" | "Warning") {
        faults.invalid("type", "", format!("has invalid value: {kind}"));
    }
    let source = event.at("source");
    let set = [
        ("firstTimestamp", event.has("firstTimestamp")),
        ("lastTimestamp", event.has("lastTimestamp")),
        ("count", event.int("count") != 0),
        (
            "source",
            !source.text("component").is_empty() || !source.text("host").is_empty(),
        ),
    ];
    for (field, _) in set.into_iter().filter(|(_, set)| *set) {
        faults.invalid(field, "", "needs to be unset");
    }
}

fn validate_series(event: &Value, faults: &mut Faults) {
    let series = event.at("series");
    if series.is_null() {
        return;
    }
    if series.int("count") < 2 {
        faults.invalid("series.count", "", "should be at least 2");
    }
    if series.text("lastObservedTime").is_empty() {
        faults.required("series.lastObservedTime", "");
    }
}

const LENGTHS: [(&str, usize); 4] = [
    ("reportingInstance", 128),
    ("action", 128),
    ("reason", 128),
    ("message", 1024),
];
