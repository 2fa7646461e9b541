//! The group `batch`.

mod cron_job;
mod job;
mod job_rules;
mod schedule;
mod success_policy;

use meta::Names;

use crate::row::Row;

fn names(kind: &str, plural: &str) -> Names {
    Names::namespaced("batch", "v1", kind, plural).categories(&["all"])
}

#[rustfmt::skip]
pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new(names("CronJob", "cronjobs").short(&["cj"]), cron_job::COLUMNS, cron_job::CronJob).status().generation(),
        Row::new(names("Job", "jobs"), job::COLUMNS, job::Job).status().generation(),
    ]
}
