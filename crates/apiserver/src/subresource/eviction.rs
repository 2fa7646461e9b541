//! `/eviction`: a deletion that respects disruption budgets.

use std::sync::Arc;

use admission::Operation;
use client::Body;
use http::StatusCode;
use meta::status::Cause;
use meta::{Faults, LabelSelector, Names, Reason, Status};
use serde_json::{Map, Value, json};

use super::binding::set_condition;
use super::face;
use crate::body;
use crate::cache::Entry;
use crate::chain::Call;
use crate::dispatch::no_such_resource;
use crate::registry::Resource;
use crate::respond::{self, Answer};
use crate::server::Core;
use crate::verbs::delete::{DeleteOptions, check_preconditions, delete_object, is_terminating};
use crate::verbs::get::newest;
use crate::verbs::update::{Made, change};
use crate::verbs::write::{Write, place, text};
use crate::webhooks;

/// Seconds after which a client may ask again while a budget is being worked out.
const RETRY_SECONDS: u32 = 10;
/// Evictions noted in a budget that its controller has not seen yet.
const DISRUPTED_PODS_MAX: usize = 2000;
/// The condition that says whether a budget allows anything.
const ALLOWED: &str = "DisruptionAllowed";

/// How older clients call what they send.
const OLD: &[u8] = b"policy/v1beta1";

/// Deletes a pod if its budget allows.
pub(crate) async fn evict(
    core: &Arc<Core>,
    call: &Call,
    pods: &Resource,
    body: Body,
) -> Result<Answer, Status> {
    let bytes = body::read(body).await?;
    let name = call.info.name.as_str();
    let mut write = Write::of(core, call, pods)?;
    let mut eviction = match body::object(call, &face::EVICTION, &bytes) {
        Err(_) if bytes.windows(OLD.len()).any(|part| part == OLD) => {
            let mut eviction = body::object(call, &face::OLD_EVICTION, &bytes)?;
            eviction["apiVersion"] = face::EVICTION.row.names.api_version().into();
            eviction
        }
        read => read?,
    };
    place(write.names(), write.namespace, &mut eviction)?;
    write.dry_run |= eviction.pointer("/deleteOptions/dryRun/0").is_some();
    let kind = ("policy", "v1", "Eviction");
    eviction = webhooks::ask_about(&write, Operation::Create, name, kind, eviction).await?;
    check(call, &eviction)?;
    let mut options = options(call, &eviction)?;
    let pod = newest(core, pods, write.namespace, name).await?;
    // What follows is part of what has been admitted.
    write.is_admitted = true;
    let tree = pod.decode().0;
    if !needs_no_budget(&tree) && spend(&write, &pod, &tree).await? == Spent::Unready {
        // It may have become ready meanwhile.
        options.resource_version = Some(pod.revision.to_string());
    }
    check_preconditions(&write, &pod, &options)?;
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
    if !write.dry_run {
        let marked = respond::decode(&change(&write, name, &mark).await?)?;
        let version = text(&marked, "/metadata/resourceVersion");
        let bound = options.resource_version.take();
        options.resource_version = bound.map(|_| version.to_owned());
    }
    write.subresource = "";
    delete_object(&write, name, &options).await?;
    let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "code": 201});
    respond::value(call, StatusCode::CREATED, &done)
}

/// What is refused of an eviction before anybody looks at the pod.
fn check(call: &Call, eviction: &Value) -> Result<(), Status> {
    let name = call.info.name.as_str();
    if text(eviction, "/metadata/name") != name {
        let text = "name in URL does not match name in Eviction object";
        return Err(Status::bad_request(text));
    }
    let field = "deleteOptions.ignoreStoreReadErrorWithClusterBreakingPotential";
    let pointer = format!("/{}", field.replace('.', "/"));
    if eviction.pointer(&pointer).and_then(Value::as_bool) == Some(true) {
        let mut faults = Faults::new();
        let rule = "can not be set for pod eviction, try after removing the option";
        faults.invalid(field, true, rule);
        return Err(Status::invalid(&face::EVICTION.row.names, name, &faults));
    }
    let asked: Vec<&str> = call.query.all("dryRun").collect();
    let given = eviction.pointer("/deleteOptions/dryRun");
    let given = given.and_then(Value::as_array).into_iter().flatten();
    let given: Vec<&str> = given.filter_map(Value::as_str).collect();
    if !asked.is_empty() && !given.is_empty() && asked != given {
        return Err(Status::bad_request(format!(
            "Non-matching dry-run options in request and content: [{}] and [{}]",
            asked.join(" "),
            given.join(" ")
        )));
    }
    Ok(())
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

/// What became of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spent {
    /// One eviction, or there is no budget.
    One,
    /// Nothing, since the pod is not ready anyway.
    Unready,
}

