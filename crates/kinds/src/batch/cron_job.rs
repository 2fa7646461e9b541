//! CronJob.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::table::{age, cells, containers, name, or, selector, since};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Schedule, Timezone, Suspend:boolean, Active:integer, \
     Last Schedule, Age, Containers*, Images*, Selector*";

pub(crate) struct CronJob;

impl Strategy for CronJob {
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
