//! The strategy of kinds that have no rules beyond their metadata.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::table::{cells, name};
use crate::tree::Tree;

/// No defaults, no validation; only cells and a rule for names.
pub(crate) struct Plain {
    cells: fn(&Value, Timestamp) -> Cells,
    validate_name: fn(&str) -> Vec<String>,
}

impl Plain {
    /// Columns of kinds for which upstream has no table of their own.
    pub(crate) const COLUMNS: &str = "Name, Created At:date";
    /// Name and creation.
    pub(crate) const CREATED: Plain = Plain::new(created);
    /// Nothing is ever listed.
    pub(crate) const ANSWER: Plain = Plain::new(created).named(|_| Vec::new());

    pub(crate) const fn new(cells: fn(&Value, Timestamp) -> Cells) -> Plain {
        Plain {
            cells,
            validate_name: meta::naming::dns1123_subdomain,
        }
    }

    pub(crate) const fn named(self, validate_name: fn(&str) -> Vec<String>) -> Plain {
        Plain {
            validate_name,
            ..self
        }
    }
}

/// Cells of [`Plain::COLUMNS`].
pub(crate) fn created(object: &Value, _now: Timestamp) -> Cells {
    cells![
        name(object),
        object.at("metadata.creationTimestamp").clone()
    ]
}

impl Strategy for Plain {
    fn validate_name(&self, name: &str) -> Vec<String> {
        (self.validate_name)(name)
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        (self.cells)(object, now)
    }
}
