//! The record of one request, from its arrival to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::Audit;
use crate::event::Event;
use crate::policy::{Level, Ruling, Stage};

/// More annotations than this are dropped.
const ANNOTATIONS_MAX: usize = 256;

/// What is known of one request; at each stage a copy goes to the backends. When it is dropped
/// before its end was told, the request was cut off or panicked.
pub struct Record {
    audit: Arc<Audit>,
    ruling: Ruling,
    event: Mutex<Event>,
    ended: AtomicBool,
    lost: AtomicBool,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record").finish_non_exhaustive()
    }
}

impl Record {
    pub(crate) fn new(audit: Arc<Audit>, ruling: Ruling, event: Event) -> Record {
        Record {
            audit,
            ruling,
            event: Mutex::new(event),
            ended: AtomicBool::new(false),
            lost: AtomicBool::new(false),
        }
    }

    /// Whether the request's arrival is missing somewhere where it must not be: then it must not
    /// go on.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// How much is recorded.
    pub fn level(&self) -> Level {
        self.ruling.level
    }

    /// Adds an annotation; what is there already stays.
    pub fn annotate(&self, key: &str, value: impl Into<String>) {
        let annotations = &mut self.event.lock().annotations;
        if annotations.contains_key(key) {
            return tracing::warn!(key, "audit annotation is set already");
        }
        if annotations.len() < ANNOTATIONS_MAX {
            annotations.insert(key.into(), value.into());
        }
    }

    /// As whom the request goes on, and the verb of the constrained right that allows it.
    pub fn impersonate(&self, user: crate::UserInfo, constraint: Option<String>) {
        let mut event = self.event.lock();
        event.impersonated_user = Some(user);
        event.authentication_metadata = constraint.map(|verb| crate::AuthenticationMetadata {
            impersonation_constraint: verb,
        });
    }

    /// What was sent. Its metadata tell which object is meant, as far as the path did not.
    pub fn request_object(&self, tree: &Value) {
        let mut event = self.event.lock();
        if let Some(reference) = &mut event.object_ref {
            let fill = |own: &mut String, field: &str| {
                if own.is_empty()
                    && let Some(text) = tree["metadata"][field].as_str()
                {
                    text.clone_into(own);
                }
            };
            fill(&mut reference.namespace, "namespace");
            fill(&mut reference.name, "name");
            fill(&mut reference.uid, "uid");
            fill(&mut reference.resource_version, "resourceVersion");
        }
        if self.ruling.level >= Level::Request {
            event.request_object = self.raw(tree);
        }
    }

    /// What was sent, when it is no object, such as a patch.
    pub fn request_body(&self, tree: &Value) {
        if self.ruling.level >= Level::Request {
            self.event.lock().request_object = self.raw(tree);
        }
    }

    /// What was answered.
    pub fn response_object(&self, tree: &Value) {
        if self.ruling.level == Level::RequestResponse {
            self.event.lock().response_object = self.raw(tree);
        }
    }

    /// How the request ended: the code, and the fields of a Status if that was the answer.
    pub fn response_status(&self, code: u16, status: Option<&Value>) {
        let mut shown = json!({"metadata": {}});
        for field in ["status", "message", "reason", "details"] {
            if let Some(value) = status.and_then(|status| status.get(field)) {
                shown[field] = value.clone();
            }
        }
        shown["code"] = code.into();
        self.event.lock().response_status = Some(shown);
    }

    /// Sends what is known to the backends, unless the policy omits this stage.
    pub fn stage(&self, stage: Stage) {
        if matches!(stage, Stage::ResponseComplete | Stage::Panic)
            && self.ended.swap(true, Ordering::AcqRel)
        {
            return;
        }
        if self.ruling.omits(stage) {
            return;
        }
        let mut event = self.event.lock();
        event.stage = stage;
        event.stage_timestamp = match stage {
            Stage::RequestReceived => event.request_received_timestamp.clone(),
            _ => meta::time::now_micro(),
        };
        let kept = self.audit.send(&event);
        if !kept && stage == Stage::RequestReceived {
            self.lost.store(true, Ordering::Relaxed);
        }
    }

    fn raw(&self, tree: &Value) -> Option<Box<RawValue>> {
        if !self.ruling.omit_managed_fields {
            return serde_json::value::to_raw_value(tree).ok();
        }
        let mut tree = tree.clone();
        let forget = |object: &mut Value| {
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
            }
        };
        forget(&mut tree);
        for item in tree
            .get_mut("items")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            forget(item);
        }
        for row in tree
            .get_mut("rows")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if let Some(object) = row.get_mut("object") {
                forget(object);
            }
        }
        serde_json::value::to_raw_value(&tree).ok()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.ended.load(Ordering::Acquire) {
            return;
        }
        if std::thread::panicking() {
            let status = json!({"status": "Failure", "reason": "InternalError",
                "message": "APIServer panic'd"});
            self.response_status(500, Some(&status));
            return self.stage(Stage::Panic);
        }
        if self.event.lock().response_status.is_none() {
            let status = json!({"status": "Success", "message": "Connection closed early"});
            self.response_status(200, Some(&status));
        }
        self.stage(Stage::ResponseComplete);
    }
}
