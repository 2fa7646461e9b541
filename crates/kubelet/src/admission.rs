//! Whether this node takes a pod: what the scheduler has looked at is looked at
//! again, for pods also come past it, and a node may have changed meanwhile.
//! Critical pods put others out where that makes room for them.

mod fit;
mod preempt;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Toleration};
use node_api::ContainerState;

use crate::inbox::Eviction;
use crate::node::labels;
use crate::places;
use crate::pod::PodExt;
use crate::resources::{self, Qos};
use crate::sandbox_config::forbidden_sysctl;
use crate::shared::Shared;
use crate::shutdown;
use crate::status::{EVICTED, PREEMPTED};

/// How long those who make room have beyond what they want themselves.
const PREEMPTION_SLACK: Duration = Duration::from_secs(10);

/// Reason and message.
pub(crate) type Rejection = (String, String);

/// Grants a new pod what it asks for, or says why it cannot run here.
pub(crate) async fn admit(shared: &Arc<Shared>, pod: &Pod) -> Result<(), Rejection> {
    if shared.config.shutdown.begun.is_raised() {
        let (reason, message) = shutdown::REJECTED;
        return Err((reason.to_owned(), message.to_owned()));
    }
    pressure(shared, pod)?;
    if let Some(name) = forbidden_sysctl(pod, &shared.config) {
        let message = format!("forbidden sysctl: {name:?} not allowlisted");
        return Err(("SysctlForbidden".to_owned(), message));
    }
    places::admit(shared, pod).await?;
    fit::system(pod)?;
    let misfit = misfit(shared, pod).await;
    let allocatable = shared.allocatable();
    let denial = match &misfit {
        Some(_) => shared.allocations.denial(pod.uid(), pod, &allocatable),
        None => {
            let granted = shared.allocations.grant(pod.uid(), pod, &allocatable);
            match granted {
                Ok(()) => return Ok(()),
                Err(denial) => Some(denial),
            }
        }
    };
    let denial = denial.unwrap_or_default();
    let other = misfit.or_else(|| denial.ports.then(fit::ports));
    if pod.is_critical() {
        return match other {
            Some(other) => Err(other),
            None => make_room(shared, pod, &denial.shortages).await,
        };
    }
    if let Some(shortage) = denial.shortages.first() {
        let reason = format!("OutOf{}", shortage.resource);
        return Err((reason, shortage.to_string()));
    }
    other.map_or(Ok(()), Err)
}

/// No new pod of some kinds is taken while the node is short of something.
fn pressure(shared: &Shared, pod: &Pod) -> Result<(), Rejection> {
    let conditions = shared.pressure.borrow().clone();
    if conditions.is_empty() || pod.is_critical() {
        return Ok(());
    }
    let tolerates = |toleration: &Toleration| {
        let key = toleration.key.as_deref().unwrap_or_default();
        let all = key.is_empty() && toleration.operator.as_deref() == Some("Exists");
        all || key == "node.kubernetes.io/memory-pressure"
    };
    let mut tolerations = pod.spec().tolerations.iter().flatten();
    let only_memory = conditions.iter().all(|one| *one == "MemoryPressure");
    if only_memory && (resources::qos(pod) != Qos::BestEffort || tolerations.any(tolerates)) {
        return Ok(());
    }
    let list: Vec<_> = conditions.into_iter().collect();
    let message = format!("The node had condition: [{}]. ", list.join(" "));
    Err((EVICTED.to_owned(), message))
}

/// Whether the node is another than the pod wants.
async fn misfit(shared: &Shared, pod: &Pod) -> Option<Rejection> {
    let known = shared.node.get("", &shared.config.node_name);
    let own = || Node {
        metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            name: Some(shared.config.node_name.clone()),
            labels: Some(labels(shared)),
            ..Default::default()
        },
        ..Node::default()
    };
    let node = known.unwrap_or_else(|| Arc::new(own()));
    if fit::selected(pod, &node) {
        return fit::taints(pod, &node);
    }
    // Labels that were just set may not have arrived yet. A static pod does not wait for the API.
    let newest = match pod.is_static() {
        true => None,
        false => {
            let nodes = shared.client.all::<Node>();
            nodes.get(&shared.config.node_name).await.ok()
        }
    };
    match newest.filter(|node| fit::selected(pod, node)) {
        Some(node) => fit::taints(pod, &node),
        None => Some(fit::affinity()),
    }
}

/// Ends less important pods until a critical one has its room.
async fn make_room(
    shared: &Arc<Shared>,
    pod: &Pod,
    shortages: &[crate::allocations::Shortage],
) -> Result<(), Rejection> {
    let running: Vec<Arc<Pod>> = shared
        .pods
        .all()
        .into_iter()
        .filter(|view| view.pod.uid() != pod.uid() && shared.allocations.holds(view.pod.uid()))
        .map(|view| view.pod)
        .collect();
    let missing = shortages
        .iter()
        .map(|shortage| (shortage.resource.as_str(), shortage.missing()))
        .collect();
    let chosen = preempt::choose(pod, &running, missing).map_err(|fault| {
        let message =
            format!("Unexpected error while attempting to recover from admission failure: {fault}");
        ("UnexpectedAdmissionError".to_owned(), message)
    })?;
    for one in &chosen {
        tracing::warn!(pod = one.display(), for_pod = pod.display(), "preempting");
        shared.pods.tell(one.uid(), |news| {
            news.evicted = Some(Eviction {
                reason: PREEMPTED,
                grace_seconds: None,
                message: "Preempted in order to admit critical pod".to_owned(),
            });
        });
    }
    for one in &chosen {
        let most = Duration::from_secs(one.grace_seconds().unsigned_abs()) + PREEMPTION_SLACK;
        if tokio::time::timeout(most, ended(shared, one.uid()))
            .await
            .is_err()
        {
            tracing::warn!(pod = one.display(), "a preempted pod takes long to end");
        }
    }
    // As upstream has it: what was meant for a critical pod is its own, whatever else came by.
    shared.allocations.note(pod.uid(), pod);
    Ok(())
}

/// Completes when nothing of a pod runs any more.
async fn ended(shared: &Shared, uid: &str) {
    let Some(mut shown) = shared.pods.follow(uid) else {
        return;
    };
    let over = |view: &crate::pods::PodView| {
        let terminal = matches!(view.status.phase.as_deref(), Some("Failed" | "Succeeded"));
        let mut all = view.containers.values();
        terminal && all.all(|status| status.state == ContainerState::Exited)
    };
    // An error means that the pod's worker is gone, and the pod with it.
    let _ = shown.wait_for(over).await;
}
