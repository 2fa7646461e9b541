//! CronJob.

use jiff::Timestamp;
use serde_json::Value;

use crate::core::default_pod_spec;
use crate::row::{Cells, Strategy};
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

    fn orphans_dependents(&self) -> bool {
        true
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
