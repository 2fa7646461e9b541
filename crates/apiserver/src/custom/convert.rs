//! Conversion of custom resources between the versions of their definition: by name only, or by
//! a webhook (`spec.conversion.strategy`).
//!
//! Objects are kept in the version in which they were written last. Whoever reads them in
//! another asks the webhook, for all objects of a list in one call.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use meta::{Faults, Reason, Status};
use schema::{Kind, Type};
use serde_json::{Map, Value, json};
use webhook::{ClientConfig, ConfigError, Webhook, Webhooks};

use crate::cache::{Entry, encode};
use crate::registry::Resource;
use crate::verbs::write::text;

/// Greatest answer to one conversion; a list is converted as a whole.
const RESPONSE_BYTES_MAX: usize = 256 << 20;

/// How the objects of a definition with several versions are converted.
pub(crate) enum Conversion {
    /// Versions differ in their name.
    Rename,
    Webhook(Converter),
}

/// The webhook of a definition.
pub(crate) struct Converter {
    client: Result<Arc<Webhook>, ConfigError>,
    /// The version of ConversionReview to speak.
    review: Option<&'static str>,
    /// By version, also of those that are not served.
    types: Vec<(String, Type)>,
}

impl Conversion {
    /// The conversion that a definition asks for; `None` when it has one version only.
    pub(super) fn of(definition: &Value, webhooks: &Webhooks) -> Option<Arc<Conversion>> {
        let versions = definition.pointer("/spec/versions")?.as_array()?;
        if versions.len() < 2 {
            return None;
        }
        let webhook = definition.pointer("/spec/conversion/webhook");
        let is_webhook = text(definition, "/spec/conversion/strategy") == "Webhook";
        Some(Arc::new(match webhook.filter(|_| is_webhook) {
            Some(webhook) => Conversion::Webhook(Converter::new(definition, webhook, webhooks)),
            None => Conversion::Rename,
        }))
    }

    /// Objects, none of them of version `to`, in that version.
    async fn convert(&self, mut objects: Vec<Value>, to: &str) -> Result<Vec<Value>, Status> {
        match self {
            Conversion::Webhook(webhook) => webhook.ask(objects, to).await,
            Conversion::Rename => {
                for object in &mut objects {
                    object["apiVersion"] = to.into();
                }
                Ok(objects)
            }
        }
    }
}

impl Converter {
    fn new(definition: &Value, webhook: &Value, webhooks: &Webhooks) -> Converter {
        let spoken = webhook["conversionReviewVersions"].as_array();
        let mut spoken = spoken.into_iter().flatten().filter_map(Value::as_str);
        Converter {
            client: webhooks.get(&ClientConfig::from_value(&webhook["clientConfig"])),
            review: spoken.find_map(|version| match version {
                "v1" => Some("v1"),
                "v1beta1" => Some("v1beta1"),
                _ => None,
            }),
            types: types(definition),
        }
    }

    /// The type of each version of the definition.
    pub(super) fn types(&self) -> &[(String, Type)] {
        &self.types
    }

    pub(super) async fn ask(&self, objects: Vec<Value>, to: &str) -> Result<Vec<Value>, Status> {
        let Some(first) = objects.first() else {
            return Ok(objects);
        };
        let what = format!("conversion webhook for {}", kind_of(first));
        let review = self
            .review
            .ok_or_else(|| failed("no supported conversion review versions".into()))?;
        let client = self.client.as_ref();
        let client = client.map_err(|error| failed(format!("{what} failed: {error}")))?;
        let uid = uuid::Uuid::new_v4().to_string();
        let question = json!({"kind": "ConversionReview",
            "apiVersion": format!("apiextensions.k8s.io/{review}"),
            "request": {"uid": uid, "desiredAPIVersion": to, "objects": objects}});
        let bytes = serde_json::to_vec(&question).map_err(Status::internal)?;
        let timeout = webhook::CALL_TIMEOUT;
        let answered = client.call_bounded(bytes.into(), timeout, RESPONSE_BYTES_MAX);
        let answered = answered.await.and_then(|bytes| webhook::decode(&bytes));
        let answered = answered.map_err(|error| failed(format!("{what} failed: {error}")))?;
        let converted = read(answered, review, &uid)
            .map_err(|error| failed(format!("{what} failed: {error}")))?;
        if converted.len() != objects.len() {
            return Err(failed(format!(
                "{what} returned {} objects, expected {}",
                converted.len(),
                objects.len()
            )));
        }
        let checked = objects.iter().zip(converted).enumerate();
        checked
            .map(|(index, (before, after))| {
                fit(before, after, to, index).map_err(|error| failed(format!("{what} {error}")))
            })
            .collect()
    }
}

