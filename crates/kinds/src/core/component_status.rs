//! ComponentStatus: an answer about a part of the control plane, which nobody keeps.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::table::name;
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Status, Message, Error";

/// What users are told.
pub(crate) const DEPRECATION: &str = "v1 ComponentStatus is deprecated in v1.19+";

pub(crate) struct ComponentStatus;

impl Strategy for ComponentStatus {
    fn cells(&self, object: &Value, _now: Timestamp) -> Cells {
        let mut conditions = object.list("conditions").iter();
        let healthy = conditions.find(|own| own.text("type") == "Healthy");
        let (word, message, error) = match healthy {
            None => ("Unknown", "", ""),
            Some(own) => {
                let word = match own.text("status") {
                    "True" => "Healthy",
                    _ => "Unhealthy",
                };
                (word, own.text("message"), own.text("error"))
            }
        };
        vec![name(object), word.into(), message.into(), error.into()]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn health_is_one_word() {
        let cells = |conditions: Value| {
            let object = json!({"metadata": {"name": "x"}, "conditions": conditions});
            ComponentStatus.cells(&object, Timestamp::UNIX_EPOCH)[1].clone()
        };
        assert_eq!(cells(json!([])), "Unknown");
        for (status, word) in [("True", "Healthy"), ("False", "Unhealthy")] {
            let condition = json!([{"type": "Healthy", "status": status}]);
            assert_eq!(cells(condition), word);
        }
    }
}
