//! `/eviction`: a deletion that respects disruption budgets.

use std::sync::Arc;

use admission::Operation;
use client::Body;
use http::StatusCode;
use meta::status::Cause;
use meta::{LabelSelector, Reason, Status};
use serde_json::{Value, json};

use super::binding::set_condition;
use crate::body;
use crate::cache::Entry;
use crate::chain::Call;
use crate::dispatch::no_such_resource;
use crate::registry::Resource;
use crate::respond::{self, Answer};
use crate::server::Core;
use crate::verbs::delete::{DeleteOptions, delete_object, is_terminating};
use crate::verbs::get::newest;
use crate::verbs::update::{Made, change};
use crate::verbs::write::{Write, text};
use crate::webhooks;

/// Seconds after which a client may ask again while a budget is being worked out.
const RETRY_SECONDS: u32 = 10;
/// Evictions noted in a budget that its controller has not seen yet.
const DISRUPTED_PODS_MAX: usize = 2000;

/// Deletes a pod if its budget allows.
pub(crate) async fn evict(
    core: &Arc<Core>,
    call: &Call,
    pods: &Resource,
    body: Body,
) -> Result<Answer, Status> {
    let bytes = body::read(body).await?;
    let mut eviction = body::foreign(call, ("policy", "v1", "Eviction"), &bytes)?;
    let name = call.info.name.as_str();
    let own = text(&eviction, "/metadata/name");
    if !own.is_empty() && own != name {
        return Err(Status::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    let mut write = Write::of(core, call, pods)?;
    write.dry_run |= options(call, &eviction)?.dry_run;
    let pod = newest(core, pods, write.namespace, name).await?;
    let kind = ("policy", "v1", "Eviction");
    eviction = webhooks::ask_about(&write, Operation::Create, name, kind, eviction).await?;
    let options = options(call, &eviction)?;
    // What follows is part of what has been admitted.
    write.is_admitted = true;
    let tree = pod.decode().0;
    if !needs_no_budget(&tree) {
        spend(&write, &pod, &tree).await?;
    }
    let mark = |pod: &Value| {
        let mut pod = pod.clone();
        let reason = "EvictionByEvictionAPI";
        set_condition(
            &mut pod,
            "DisruptionTarget",
            "True",
            reason,
            "Eviction API: evicting",
        );
        Ok(Made {
            object: pod,
            owned: false,
        })
    };
    change(&write, name, &mark).await?;
    write.subresource = "";
    delete_object(&write, name, &options).await?;
    let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "code": 201});
    respond::value(call, StatusCode::CREATED, &done)
}

/// How the pod is to be deleted.
fn options(call: &Call, eviction: &Value) -> Result<DeleteOptions, Status> {
    let given = eviction.get("deleteOptions").cloned();
    DeleteOptions::of(call, Some(&given.unwrap_or_else(|| json!({}))))
}

/// Pods that do not run, or go already, are nobody's loss.
fn needs_no_budget(pod: &Value) -> bool {
    let phase = text(pod, "/status/phase");
    matches!(phase, "Succeeded" | "Failed" | "Pending") || is_terminating(pod)
}

async fn spend(write: &Write<'_>, pod: &Entry, tree: &Value) -> Result<(), Status> {
    let budgets = write
        .core
        .registry
        .now()
        .find("policy", "v1", "poddisruptionbudgets");
    let budgets = budgets.ok_or_else(no_such_resource)?;
    let map = budgets.cache()?.snapshot(0).map;
    let prefix = format!("{}/", write.namespace);
    let covers = |budget: &&Arc<Entry>| {
        let tree = budget.shared_tree();
        let Some(selector) = tree.0.pointer("/spec/selector") else {
            return false;
        };
        LabelSelector::from_value(selector)
            .is_ok_and(|selector| selector.matches(|key| pod.label(key)))
    };
    let found: Vec<Arc<Entry>> = map.prefixed(&prefix).filter(covers).cloned().collect();
    let budget = match found.as_slice() {
        [] => return Ok(()),
        [budget] => budget,
        _ => {
            return Err(Status::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource \
                 does not support.",
            ));
        }
    };
    if may_go_unready(&budget.shared_tree().0, tree) {
        return Ok(());
    }
    let spending = Write {
        resource: &budgets,
        subresource: "status",
        ..*write
    };
    let make = |budget: &Value| spent(budget, pod.name());
    change(&spending, budget.name(), &make).await?;
    Ok(())
}

fn number(tree: &Value, pointer: &str) -> i64 {
    tree.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// Whether the pod is not ready, and the budget does not protect such pods now.
fn may_go_unready(budget: &Value, pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let ready = conditions.into_iter().flatten();
    let mut ready = ready.filter(|one| one["type"] == "Ready" && one["status"] == "True");
    if ready.next().is_some() {
        return false;
    }
    match text(budget, "/spec/unhealthyPodEvictionPolicy") {
        "AlwaysAllow" => true,
        _ => {
            let desired = number(budget, "/status/desiredHealthy");
            desired > 0 && number(budget, "/status/currentHealthy") >= desired
        }
    }
}

fn spent(budget: &Value, pod: &str) -> Result<Made, Status> {
    let name = text(budget, "/metadata/name");
    let refused = |message: String, retry: Option<u32>| {
        let text = "Cannot evict pod as it would violate the pod's disruption budget.";
        let mut status = Status::new(Reason::TooManyRequests, text);
        status.retry_after_seconds = retry;
        status.causes.push(Cause {
            reason: "DisruptionBudget".into(),
            message,
            field: String::new(),
        });
        Err(status)
    };
    let generation = number(budget, "/metadata/generation");
    if number(budget, "/status/observedGeneration") < generation {
        let text = format!("The disruption budget {name} is still being processed by the server.");
        return refused(text, Some(RETRY_SECONDS));
    }
    let noted = budget
        .pointer("/status/disruptedPods")
        .and_then(Value::as_object);
    if noted.is_some_and(|noted| noted.len() > DISRUPTED_PODS_MAX) {
        let text = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return refused(text.into(), None);
    }
    let allowed = number(budget, "/status/disruptionsAllowed");
    if allowed <= 0 {
        let desired = number(budget, "/status/desiredHealthy");
        let current = number(budget, "/status/currentHealthy");
        return refused(
            format!(
                "The disruption budget {name} needs {desired} healthy pods and has {current} \
                 currently"
            ),
            None,
        );
    }
    let mut budget = budget.clone();
    let status = meta::object::map_at(&mut budget, "status");
    status.insert("disruptionsAllowed".into(), (allowed - 1).into());
    let noted = status.entry("disruptedPods").or_insert_with(|| json!({}));
    noted[pod] = meta::time::now().into();
    Ok(Made {
        object: budget,
        owned: false,
    })
}
