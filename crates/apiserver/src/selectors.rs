//! Which objects a list, watch or deletecollection means.

use std::sync::Arc;

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
    /// The custom resource whose users chose some of the fields.
    custom: Option<Arc<Resource>>,
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

/// Kinds outside of namespaces that have fields of their own to select by, and no namespace.
const NAMELESS: [&str; 3] = ["nodes", "namespaces", "certificatesigningrequests"];

impl Filter {
    /// Reads the selectors of a request; 400 when they do not parse or name unknown fields.
    pub(crate) fn read(call: &Call, resource: &Arc<Resource>) -> Result<Filter, Status> {
        let labels = call.query.get("labelSelector").unwrap_or("");
        let labels =
            LabelSelector::parse(labels).map_err(|error| Status::bad_request(error.to_string()))?;
        let mut fields = call.info.field_selector.clone();
        let mut custom = None;
        for (field, _, _) in &mut fields.requirements {
            if resource.row.strategy.has_custom_field(field) {
                custom = Some(Arc::clone(resource));
            } else if field == "metadata.namespace"
                && NAMELESS.contains(&call.info.resource.as_str())
            {
                let text = format!("field label not supported: {field}");
                return Err(Status::bad_request(text));
            } else if !matches!(field.as_str(), "metadata.name" | "metadata.namespace") {
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
            custom,
        })
    }

    /// Whether objects must be converted before it is known whether they are meant.
    pub(crate) fn needs_conversion(&self) -> bool {
        let custom = self.custom.as_ref();
        custom.is_some_and(|resource| resource.conversion.is_some())
    }

    /// Whether an object is meant as far as its key and labels tell.
    pub(crate) fn may_match(&self, entry: &Entry) -> bool {
        entry.key.starts_with(&self.prefix) && self.labels.matches(|key| entry.label(key))
    }

    /// Of those that may be meant, those that are, converted.
    pub(crate) async fn converted(
        &self,
        entries: Vec<Arc<Entry>>,
    ) -> Result<Vec<Arc<Entry>>, Status> {
        let Some(resource) = &self.custom else {
            return Ok(entries);
        };
        let mut entries = resource.converted_entries(entries).await?;
        entries.retain(|entry| self.matches(entry));
        Ok(entries)
    }

    /// Whether every object of the namespace is meant.
    pub(crate) fn takes_all(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether an object is meant.
    pub(crate) fn matches(&self, entry: &Entry) -> bool {
        entry.key.starts_with(&self.prefix)
            && self.labels.matches(|key| entry.label(key))
            && match &self.custom {
                None => self.fields.matches(|path| entry.field(path)),
                Some(resource) => self.matches_custom(entry, resource),
            }
    }

    /// Fields that users chose are looked up in the version they are asked for in.
    fn matches_custom(&self, entry: &Entry, resource: &Resource) -> bool {
        let shown = resource.shown(entry.decode().0);
        let strategy = &resource.row.strategy;
        let named = |path: &str| entry.field(path).map(str::to_owned);
        let own: Vec<(&str, String)> = self
            .fields
            .requirements
            .iter()
            .filter_map(|(path, _, _)| {
                let value = strategy.custom_field(&shown, path).or_else(|| named(path));
                Some((path.as_str(), value?))
            })
            .collect();
        self.fields.matches(|path| {
            let mut found = own.iter().filter(|(known, _)| *known == path);
            found.next().map(|(_, value)| value.as_str())
        })
    }

    /// The same where objects may have to be converted first.
    pub(crate) async fn event_converted(
        &self,
        change: &Change,
    ) -> Result<Option<EventType>, Status> {
        if !self.needs_conversion() {
            return Ok(self.event(change));
        }
        let mut sees = [false, false];
        for (sees, entry) in sees.iter_mut().zip([&change.before, &change.after]) {
            let entry = entry.iter().filter(|entry| self.may_match(entry));
            let entry: Vec<Arc<Entry>> = entry.cloned().collect();
            *sees = !self.converted(entry).await?.is_empty();
        }
        Ok(event_of(sees[0], sees[1]))
    }

    /// What a change is to somebody who sees only what is meant.
    pub(crate) fn event(&self, change: &Change) -> Option<EventType> {
        let sees = |entry: &Option<_>| {
            let entry: Option<&std::sync::Arc<Entry>> = entry.as_ref();
            entry.is_some_and(|entry| self.matches(entry))
        };
        event_of(sees(&change.before), sees(&change.after))
    }
}

/// What a change is to somebody who saw the object before, or sees it after.
fn event_of(before: bool, after: bool) -> Option<EventType> {
    match (before, after) {
        (false, true) => Some(EventType::Added),
        (true, true) => Some(EventType::Modified),
        (true, false) => Some(EventType::Deleted),
        (false, false) => None,
    }
}
