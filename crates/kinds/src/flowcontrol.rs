//! The group `flowcontrol.apiserver.k8s.io`: who waits when the server is busy.

mod flow_schema;
mod priority_level;

use meta::Names;

use crate::row::Row;

#[rustfmt::skip]
pub(crate) fn rows() -> Vec<Row> {
    let names = |kind, plural| Names::cluster("flowcontrol.apiserver.k8s.io", "v1", kind, plural);
    let rows = [
        Row::new(names("FlowSchema", "flowschemas"), "Name, PriorityLevel, MatchingPrecedence, DistinguisherMethod, Age, MissingPL", flow_schema::FlowSchema),
        Row::new(names("PriorityLevelConfiguration", "prioritylevelconfigurations"), "Name, Type, NominalConcurrencyShares, Queues, HandSize, QueueLengthLimit, Age", priority_level::PriorityLevel),
    ];
    rows.into_iter().map(|row| row.status().generation()).collect()
}
