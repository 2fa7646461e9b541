//! Keeps the gate in line with FlowSchemas and PriorityLevelConfigurations, and these with what
//! every cluster has.

use std::sync::Arc;
use std::time::Duration;

use client::Client;
use fairness::defaults;
use futures::future::try_join_all;
use meta::Status;
use serde_json::{Value, json};

use crate::cache::Cache;
use crate::server::Core;

const API_VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";
const SCHEMAS: &str = "flowschemas";
const LEVELS: &str = "prioritylevelconfigurations";
/// Who owns the fields set here.
const SPEC_MANAGER: &str = "api-priority-and-fairness-config-producer-v1";
const STATUS_MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";
const APPLY: &str = "application/apply-patch+yaml";
/// How often seats are lent and taken back, as upstream has it.
const ADJUST_EVERY: Duration = Duration::from_secs(10);
/// Before what failed is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Follows the objects for one server.
pub(crate) struct FlowControl {
    core: Arc<Core>,
    client: Client,
}

impl FlowControl {
    pub(crate) fn new(core: &Arc<Core>, client: Client) -> FlowControl {
        FlowControl {
            core: Arc::clone(core),
            client,
        }
    }

    fn cache(&self, plural: &str) -> Option<Arc<Cache>> {
        let resources = self.core.registry.now();
        let resource = resources.by_name(&format!("{plural}.flowcontrol.apiserver.k8s.io"))?;
        resource.cache.clone()
    }

    fn objects(&self, plural: &str) -> Vec<Value> {
        let Some(cache) = self.cache(plural) else {
            return Vec::new();
        };
        let map = cache.snapshot(0).map;
        map.range("")
            .map(|entry| entry.shared_tree().0.clone())
            .collect()
    }

    /// Writes what is missing, puts what has been changed right, and takes all in.
    pub(crate) async fn sync(&self) -> Result<(), Status> {
        self.core.feed.fresh().await;
        for (plural, wanted) in [
            (LEVELS, defaults::priority_levels()),
            (SCHEMAS, defaults::flow_schemas()),
        ] {
            let found = self.objects(plural);
            // All at once: the store commits what waits together.
            let kept = wanted
                .iter()
                .map(|wanted| self.keep(plural, &found, wanted));
            try_join_all(kept).await?;
        }
        self.core.feed.fresh().await;
        let (schemas, levels) = (self.objects(SCHEMAS), self.objects(LEVELS));
        self.core.fairness.configure(&schemas, &levels);
        let told = schemas.iter().map(|schema| self.tell(schema, &levels));
        try_join_all(told).await.map(drop)
    }

    /// An object of the defaults is there, and is as the defaults have it unless its annotation
    /// says that it is the user's.
    async fn keep(&self, plural: &str, found: &[Value], wanted: &Value) -> Result<(), Status> {
        let name = &wanted["metadata"]["name"];
        let path = format!("/apis/{API_VERSION}/{plural}");
        let manager = format!("?fieldManager={SPEC_MANAGER}");
        let Some(own) = found.iter().find(|own| own["metadata"]["name"] == *name) else {
            let path = format!("{path}{manager}");
            let made = self
                .client
                .send_value(http::Method::POST, &path, wanted)
                .await;
            return match made {
                // Another server was faster.
                Err(status) if !status.is_already_exists() => Err(status),
                _ => Ok(()),
            };
        };
        let annotation = &own["metadata"]["annotations"][defaults::AUTO_UPDATE];
        let text = name.as_str().unwrap_or_default();
        let exempt_level = plural == LEVELS && text == "exempt";
        let mandatory = defaults::MANDATORY.contains(&text) && !exempt_level;
        let users = annotation == "false" && !mandatory;
        if users || covers(&own["spec"], &wanted["spec"]) {
            return Ok(());
        }
        let mut changed = own.clone();
        changed["spec"] = wanted["spec"].clone();
        if annotation.is_null() {
            changed["metadata"]["annotations"][defaults::AUTO_UPDATE] = "true".into();
        }
        let path = format!("{path}/{text}{manager}");
        match self
            .client
            .send_value(http::Method::PUT, &path, &changed)
            .await
        {
            // The next change brings us here again.
            Err(status) if status.is_conflict() || status.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Says in a schema's status whether its level exists.
    async fn tell(&self, schema: &Value, levels: &[Value]) -> Result<(), Status> {
        let level = &schema["spec"]["priorityLevelConfiguration"]["name"];
        let exists = levels.iter().any(|own| own["metadata"]["name"] == *level);
        let level = level.as_str().unwrap_or_default();
        let named = "This FlowSchema references the PriorityLevelConfiguration object named";
        let (status, reason, message) = match exists {
            true => ("False", "Found", format!("{named} {level:?} and it exists")),
            false => (
                "True",
                "NotFound",
                format!("{named} {level:?} but there is no such object"),
            ),
        };
        let conditions = schema
            .pointer("/status/conditions")
            .and_then(Value::as_array);
        let mut conditions = conditions.into_iter().flatten();
        let old = conditions.find(|own| own["type"] == "Dangling");
        let same = |field: &str, value: &str| old.is_some_and(|own| own[field] == value);
        if same("status", status) && same("reason", reason) && same("message", &message) {
            return Ok(());
        }
        let since = match same("status", status) {
            true => old.map_or(Value::Null, |own| own["lastTransitionTime"].clone()),
            false => meta::time::now().into(),
        };
        let name = schema["metadata"]["name"].as_str().unwrap_or_default();
        let body = json!({"apiVersion": API_VERSION, "kind": "FlowSchema",
            "metadata": {"name": name, "uid": schema["metadata"]["uid"]},
            "status": {"conditions": [{"type": "Dangling", "status": status,
                "lastTransitionTime": since, "reason": reason, "message": message}]}});
        let path = format!(
            "/apis/{API_VERSION}/{SCHEMAS}/{name}/status?fieldManager={STATUS_MANAGER}&force=true"
        );
        let bytes = body.to_string().into_bytes();
        match self.client.patch_value(&path, APPLY, bytes).await {
            Err(status) if status.is_conflict() || status.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Follows the objects until told to stop.
    pub(crate) async fn run(self, stop: base::Stop) {
        let (Some(schemas), Some(levels)) = (self.cache(SCHEMAS), self.cache(LEVELS)) else {
            return;
        };
        let (mut schemas, mut levels) = (schemas.growth(), levels.growth());
        let mut adjust = tokio::time::interval(ADJUST_EVERY);
        let mut again = true;
        loop {
            let ended = tokio::select! {
                changed = schemas.changed() => changed.is_err(),
                changed = levels.changed() => changed.is_err(),
                () = tokio::time::sleep(AGAIN_AFTER), if again => false,
                _ = adjust.tick() => {
                    self.core.fairness.adjust();
                    continue;
                }
                () = stop.raised() => true,
            };
            if ended {
                return;
            }
            again = match self.sync().await {
                Ok(()) => false,
                Err(error) => {
                    tracing::warn!(%error, "priority and fairness objects");
                    !stop.is_raised()
                }
            };
        }
    }
}

/// Whether `own` has all that `wanted` has; defaults may have been added.
fn covers(own: &Value, wanted: &Value) -> bool {
    match (own, wanted) {
        (Value::Object(own), Value::Object(wanted)) => wanted
            .iter()
            .all(|(name, value)| own.get(name).is_some_and(|own| covers(own, value))),
        (Value::Array(own), Value::Array(wanted)) => {
            own.len() == wanted.len() && own.iter().zip(wanted).all(|(own, want)| covers(own, want))
        }
        // What is left out means zero.
        (own, wanted) => own == wanted,
    }
}