fn types(definition: &Value) -> Vec<(String, Type)> {
    let (group, kind) = (
        text(definition, "/spec/group"),
        text(definition, "/spec/names/kind"),
    );
    let versions = definition
        .pointer("/spec/versions")
        .and_then(Value::as_array);
    let typed = |version: &Value| {
        let name = text(version, "/name");
        let names = Kind {
            group: group.to_owned().into(),
            version: name.to_owned().into(),
            kind: kind.to_owned().into(),
        };
        let schema = version
            .pointer("/schema/openAPIV3Schema")
            .unwrap_or(&Value::Null);
        (format!("{group}/{name}"), Type::from_openapi(names, schema))
    };
    versions.into_iter().flatten().map(typed).collect()
}

/// 500 without a reason: what upstream makes of an error that is no Status.
fn failed(message: String) -> Status {
    let mut status = Status::new(Reason::Unknown, message);
    status.code = 500;
    status
}

fn kind_of(object: &Value) -> String {
    let (version, kind) = (text(object, "/apiVersion"), text(object, "/kind"));
    format!("{version}, Kind={kind}")
}

/// The converted objects of an answer, or what is wrong with it.
fn read(mut answer: Value, review: &str, uid: &str) -> Result<Vec<Value>, String> {
    let (version, kind) = (text(&answer, "/apiVersion"), text(&answer, "/kind"));
    let expected = "apiextensions.k8s.io/v1";
    if review == "v1" && (version, kind) != (expected, "ConversionReview") {
        return Err(format!(
            "expected webhook response of {expected}, Kind=ConversionReview, got {}",
            kind_of(&answer)
        ));
    }
    if !answer["response"].is_object() {
        return Err("no response provided".into());
    }
    let own = text(&answer, "/response/uid");
    if review == "v1" && own != uid {
        return Err(format!("expected response.uid={uid:?}, got {own:?}"));
    }
    let status = text(&answer, "/response/result/status");
    if status != "Success" {
        return Err(match text(&answer, "/response/result/message") {
            "" => format!("response.result.status was '{status}', not 'Success'"),
            message => message.to_owned(),
        });
    }
    match answer["response"]["convertedObjects"].take() {
        Value::Array(objects) => Ok(objects),
        _ => Ok(Vec::new()),
    }
}

/// Checks one converted object. Of its metadata, only labels and annotations are the webhook's.
fn fit(before: &Value, mut after: Value, to: &str, index: usize) -> Result<Value, String> {
    let invalid = |why: String| {
        Err(format!(
            "returned invalid converted object at index {index}: {why}"
        ))
    };
    let same = |pointer: &str| (text(before, pointer), text(&after, pointer));
    if text(&after, "/apiVersion") != to {
        let got = text(&after, "/apiVersion");
        return invalid(format!(
            "invalid groupVersion (expected {to}, received {got})"
        ));
    }
    if let (expected, got) = same("/kind")
        && expected != got
    {
        return invalid(format!(
            "invalid kind (expected {expected}, received {got})"
        ));
    }
    for (field, what) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let (expected, got) = same(&format!("/metadata/{field}"));
        if expected != got {
            return invalid(format!("must have the same {what}: {expected} != {got}"));
        }
    }
    let metadata = restored(before, &after)
        .map_err(|why| format!("returned invalid metadata in object at index {index}: {why}"))?;
    after["metadata"] = metadata;
    Ok(after)
}

fn restored(before: &Value, after: &Value) -> Result<Value, String> {
    let Some(said) = after["metadata"].as_object() else {
        return Err("missing metadata in converted object".into());
    };
    let mut metadata = before["metadata"].as_object().cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        let given = match said.get(field) {
            None | Some(Value::Null) => {
                metadata.remove(field);
                continue;
            }
            Some(Value::Object(given)) => given,
            Some(_) => return Err(format!("invalid metadata.{field} in converted object")),
        };
        if metadata.get(field).and_then(Value::as_object) != Some(given) {
            check_words(field, given)?;
        }
        metadata.insert(field.into(), Value::Object(given.clone()));
    }
    Ok(Value::Object(metadata))
}

fn check_words(field: &str, words: &Map<String, Value>) -> Result<(), String> {
    for (key, value) in words {
        let Some(value) = value.as_str() else {
            return Err(format!(
                "metadata.{field}[{key}] must be a string in converted object"
            ));
        };
        let mut faults = Faults::new();
        let path = format!("metadata.{field}");
        for broken in meta::naming::qualified_name(key) {
            faults.invalid(path.clone(), key.as_str(), broken);
        }
        if field == "labels" {
            for broken in meta::naming::label_value(value) {
                faults.invalid(path.clone(), value, broken);
            }
        }
        if !faults.is_empty() {
            return Err(faults.summary());
        }
    }
    Ok(())
}

impl Resource {
    /// An object of any version in this one.
    pub(crate) async fn converted(&self, tree: Value) -> Result<Value, Status> {
        let version = self.row.names.api_version();
        let Some(conversion) = &self.conversion else {
            return Ok(tree);
        };
        if text(&tree, "/apiVersion") == version {
            return Ok(tree);
        }
        let mut converted = conversion.convert(vec![tree], &version).await?;
        let mut tree = converted.pop().unwrap_or_default();
        self.fill(&mut tree);
        Ok(tree)
    }

