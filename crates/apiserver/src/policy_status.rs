//! Writes what type checking says into the status of validating policies.

use std::sync::Arc;

use admission::policy::typing::{Kinds, warnings};
use base::Stop;
use client::Client;
use meta::{Names, Object};
use schema::TypeRef;
use serde_json::{Value, json};

use crate::registry::Registry;
use crate::server::Core;

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";

/// Checks each policy once per generation, until told to stop.
pub(crate) async fn run(core: Arc<Core>, client: Client, stop: Stop) {
    use admission::Lookup as _;
    let resource = admission::policy::WATCHES[0];
    let cache = {
        let now = core.registry.now();
        now.by_name(resource).and_then(|own| own.cache.clone())
    };
    let Some(cache) = cache else { return };
    let mut growth = cache.growth();
    loop {
        growth.catch_up();
        for policy in core.lookup.list(resource, "") {
            if is_due(&policy) {
                check(&core, &client, &policy).await;
            }
        }
        tokio::select! {
            grown = growth.changed() => if grown.is_err() { return },
            () = stop.raised() => return,
        }
    }
}

fn is_due(policy: &Object) -> bool {
    let observed = policy
        .0
        .pointer("/status/observedGeneration")
        .and_then(Value::as_i64);
    policy.generation() > observed.unwrap_or(0)
}

async fn check(core: &Core, client: &Client, policy: &Object) {
    let spec = policy.0.get("spec").unwrap_or(&Value::Null);
    let mut checking = json!({});
    let found = warnings(spec, &*core.registry);
    // Null takes away what was said of an earlier generation.
    checking["expressionWarnings"] = if found.is_empty() {
        Value::Null
    } else {
        found.into()
    };
    let status = json!({"observedGeneration": policy.generation(), "typeChecking": checking});
    let body = json!({"metadata": {"uid": policy.uid()}, "status": status}).to_string();
    let path = format!(
        "{POLICIES}/{}/status?fieldManager=validatingadmissionpolicy-status",
        policy.name()
    );
    let written = client
        .patch_value(&path, "application/merge-patch+json", body.into_bytes())
        .await;
    if let Err(error) = written.map(drop)
        && !error.is_not_found()
    {
        tracing::warn!(policy = policy.name(), %error, "cannot write what type checking says");
    }
}

impl Kinds for Registry {
    fn resource(
        &self,
        group: &str,
        version: &str,
        plural: &str,
    ) -> Option<(Names, Option<TypeRef>)> {
        let resource = self.now().find(group, version, plural)?;
        Some((resource.row.names.clone(), resource.ty.clone()))
    }

    fn kind(&self, group: &str, version: &str, kind: &str) -> Option<TypeRef> {
        let now = self.now();
        let found = now
            .of(group, version)?
            .iter()
            .find(|own| own.row.names.kind == kind)?;
        found.ty.clone()
    }
}
