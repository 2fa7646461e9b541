//! Removing containers: the record first, the rest behind it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::answer::{self, Answer, Fault};
use crate::call::Call;
use crate::daemon::{Container, Daemon};
use crate::record::{FILE, Status, parse_moment};

const KILL: i32 = 9;

/// `DELETE /containers/{id}`.
pub(crate) async fn remove(call: Call, name: &str) -> Answer {
    let daemon = &call.daemon;
    if call.query.flag("link") {
        daemon.remove_link(name)?;
        return answer::done();
    }
    let container = daemon.find(name)?;
    let record = container.snapshot();
    let up = record.state.is_up() || record.state.status == Status::Restarting;
    if up && !call.query.flag("force") {
        let what = match record.state.status {
            Status::Paused => "container is paused and must be unpaused first",
            Status::Restarting => {
                "container is restarting: stop the container before removing or force remove"
            }
            _ => "container is running: stop the container before removing or force remove",
        };
        return Err(Fault::conflict(format!(
            "cannot remove container \"{}\": {what}",
            name
        )));
    }
    if up {
        match daemon
            .stop_container(&container, KILL, Some(Duration::from_secs(10)), true)
            .await
        {
            // It ended meanwhile.
            Err(fault) if fault.status == http::StatusCode::NOT_MODIFIED => {}
            other => other?,
        }
    }
    daemon.forget(&container, call.query.flag("v")).await?;
    let disposal = container.disposal.lock().await;
    daemon.discard(&container);
    drop(disposal);
    answer::done()
}

/// `POST /containers/prune`.
pub(crate) async fn prune(call: Call) -> Answer {
    let filters = call.query.filters()?;
    filters.only(&["until", "label", "label!"])?;
    let until = match filters.get("until").first() {
        None => i64::MAX,
        Some(text) => until_moment(text)?,
    };
    let daemon = &call.daemon;
    let (mut gone, mut bytes) = (Vec::new(), 0);
    for container in daemon.all() {
        let record = container.snapshot();
        let idle = matches!(
            record.state.status,
            Status::Created | Status::Exited | Status::Dead
        );
        if !idle || record.created > until || !filters.labels(&record.config.labels) {
            continue;
        }
        bytes += crate::volumes::folder_bytes(&container.folder.join(crate::translate::WRITABLE));
        daemon.forget(&container, false).await?;
        let disposal = container.disposal.lock().await;
        daemon.discard(&container);
        drop(disposal);
        gone.push(record.id);
    }
    answer::ok(&json!({"ContainersDeleted": gone, "SpaceReclaimed": bytes}))
}

/// A moment, or how long ago in Go's writing (`24h`, `1h30m`).
pub(crate) fn until_moment(text: &str) -> Result<i64, Fault> {
    if let Some(moment) = parse_moment(text) {
        return Ok(moment);
    }
    let wrong = || Fault::bad(format!("invalid until: {text:?}"));
    let (mut seconds, mut number) = (0.0, String::new());
    for c in text.chars() {
        if c.is_ascii_digit() || c == '.' {
            number.push(c);
            continue;
        }
        let value: f64 = number.parse().map_err(|_| wrong())?;
        number.clear();
        seconds += value
            * match c {
                'h' => 3600.0,
                'm' => 60.0,
                's' => 1.0,
                _ => return Err(wrong()),
            };
    }
    if !number.is_empty() || text.is_empty() {
        return Err(wrong());
    }
    Ok(crate::record::now() - (seconds * 1e9) as i64)
}

impl Daemon {
    /// Takes a container that is not up from the records; with `volumes` also those that came with it.
    pub(crate) async fn forget(
        &self,
        container: &Arc<Container>,
        volumes: bool,
    ) -> Result<(), Fault> {
        let _change = container.change.lock().await;
        let record = container.snapshot();
        if container.progress.borrow().removed {
            return Ok(());
        }
        container.interrupt.notify_waiters();
        std::fs::remove_file(container.folder.join(FILE))?;
        self.containers.write().remove(&record.id);
        self.execs.forget(&record.id);
        container.waiting.lock().clear();
        if volumes {
            for point in record.mounts.iter().filter(|point| point.kind == "volume") {
                let anonymous = self
                    .volumes
                    .get(&point.name)
                    .is_some_and(|v| v.is_anonymous());
                if anonymous && let Err(fault) = self.volumes.remove(&point.name) {
                    tracing::warn!(%fault, volume = point.name, "volume not removed");
                }
            }
        }
        self.events.container(&record, "destroy", &[]);
        container
            .progress
            .send_modify(|progress| progress.removed = true);
        Ok(())
    }

    /// Removes the files of a container that no record names any more.
    pub(crate) fn discard(&self, container: &Container) {
        let removed = match crate::quotas::remove(&container.folder, crate::translate::WRITABLE) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        if let Err(error) = removed {
            tracing::warn!(%error, id = container.id, "files of a container not removed");
        }
        if let Err(error) = self.engine.release_image(&container.id) {
            tracing::warn!(%error, id = container.id, "image not released");
        }
    }
}
