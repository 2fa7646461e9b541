//! The group `flowcontrol.apiserver.k8s.io`: who waits when the server is busy.

use jiff::Timestamp;
use meta::Names;
use serde_json::Value;

use crate::plain::Plain;
use crate::row::{Cells, Row};
use crate::table::{age, cells, name, or};
use crate::tree::Tree;

#[rustfmt::skip]
pub(crate) fn rows() -> Vec<Row> {
    let names = |kind, plural| Names::cluster("flowcontrol.apiserver.k8s.io", "v1", kind, plural);
    let rows = [
        Row::new(names("FlowSchema", "flowschemas"), "Name, PriorityLevel, MatchingPrecedence, DistinguisherMethod, Age, MissingPL", Plain::new(schema)),
        Row::new(names("PriorityLevelConfiguration", "prioritylevelconfigurations"), "Name, Type, NominalConcurrencyShares, Queues, HandSize, QueueLengthLimit, Age", Plain::new(level)),
    ];
    rows.into_iter().map(|row| row.status().generation()).collect()
}

fn schema(object: &Value, now: Timestamp) -> Cells {
    let mut conditions = object.list("status.conditions").iter();
    let dangling = conditions.find(|one| one.text("type") == "Dangling");
    cells![
        name(object),
        object.text("spec.priorityLevelConfiguration.name"),
        object.int("spec.matchingPrecedence"),
        or(object.text("spec.distinguisherMethod.type"), "<none>"),
        age(object, now),
        dangling.map_or("?", |condition| condition.text("status")),
    ]
}

fn level(object: &Value, now: Timestamp) -> Cells {
    let limited = object.at("spec.limited");
    let number = |path: &str| match limited.at(path) {
        Value::Null => Value::from("<none>"),
        number => number.clone(),
    };
    cells![
        name(object),
        object.text("spec.type"),
        number("nominalConcurrencyShares"),
        number("limitResponse.queuing.queues"),
        number("limitResponse.queuing.handSize"),
        number("limitResponse.queuing.queueLengthLimit"),
        age(object, now),
    ]
}
