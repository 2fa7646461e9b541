//! Which objects a list, watch or deletecollection means.

use meta::{FieldSelector, LabelSelector, Status};

use crate::cache::{Change, Entry, EventType};
use crate::chain::Call;
use crate::registry::Resource;

/// Namespace, name and selectors of a request.
pub(crate) struct Filter {
    /// What keys begin with: `namespace/`, or nothing.
    pub(crate) prefix: String,
    pub(crate) labels: LabelSelector,
    pub(crate) fields: FieldSelector,
}

/// What a selectable field is called where objects are kept; 400 when it is none.
fn kept_name(resource: &Resource, field: &str) -> Result<String, Status> {
    let known = resource.row.strategy.selectable_field_names();
    let seen = resource.seen.as_ref().map_or(&[][..], |seen| seen.fields);
    let found = match seen {
        [] => known
            .iter()
            .find(|own| **own == field)
            .map(|own| (*own).to_owned()),
        pairs => {
            let pair = pairs.iter().find(|(own, _)| *own == field);
            pair.map(|(_, kept)| (*kept).to_owned())
        }
    };
    found.ok_or_else(|| {
        Status::bad_request(match known.is_empty() && !resource.custom {
            true => format!(
                "{field:?} is not a known field selector: only \"metadata.name\", \
                 \"metadata.namespace\""
            ),
            false => format!("field label not supported: {field}"),
        })
    })
}

impl Filter {
    /// Reads the selectors of a request; 400 when they do not parse or name unknown fields.
    pub(crate) fn read(call: &Call, resource: &Resource) -> Result<Filter, Status> {
        let labels = call.query.get("labelSelector").unwrap_or("");
        let labels =
            LabelSelector::parse(labels).map_err(|error| Status::bad_request(error.to_string()))?;
        let mut fields = call.info.field_selector.clone();
        for (field, _, _) in &mut fields.requirements {
            if !matches!(field.as_str(), "metadata.name" | "metadata.namespace") {
                *field = kept_name(resource, field)?;
            }
        }
        let prefix = match (&*call.info.namespace, resource.row.names.is_namespaced()) {
            ("", _) | (_, false) => String::new(),
            (namespace, true) => format!("{namespace}/"),
        };
        Ok(Filter {
            prefix,
            labels,
            fields,
        })
    }

    /// Whether every object of the namespace is meant.
    pub(crate) fn takes_all(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether an object is meant.
    pub(crate) fn matches(&self, entry: &Entry) -> bool {
        entry.key.starts_with(&self.prefix)
            && self.labels.matches(|key| entry.label(key))
            && self.fields.matches(|path| entry.field(path))
    }

    /// What a change is to somebody who sees only what is meant.
    pub(crate) fn event(&self, change: &Change) -> Option<EventType> {
        let sees = |entry: &Option<_>| {
            let entry: Option<&std::sync::Arc<Entry>> = entry.as_ref();
            entry.is_some_and(|entry| self.matches(entry))
        };
        match (sees(&change.before), sees(&change.after)) {
            (false, true) => Some(EventType::Added),
            (true, true) => Some(EventType::Modified),
            (true, false) => Some(EventType::Deleted),
            (false, false) => None,
        }
    }
}
