//! Role and ClusterRole.

use jiff::Timestamp;
use serde_json::Value;

use crate::plain;
use crate::row::{Cells, Strategy};

pub(crate) const CLUSTER: Role = Role { cluster: true };
pub(crate) const NAMESPACED: Role = Role { cluster: false };

pub(crate) struct Role {
    cluster: bool,
}

impl Strategy for Role {
    fn validate_name(&self, name: &str) -> Vec<String> {
        meta::naming::path_segment(name)
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        plain::created(object, now)
    }
}
