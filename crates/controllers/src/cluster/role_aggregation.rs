//! Fills cluster roles that are made of others, such as `admin`, with the rules of those.

use std::sync::Arc;

use client::{Client, Informer, Key, Patch, WriteOptions};
use futures::future::BoxFuture;
use k8s_openapi::api::rbac::v1::ClusterRole;
use meta::{Object, Status};
use reconcile::{Outcome, Reconcile, feed};
use serde_json::json;

use crate::context::Context;

const NAME: &str = "clusterrole-aggregation-controller";
const WORKERS: usize = 2;

struct Controller {
    client: Client,
    roles: Informer<ClusterRole>,
}

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    let queue = context.queue();
    let controller = Controller {
        client: context.client(NAME),
        roles: context.hub.informer(),
    };
    let roles = controller.roles.clone();
    // Any role may be a part of any that aggregates, and those are few.
    feed(NAME, &controller.roles, &queue, &context.crew, move |_| {
        let all = roles.list();
        let whole = all.iter().filter(|role| role.aggregation_rule.is_some());
        whole.map(|role| Key::of(role.as_ref())).collect()
    });
    let roles = controller.roles.clone();
    context.drive(Arc::new(controller), &queue, WORKERS, async move {
        roles.synced().await;
    });
}

fn tree(role: &ClusterRole) -> Result<Object, Status> {
    serde_json::to_value(role)
        .map(Object)
        .map_err(Status::internal)
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Outcome, Status>> {
        Box::pin(async move {
            let Some(role) = self.roles.get_key(key) else {
                return Ok(Outcome::Done);
            };
            if role.aggregation_rule.is_none() {
                return Ok(Outcome::Done);
            }
            let all = self.roles.list();
            let all: Vec<Object> = all.iter().map(|one| tree(one)).collect::<Result<_, _>>()?;
            let known = tree(&role)?;
            let Some(wanted) = auth::rbac::aggregate(&known, &all) else {
                return Ok(Outcome::Done);
            };
            if wanted == auth::rbac::rules_of(&known) {
                return Ok(Outcome::Done);
            }
            let body = json!({"metadata": {"resourceVersion": role.metadata.resource_version},
                "rules": wanted});
            let api = self.client.all::<ClusterRole>();
            let patch = Patch::Merge(body);
            let written = api
                .patch(&key.name, &patch, &WriteOptions::default())
                .await?;
            self.roles.absorb(written);
            Ok(Outcome::Done)
        })
    }
}
