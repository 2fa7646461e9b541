//! CronJob.

use jiff::Timestamp;
use meta::Faults;
use serde_json::Value;

use super::job_rules::validate_spec;
use super::schedule;
use crate::core::{default_pod_spec, drop_gated, warnings};
use crate::row::{Cells, Strategy};
use crate::spot::{Spot, not_negative, one_of, same, unsupported};
use crate::table::{age, cells, containers, name, or, selector, since};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Schedule, Timezone, Suspend:boolean, Active:integer, \
     Last Schedule, Age, Containers*, Images*, Selector*";

pub(crate) struct CronJob;

impl Strategy for CronJob {
    fn default(&self, object: &mut Value) {
        object.fill_text("spec.concurrencyPolicy", "Allow");
        object.fill("spec.suspend", false);
        object.fill("spec.successfulJobsHistoryLimit", 3);
        object.fill("spec.failedJobsHistoryLimit", 1);
        default_pod_spec(object, "spec.jobTemplate.spec.template.spec");
    }

    fn prepare_create(&self, object: &mut Value) {
        drop_gated(object, &Value::Null, "spec.jobTemplate.spec.template.spec");
        object.set("status", serde_json::json!({}));
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        drop_gated(object, old, "spec.jobTemplate.spec.template.spec");
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        validate(object, &Value::Null, faults);
        let name = object.text("metadata.name");
        if name.len() > NAME_MAX {
            faults.invalid("metadata.name", name, "must be no more than 52 characters");
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        validate(object, old, faults);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let host = warnings::host_name(object, "Pod names and hostnames").into_iter();
        host.chain(of_job(object)).collect()
    }

    fn warnings_update(&self, object: &Value, old: &Value) -> Vec<String> {
        let mut warnings = Vec::new();
        if object.int("metadata.generation") != old.int("metadata.generation") {
            warnings.extend(of_job(object));
        }
        if object.text("spec.schedule").contains("TZ") {
            let warning = "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, \
                           see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ \
                           for more details";
            warnings.push(warning.into());
        }
        warnings
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let [names, images] = containers(object, "spec.jobTemplate.spec.template.spec");
        let suspend = match object.at("spec.suspend").as_bool() {
            Some(true) => "True",
            Some(false) => "False",
            None => "<unset>",
        };
        let last = match object.text("status.lastScheduleTime") {
            "" => "<none>".to_owned(),
            last => since(last, now),
        };
        cells![
            name(object),
            object.text("spec.schedule"),
            or(object.text("spec.timeZone"), "<none>"),
            suspend,
            object.count("status.active"),
            last,
            age(object, now),
            names,
            images,
            selector(object, "spec.jobTemplate.spec.selector"),
        ]
    }
}

fn of_job(object: &Value) -> Vec<String> {
    let size = super::job::too_many_indexes(object, "spec.jobTemplate.spec").into_iter();
    let template = warnings::of_template(object, "spec.jobTemplate.spec.template");
    size.chain(template).collect()
}

/// Leaves room for what is added to the names of jobs.
const NAME_MAX: usize = 52;

fn validate(object: &Value, old: &Value, faults: &mut Faults) {
    let spec = Spot::new(object, "spec");
    let schedule = spec.text("schedule");
    match schedule {
        "" => faults.required(spec.path("schedule"), ""),
        _ => validate_schedule(&spec, old.text("spec.schedule").contains("TZ"), faults),
    }
    not_negative(&spec, "startingDeadlineSeconds", faults);
    if !same(spec.at("timeZone"), old.at("spec.timeZone")) || old.is_null() {
        validate_time_zone(&spec, faults);
    }
    one_of(
        &spec,
        "concurrencyPolicy",
        &["Allow", "Forbid", "Replace"],
        faults,
    );
    let template = spec.child("jobTemplate");
    validate_spec(object, &template.path("spec"), faults);
    if template.has("spec.selector") {
        let selector = template.at("spec.selector").clone();
        let rule = "`selector` will be auto-generated";
        faults.invalid(template.path("spec.selector"), selector, rule);
    }
    if template.flag("spec.manualSelector") {
        let path = template.path("spec.manualSelector");
        unsupported(faults, path, true, &["nil", "false"]);
    }
    not_negative(&spec, "successfulJobsHistoryLimit", faults);
    not_negative(&spec, "failedJobsHistoryLimit", faults);
}

fn validate_schedule(spec: &Spot<'_>, had_zone: bool, faults: &mut Faults) {
    let (path, schedule) = (spec.path("schedule"), spec.text("schedule"));
    if let Err(fault) = schedule::check(schedule) {
        faults.invalid(path.clone(), schedule, fault);
    }
    let zoned = schedule.contains("TZ");
    if zoned && !had_zone {
        let rule = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        faults.invalid(path, schedule, rule);
    } else if zoned && spec.has("timeZone") {
        let rule = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
        faults.invalid(path, schedule, rule);
    }
}

fn validate_time_zone(spec: &Spot<'_>, faults: &mut Faults) {
    let Some(zone) = spec.some("timeZone") else {
        return;
    };
    let name = zone.as_str().unwrap_or("");
    let rule = if name.is_empty() {
        "timeZone must be nil or non-empty string".to_owned()
    } else if name.eq_ignore_ascii_case("local") {
        "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
            .to_owned()
    } else if jiff::tz::TimeZone::get(name).is_err() {
        format!("unknown time zone {name}")
    } else {
        return;
    };
    faults.invalid(zone.path.clone(), name, rule);
}
