//! Job.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::table::{age, cells, containers, name, selector};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Status, Completions, Duration, Age, Containers*, \
     Images*, Selector*";

pub(crate) struct Job;

impl Strategy for Job {
    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["status.successful"]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let succeeded = object.int("status.succeeded");
        vec![("status.successful", succeeded.to_string())]
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let [names, images] = containers(object, "spec.template.spec");
        cells![
            name(object),
            status(object),
            completions(object),
            duration(object, now),
            age(object, now),
            names,
            images,
            selector(object, "spec.selector"),
        ]
    }
}

fn completions(job: &Value) -> String {
    let succeeded = job.int("status.succeeded");
    match (
        job.maybe_int("spec.completions"),
        job.int("spec.parallelism"),
    ) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn duration(job: &Value, now: Timestamp) -> String {
    let Some(start) = meta::time::parse(job.text("status.startTime")) else {
        return String::new();
    };
    let end = meta::time::parse(job.text("status.completionTime")).unwrap_or(now);
    meta::time::human_duration(end.as_second() - start.as_second())
}

fn status(job: &Value) -> &'static str {
    let condition = |kind: &str| {
        let mut conditions = job.list("status.conditions").iter();
        let found = conditions.find(|one| one.text("type") == kind);
        found.is_some_and(|condition| condition.text("status") == "True")
    };
    if condition("Complete") {
        "Complete"
    } else if condition("Failed") {
        "Failed"
    } else if job.has("metadata.deletionTimestamp") {
        "Terminating"
    } else if condition("Suspended") {
        "Suspended"
    } else if condition("FailureTarget") {
        "FailureTarget"
    } else if condition("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}