async fn spend(write: &Write<'_>, pod: &Entry, tree: &Value) -> Result<Spent, Status> {
    let budgets = write
        .core
        .registry
        .now()
        .by_name("poddisruptionbudgets.policy")
        .cloned();
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
        [] => return Ok(Spent::One),
        [budget] => budget,
        _ => {
            return Err(Status::new(
                Reason::Unknown,
                "This pod has more than one PodDisruptionBudget, which the eviction subresource \
                 does not support.",
            ));
        }
    };
    if may_go_unready(&budget.shared_tree().0, tree) {
        return Ok(Spent::Unready);
    }
    let spending = Write {
        resource: &budgets,
        rules: &budgets.row,
        subresource: "status",
        ..*write
    };
    let make = |budget: &Value| spent(budget, pod.name());
    change(&spending, budget.name(), &make).await?;
    Ok(Spent::One)
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
    let allowed = number(budget, "/status/disruptionsAllowed");
    let noted = budget.pointer("/status/disruptedPods");
    let noted = noted.and_then(Value::as_object).map_or(0, Map::len);
    if allowed < 0 {
        return Err(forbidden(name, "pdb disruptions allowed is negative"));
    }
    if noted > DISRUPTED_PODS_MAX {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(forbidden(name, why));
    }
    if allowed == 0 {
        return refused(exhausted(budget), None);
    }
    let mut budget = budget.clone();
    let status = meta::object::map_at(&mut budget, "status");
    status.insert("disruptionsAllowed".into(), (allowed - 1).into());
    let noted = status.entry("disruptedPods").or_insert_with(|| json!({}));
    noted[pod] = meta::time::now().into();
    if allowed == 1 {
        no_more(&mut budget);
    }
    Ok(Made {
        object: budget,
        owned: false,
    })
}

fn forbidden(budget: &str, why: &str) -> Status {
    let names = Names::namespaced("policy", "v1", "PodDisruptionBudget", "poddisruptionbudget");
    Status::forbidden(&names, budget, why)
}

fn allowance(budget: &Value) -> Option<&Value> {
    let conditions = budget.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|own| own["type"] == ALLOWED)
}

/// Why a budget allows nothing now.
fn exhausted(budget: &Value) -> String {
    let name = text(budget, "/metadata/name");
    let desired = number(budget, "/status/desiredHealthy");
    let current = number(budget, "/status/currentHealthy");
    let refusal = allowance(budget).filter(|own| own["status"] == "False");
    let why = refusal.map_or("", |own| text(own, "/message"));
    let reason = refusal.map_or("", |own| text(own, "/reason"));
    let not = format!("The disruption budget {name} does not allow evicting pods currently");
    match (reason, why) {
        ("SyncFailed", why) if !why.is_empty() => format!("{not} because it failed sync: {why}"),
        _ if current <= desired => format!(
            "The disruption budget {name} needs {desired} healthy pods and has {current} currently"
        ),
        (reason, why) if !why.is_empty() => format!("{not} ({reason}): {why}"),
        _ => not,
    }
}

/// Says that the last eviction was allowed.
fn no_more(budget: &mut Value) {
    let before = allowance(budget).filter(|own| own["status"] == "False");
    let since = before
        .and_then(|own| own.get("lastTransitionTime"))
        .cloned();
    let condition = json!({"type": ALLOWED, "status": "False", "reason": "InsufficientPods",
        "message": "", "observedGeneration": number(budget, "/metadata/generation"),
        "lastTransitionTime": since.unwrap_or_else(|| meta::time::now().into())});
    let status = meta::object::map_at(budget, "status");
    let list = status.entry("conditions").or_insert_with(|| json!([]));
    if let Some(list) = list.as_array_mut() {
        match list.iter_mut().find(|own| own["type"] == ALLOWED) {
            Some(own) => *own = condition,
            None => list.push(condition),
        }
    }
}
