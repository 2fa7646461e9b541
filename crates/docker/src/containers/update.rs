//! `POST /containers/{id}/update`: other limits, another restart policy.

use serde::Deserialize;
use serde_json::json;

use crate::answer::{self, Answer, Fault};
use crate::call::Call;
use crate::translate;
use crate::wire::{Limits, RestartPolicy};

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Wish {
    #[serde(flatten)]
    limits: Limits,
    restart_policy: Option<RestartPolicy>,
}

pub(crate) async fn update(mut call: Call, name: &str) -> Answer {
    let container = call.daemon.find(name)?;
    let wish: Wish = call.body().await?;
    let _change = container.change.lock().await;
    let record = container.snapshot();
    super::discarded::check(&wish.limits)?;
    super::discarded::refuse(&wish.limits, &call.daemon.able)?;
    let mut limits = record.host.limits.clone();
    merge(&mut limits, wish.limits);
    let rare = super::discarded::rare(&limits)?;
    let swap = limits.memory_swap;
    if limits.memory > 0 && swap > 0 && swap < limits.memory {
        return Err(Fault::conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        ));
    }
    if record.state.is_up() {
        let resources = translate::resources(&limits, record.host.oom_score_adj);
        call.daemon
            .engine
            .update_with(&record.state.inner, resources, rare)
            .await?;
    }
    let record = container.save(true, |record| {
        record.host.limits = limits;
        if let Some(policy) = wish.restart_policy.filter(|policy| !policy.name.is_empty()) {
            record.host.restart_policy = policy;
        }
    })?;
    call.daemon.events.container(&record, "update", &[]);
    answer::ok(&json!({ "Warnings": [] }))
}

/// What is set in `new` wins.
fn merge(old: &mut Limits, new: Limits) {
    let numbers = [
        (&mut old.cpu_shares, new.cpu_shares),
        (&mut old.memory, new.memory),
        (&mut old.nano_cpus, new.nano_cpus),
        (&mut old.cpu_period, new.cpu_period),
        (&mut old.cpu_quota, new.cpu_quota),
        (&mut old.memory_reservation, new.memory_reservation),
        (&mut old.memory_swap, new.memory_swap),
        (&mut old.rt_period, new.rt_period),
        (&mut old.rt_runtime, new.rt_runtime),
    ];
    for (old, new) in numbers {
        if new != 0 {
            *old = new;
        }
    }
    let texts = [
        (&mut old.cpuset_cpus, new.cpuset_cpus),
        (&mut old.cpuset_mems, new.cpuset_mems),
    ];
    for (old, new) in texts {
        if !new.is_empty() {
            *old = new;
        }
    }
    if new.blkio_weight != 0 {
        old.blkio_weight = new.blkio_weight;
    }
    if new.blkio_weight_device.is_some() {
        old.blkio_weight_device = new.blkio_weight_device;
    }
    let rates = [
        (&mut old.blkio_device_read_bps, new.blkio_device_read_bps),
        (&mut old.blkio_device_write_bps, new.blkio_device_write_bps),
        (&mut old.blkio_device_read_iops, new.blkio_device_read_iops),
        (
            &mut old.blkio_device_write_iops,
            new.blkio_device_write_iops,
        ),
    ];
    for (old, new) in rates {
        if new.is_some() {
            *old = new;
        }
    }
    if new.pids_limit.is_some_and(|limit| limit != 0) {
        old.pids_limit = new.pids_limit;
    }
}
