//! Who owns the number of replicas: managed fields of an object as those of its Scale, and back.

use serde_json::{Map, Value, json};

use super::scale::SCALE;

const FIELDS: &str = "fieldsV1";

/// An object's group and version, and where its replicas are, such as `/spec/replicas`.
pub(super) struct Owners<'a> {
    pub(super) api_version: String,
    pub(super) replicas: &'a str,
}

impl Owners<'_> {
    /// The entries of those who own the replicas, as the Scale has them.
    pub(super) fn of_scale(&self, entries: &[Value]) -> Vec<Value> {
        let own = entries.iter().filter(|entry| self.has_replicas(entry));
        let entries = own.map(|entry| {
            let mut entry = entry.clone();
            entry["apiVersion"] = api_version().into();
            entry[FIELDS] = json!({"f:spec": {"f:replicas": {}}});
            entry
        });
        entries.collect()
    }

    /// The object's entries after those of its Scale have changed from `of_scale` to `scale`.
    pub(super) fn of_parent(&self, entries: &[Value], scale: &[Value]) -> Vec<Value> {
        let mut scale: Vec<&Value> = scale.iter().collect();
        let mut list = Vec::new();
        for entry in entries.iter().filter(|entry| self.is_known(entry)) {
            if !self.has_replicas(entry) {
                list.push(entry.clone());
                continue;
            }
            match scale.iter().position(|own| is_same(own, entry)) {
                Some(at) => {
                    scale.remove(at);
                    list.push(entry.clone());
                }
                None => list.extend(self.robbed(entry)),
            }
        }
        let own = |entry: &&Value| entry.pointer("/fieldsV1/f:spec/f:replicas").is_some();
        for entry in scale.into_iter().filter(own) {
            let mut entry = entry.clone();
            entry["apiVersion"] = self.api_version.as_str().into();
            entry[FIELDS] = self.only_replicas();
            // As upstream, which looks for the time among the object's entries.
            if let Some(map) = entry.as_object_mut() {
                map.remove("time");
            }
            list.push(entry);
        }
        list.sort_by_key(rank);
        list
    }

    /// Upstream drops entries of versions that it cannot place.
    fn is_known(&self, entry: &Value) -> bool {
        let group = |version: &str| version.rsplit_once('/').map(|(group, _)| group.to_owned());
        group(word(entry, "apiVersion")) == group(&self.api_version)
    }

    fn path(&self) -> String {
        format!("/{FIELDS}{}", self.replicas.replace('/', "/f:"))
    }

    fn has_replicas(&self, entry: &Value) -> bool {
        self.is_known(entry) && entry.pointer(&self.path()).is_some()
    }

    /// The entry without the replicas; `None` when nothing is left.
    fn robbed(&self, entry: &Value) -> Option<Value> {
        let mut entry = entry.clone();
        let steps: Vec<String> = self.replicas.split('/').skip(1).map(field).collect();
        let fields = entry.get_mut(FIELDS)?.as_object_mut()?;
        remove(fields, &steps);
        match fields.is_empty() {
            true => None,
            false => Some(entry),
        }
    }

    fn only_replicas(&self) -> Value {
        let steps = self.replicas.split('/').skip(1).map(field);
        let mut steps: Vec<String> = steps.collect();
        let mut fields = json!({});
        while let Some(step) = steps.pop() {
            fields = json!({ step: fields });
        }
        fields
    }
}

fn field(step: &str) -> String {
    format!("f:{step}")
}

fn api_version() -> String {
    format!("{}/{}", SCALE.0, SCALE.1)
}

fn word<'a>(entry: &'a Value, field: &str) -> &'a str {
    entry.get(field).and_then(Value::as_str).unwrap_or("")
}

/// Whether both are the same manager. Those who update are told apart by version too, and a
/// Scale's is never the object's.
fn is_same(scale: &Value, entry: &Value) -> bool {
    let same = |field: &str| word(scale, field) == word(entry, field);
    same("manager") && same("operation") && same("subresource") && {
        word(scale, "operation") == "Apply" || same("apiVersion")
    }
}

/// Removes a leaf, and the maps that are empty without it.
fn remove(fields: &mut Map<String, Value>, steps: &[String]) {
    let Some((first, rest)) = steps.split_first() else {
        return;
    };
    let is_empty = match fields.get_mut(first).and_then(Value::as_object_mut) {
        Some(inner) if !rest.is_empty() => {
            remove(inner, rest);
            inner.is_empty()
        }
        Some(_) => true,
        None => false,
    };
    if is_empty {
        fields.remove(first);
    }
}

/// The order of entries: appliers first, then by time.
fn rank(entry: &Value) -> (bool, String, String, String, String) {
    let own = |field: &str| word(entry, field).to_owned();
    (
        word(entry, "operation") != "Apply",
        own("time"),
        own("manager"),
        own("apiVersion"),
        own("subresource"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners() -> Owners<'static> {
        Owners {
            api_version: "apps/v1".into(),
            replicas: "/spec/replicas",
        }
    }

    fn entry(manager: &str, operation: &str, fields: Value) -> Value {
        json!({"manager": manager, "operation": operation, "apiVersion": "apps/v1",
            "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields})
    }

    #[test]
    fn only_owners_of_replicas_count_for_the_scale() {
        let entries = [
            entry(
                "a",
                "Update",
                json!({"f:spec": {"f:replicas": {}, "f:paused": {}}}),
            ),
            entry("b", "Update", json!({"f:spec": {"f:paused": {}}})),
        ];
        let scale = owners().of_scale(&entries);
        assert_eq!(scale.len(), 1);
        assert_eq!(scale[0]["apiVersion"], "autoscaling/v1");
        assert_eq!(scale[0]["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    }

    #[test]
    fn replicas_change_hands() {
        let entries = [
            entry(
                "a",
                "Update",
                json!({"f:spec": {"f:replicas": {}, "f:paused": {}}}),
            ),
            entry("b", "Apply", json!({"f:spec": {"f:replicas": {}}})),
        ];
        let mut taken = entry("c", "Update", json!({"f:spec": {"f:replicas": {}}}));
        taken["apiVersion"] = "autoscaling/v1".into();
        taken["subresource"] = "scale".into();
        let list = owners().of_parent(&entries, &[taken]);
        let names: Vec<_> = list.iter().map(|own| word(own, "manager")).collect();
        // The applier owned nothing else; the new owner has no time, and stands first.
        assert_eq!(names, ["c", "a"]);
        assert_eq!(list[0]["apiVersion"], "apps/v1");
        assert_eq!(list[0]["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
        assert_eq!(list[1]["fieldsV1"], json!({"f:spec": {"f:paused": {}}}));
    }

    #[test]
    fn appliers_keep_what_nobody_took() {
        let entries = [entry("b", "Apply", json!({"f:spec": {"f:replicas": {}}}))];
        let scale = owners().of_scale(&entries);
        assert_eq!(owners().of_parent(&entries, &scale), entries);
    }
}