    /// Whether a kept object is as this version shows it.
    pub(crate) fn shows(&self, kept: &Value) -> bool {
        match &self.conversion {
            Some(_) => text(kept, "/apiVersion") == self.row.names.api_version(),
            None => self.seen.is_none(),
        }
    }

    /// Whether fields are others in other versions.
    pub(crate) fn is_converted_by_webhook(&self) -> bool {
        let conversion = self.conversion.as_deref();
        matches!(conversion, Some(Conversion::Webhook(_)))
    }

    /// A kept object as this version shows it.
    pub(crate) async fn seen<'v>(&self, kept: &'v Value) -> Result<Cow<'v, Value>, Status> {
        if self.shows(kept) {
            return Ok(Cow::Borrowed(kept));
        }
        let converted = self.converted(kept.clone()).await?;
        Ok(Cow::Owned(self.shown(converted)))
    }

    /// The same on encoded objects.
    pub(crate) async fn converted_json(&self, json: Bytes) -> Result<Bytes, Status> {
        if self.conversion.is_none() || self.is_own(&json) {
            return Ok(json);
        }
        let tree = crate::respond::decode(&json)?;
        Ok(encode(&self.converted(tree).await?).into())
    }

    /// The same on the objects of a list, in one call.
    pub(crate) async fn converted_entries(
        &self,
        mut entries: Vec<Arc<Entry>>,
    ) -> Result<Vec<Arc<Entry>>, Status> {
        let Some(conversion) = &self.conversion else {
            return Ok(entries);
        };
        let foreign = |entry: &Arc<Entry>| !self.is_own(&entry.json);
        let others = entries.iter().filter(|entry| foreign(entry));
        let others: Vec<Value> = others.map(|entry| entry.decode().0).collect();
        let version = self.row.names.api_version();
        let converted = conversion.convert(others, &version).await?;
        let places = entries.iter_mut().filter(|entry| foreign(entry));
        for (place, mut tree) in places.zip(converted) {
            self.fill(&mut tree);
            crate::verbs::write::metadata(&mut tree).remove("resourceVersion");
            let (bytes, strategy) = (encode(&tree), &*self.row.strategy);
            let entry = Entry::read(
                &place.key,
                &bytes,
                None,
                (place.revision, place.lease),
                strategy,
            );
            *place = Arc::new(entry.map_err(Status::internal)?);
        }
        Ok(entries)
    }

    /// Whether encoded bytes are of this version.
    fn is_own(&self, json: &[u8]) -> bool {
        let names = &self.row.names;
        let head = format!(
            "{{\"kind\":\"{}\",\"apiVersion\":\"{}\"",
            names.kind,
            names.api_version()
        );
        json.starts_with(head.as_bytes())
    }

    /// What the schema of this version drops and fills in after a conversion.
    fn fill(&self, tree: &mut Value) {
        self.row.strategy.reshape(tree);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(version: &str, metadata: Value) -> Value {
        json!({"kind": "Boat", "apiVersion": version, "metadata": metadata})
    }

    #[test]
    fn only_labels_and_annotations_are_the_webhooks() {
        let before = object(
            "sea/v1",
            json!({"name": "a", "uid": "u", "labels": {"a": "b"},
            "resourceVersion": "7"}),
        );
        let after = object(
            "sea/v2",
            json!({"name": "a", "uid": "u", "annotations": {"x": "y"},
            "resourceVersion": "8"}),
        );
        let fitted = fit(&before, after, "sea/v2", 0).unwrap();
        assert_eq!(
            fitted["metadata"],
            json!({"name": "a", "uid": "u", "annotations": {"x": "y"}, "resourceVersion": "7"})
        );
        let check = |after: Value, expect: &str| {
            let error = fit(&before, after, "sea/v2", 3).unwrap_err();
            assert_eq!(error, format!("returned invalid {expect}"));
        };
        check(
            object("sea/v1", json!({})),
            "converted object at index 3: invalid groupVersion (expected sea/v2, received sea/v1)",
        );
        check(
            object("sea/v2", json!({"name": "b", "uid": "u"})),
            "converted object at index 3: must have the same name: a != b",
        );
        check(
            object(
                "sea/v2",
                json!({"name": "a", "uid": "u", "labels": {"a": 1}}),
            ),
            "metadata in object at index 3: metadata.labels[a] must be a string in converted \
             object",
        );
    }

    #[test]
    fn an_answer_must_be_to_the_question() {
        let check = |answer: Value, expect: &str| {
            assert_eq!(read(answer, "v1", "u").unwrap_err(), expect);
        };
        let review = |response: Value| {
            json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
                "response": response})
        };
        check(review(Value::Null), "no response provided");
        check(
            review(json!({"uid": "x"})),
            "expected response.uid=\"u\", got \"x\"",
        );
        check(
            review(json!({"uid": "u", "result": {"status": "Failure", "message": "no"}})),
            "no",
        );
        check(
            review(json!({"uid": "u", "result": {"status": "Failed"}})),
            "response.result.status was 'Failed', not 'Success'",
        );
    }
}
