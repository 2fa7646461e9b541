//! Job.

use jiff::Timestamp;
use meta::Faults;
use serde_json::Value;

use super::job_rules::{generated_labels, validate_change, validate_selector, validate_spec};
use crate::core::{default_pod_spec, drop_gated, warnings};
use crate::row::{Cells, Strategy};
use crate::spot::{Spot, null_if_empty};
use crate::table::{age, cells, containers, name, selector};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Status, Completions, Duration, Age, Containers*, \
     Images*, Selector*";

pub(crate) struct Job;

impl Strategy for Job {
    fn default(&self, object: &mut Value) {
        default_job(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        drop_gated(object, &Value::Null, "spec.template.spec");
        object.set("status", serde_json::json!({}));
        if !object.flag("spec.manualSelector") {
            generate_selector(object);
        }
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        drop_gated(object, old, "spec.template.spec");
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        generated_labels(object, faults);
        validate_spec(object, "spec", faults);
        validate_selector(&Spot::new(object, "spec"), faults);
        let completions = object.int("spec.completions");
        if object.text("spec.completionMode") == "Indexed" && completions > 0 {
            let name = object.text("metadata.name");
            let last = format!("{name}-{}", completions - 1);
            if !meta::naming::dns1123_label(&last).is_empty() {
                let rule = format!("will not able to create pod with invalid DNS label: {last}");
                faults.invalid("metadata.name", name, rule);
            }
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        // Upstream validates the object by itself and as a changed one.
        self.validate_create(object, faults);
        validate_spec(object, "spec", faults);
        validate_selector(&Spot::new(object, "spec"), faults);
        validate_change(object, old, faults);
    }

    fn orphans_dependents(&self) -> bool {
        true
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["status.successful"]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let succeeded = object.int("status.succeeded");
        vec![("status.successful", succeeded.to_string())]
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let host = warnings::host_name(object, "Pod names and hostnames").into_iter();
        let size = too_many_indexes(object, "spec");
        let template = warnings::of_template(object, "spec.template");
        host.chain(size).chain(template).collect()
    }

    fn warnings_update(&self, object: &Value, old: &Value) -> Vec<String> {
        if object.int("metadata.generation") == old.int("metadata.generation") {
            return Vec::new();
        }
        let size = too_many_indexes(object, "spec").into_iter();
        size.chain(warnings::of_template(object, "spec.template"))
            .collect()
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

/// More indexes than whose failures can be kept track of.
pub(super) fn too_many_indexes(object: &Value, path: &str) -> Option<String> {
    const COMPLETIONS: i64 = 100_000;
    const PARALLELISM: i64 = 10_000;
    let spec = object.at(path);
    let many = spec.text("completionMode") == "Indexed"
        && spec.int("completions") > COMPLETIONS
        && spec.int("parallelism") > PARALLELISM;
    many.then(|| {
        format!(
            "{path}: In Indexed Jobs with a number of completions higher than 10^5 and a \
             parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes \
             when a big number of indexes fail"
        )
    })
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

/// Pods may fail this often before the job fails.
const BACKOFF_LIMIT: i64 = 6;
/// Labels that tie pods to their job: today's names and the old ones.
pub(super) const CONTROLLER_UID: [&str; 2] =
    ["batch.kubernetes.io/controller-uid", "controller-uid"];
pub(super) const JOB_NAME: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

fn default_job(job: &mut Value) {
    if !job.has("spec.completions") && !job.has("spec.parallelism") {
        job.set("spec.completions", 1);
    }
    job.fill("spec.parallelism", 1);
    let limit = match job.has("spec.backoffLimitPerIndex") {
        true => i64::from(i32::MAX),
        false => BACKOFF_LIMIT,
    };
    job.fill("spec.backoffLimit", limit);
    if job.count("metadata.labels") == 0 && job.has("spec.template.metadata.labels") {
        let mut labels = job.at("spec.template.metadata.labels").clone();
        // Labels that are taken over follow the template when the server adds its own there:
        // until then nothing stands for them.
        if !job.flag("spec.manualSelector") && labels.get(CONTROLLER_UID[1]).is_none() {
            labels[CONTROLLER_UID[1]] = Value::Null;
        }
        job.set("metadata.labels", labels);
    }
    job.fill("spec.completionMode", "NonIndexed");
    job.fill("spec.suspend", false);
    let replacement = match job.has("spec.podFailurePolicy") {
        true => "Failed",
        false => "TerminatingOrFailed",
    };
    job.fill("spec.podReplacementPolicy", replacement);
    job.fill("spec.manualSelector", false);
    for rule in job.list_mut("spec.podFailurePolicy.rules") {
        for pattern in rule.list_mut("onPodConditions") {
            pattern.fill_text("status", "True");
        }
    }
    null_if_empty(job, "spec.podFailurePolicy", "rules");
    default_pod_spec(job, "spec.template.spec");
}

/// Selects the job's pods by the job's uid, which nobody else can have.
fn generate_selector(job: &mut Value) {
    let name = job.at("metadata.name").clone();
    let uid = job.at("metadata.uid").clone();
    job.fill_map("spec.template.metadata.labels");
    if let Some(Value::Object(labels)) = job.at_mut("spec.template.metadata.labels") {
        let [new, old] = JOB_NAME;
        // Labels of the user's own that differ are a fault that validation finds.
        labels.entry(old).or_insert(name.clone());
        labels.entry(new).or_insert(name);
        for key in CONTROLLER_UID {
            labels.entry(key).or_insert(uid.clone());
        }
    }
    let follows = job.at("metadata.labels").get(CONTROLLER_UID[1]);
    if follows.is_some_and(Value::is_null) {
        let labels = job.at("spec.template.metadata.labels").clone();
        job.set("metadata.labels", labels);
    }
    job.fill_map("spec.selector.matchLabels");
    if let Some(Value::Object(labels)) = job.at_mut("spec.selector.matchLabels") {
        labels.entry(CONTROLLER_UID[0]).or_insert(uid);
    }
}
