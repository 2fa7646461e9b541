//! `metadata.managedFields`: read, change, write.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::set::Set;

/// Entries of updates beyond this many are folded into one, the oldest first.
const MAX_UPDATE_MANAGERS: usize = 10;
/// Who owns what was folded.
const ANCIENT: &str = "ancient-changes";

/// One entry.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Manager<'a> {
    pub(super) name: Cow<'a, str>,
    /// The operation is `Apply`, not `Update`.
    pub(super) applied: bool,
    pub(super) api_version: Cow<'a, str>,
    pub(super) subresource: Cow<'a, str>,
    pub(super) time: Option<Cow<'a, str>>,
    pub(super) set: Set<'a>,
}

impl Manager<'_> {
    /// Whether both are the same entry. Appliers keep theirs across versions.
    pub(super) fn is(&self, other: &Manager<'_>) -> bool {
        self.name == other.name
            && self.applied == other.applied
            && self.subresource == other.subresource
            && (self.applied || self.api_version == other.api_version)
    }

    /// As conflicts word it.
    pub(super) fn describe(&self) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if !self.applied {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }

    fn operation(&self) -> &'static str {
        if self.applied { "Apply" } else { "Update" }
    }
}

/// Reads a list of entries; `None` when one of them is broken.
pub(super) fn decode(list: Option<&Value>) -> Option<Vec<Manager<'_>>> {
    let Some(Value::Array(entries)) = list else {
        return Some(Vec::new());
    };
    entries.iter().map(decode_entry).collect()
}

fn decode_entry(entry: &Value) -> Option<Manager<'_>> {
    let text = |field: &str| entry.get(field).and_then(Value::as_str);
    let applied = match text("operation")? {
        "Apply" => true,
        "Update" => false,
        _ => return None,
    };
    if text("fieldsType") != Some("FieldsV1") {
        return None;
    }
    Some(Manager {
        name: text("manager").unwrap_or("").into(),
        applied,
        api_version: text("apiVersion")
            .filter(|version| !version.is_empty())?
            .into(),
        subresource: text("subresource").unwrap_or("").into(),
        time: text("time").map(Cow::Borrowed),
        set: entry.get("fieldsV1").map(Set::decode).unwrap_or_default(),
    })
}

/// Writes entries in upstream's order; `None` when there are none.
pub(super) fn encode(mut managers: Vec<Manager<'_>>) -> Option<Value> {
    managers.retain(|manager| !manager.set.is_empty());
    managers.sort_by(|one, two| {
        let operations = one.operation().cmp(two.operation());
        operations
            .then_with(|| one.time.cmp(&two.time))
            .then_with(|| one.name.cmp(&two.name))
            .then_with(|| one.api_version.cmp(&two.api_version))
            .then_with(|| one.subresource.cmp(&two.subresource))
    });
    let entries: Vec<Value> = managers.iter().map(encode_entry).collect();
    (!entries.is_empty()).then_some(Value::Array(entries))
}

fn encode_entry(manager: &Manager<'_>) -> Value {
    let mut entry = Map::new();
    let mut set = |field: &str, text: &str| {
        if !text.is_empty() {
            entry.insert(field.into(), text.into());
        }
    };
    set("manager", &manager.name);
    set("operation", manager.operation());
    set("apiVersion", &manager.api_version);
    set("subresource", &manager.subresource);
    set("fieldsType", "FieldsV1");
    set("time", manager.time.as_deref().unwrap_or(""));
    entry.insert("fieldsV1".into(), manager.set.encode());
    Value::Object(entry)
}

/// Whether a client asks to forget all managers: an empty list, or one empty entry.
pub(super) fn is_reset(list: Option<&Value>) -> bool {
    match list {
        Some(Value::Array(entries)) => entries.is_empty() || *entries == [json!({})],
        _ => false,
    }
}

/// Folds the oldest updates of each version into one entry, so that there are not too many.
pub(super) fn cap(managers: &mut Vec<Manager<'_>>) {
    let mut updates = managers.iter().filter(|manager| !manager.applied).count();
    if updates <= MAX_UPDATE_MANAGERS {
        return;
    }
    managers.sort_by(|one, two| {
        (one.applied, &one.time, &one.name).cmp(&(two.applied, &two.time, &two.name))
    });
    let mut at = 0;
    while updates > MAX_UPDATE_MANAGERS && at < managers.len() && !managers[at].applied {
        let version = managers[at].api_version.clone();
        let next = (at + 1..managers.len())
            .find(|index| !managers[*index].applied && managers[*index].api_version == version);
        let Some(next) = next else {
            at += 1;
            continue;
        };
        let folded = managers.remove(next);
        let bucket = &mut managers[at];
        bucket.set = bucket.set.union(&folded.set);
        bucket.time = folded.time;
        bucket.name = ANCIENT.into();
        bucket.subresource = "".into();
        updates -= 1;
    }
}
