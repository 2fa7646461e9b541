//! How a plugin comes in: it registers, is configured, and learns what there is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use node_api::ContainerState;
use prost::Message as _;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use crate::describe;
use crate::link::{Incoming, Link, RUNTIME_SERVICE, code};
use crate::merge::Updates;
use crate::plugins::{Plugin, Plugins, REQUEST_TIMEOUT};
use crate::wire::{self, Event};

/// How long a plugin may take to register, and to learn what there is.
pub(crate) const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(5);
/// The version of the interface that we speak.
const NRI_VERSION: &str = "v0.12.1";
/// Bytes of pods and containers after which another message is begun.
const PART_BYTES: usize = 2 << 20;

/// What is known of a plugin that we have started ourselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) index: String,
    pub(crate) base: String,
    pub(crate) config: String,
}

impl Plugins {
    /// Attends to a plugin until it goes; `ready` is told when it is one of ours, and dropped if it
    /// does not become one.
    pub(crate) async fn connected(
        &self,
        stream: UnixStream,
        given: Option<Given>,
        ready: Option<oneshot::Sender<()>>,
    ) {
        let (link, line, calls) = Link::new(stream);
        let link = Arc::new(link);
        let attend = async {
            let ended = self.attend(&link, calls, given, ready).await;
            link.close();
            ended
        };
        let (carried, attended) = tokio::join!(link.run(line), attend);
        self.remove(&link);
        if let Err(error) = carried {
            tracing::info!(%error, "the connection of an NRI plugin broke");
        }
        if let Err(error) = attended {
            tracing::warn!(error, "an NRI plugin was not let in");
        }
    }

    async fn attend(
        &self,
        link: &Arc<Link>,
        mut calls: mpsc::Receiver<Incoming>,
        given: Option<Given>,
        ready: Option<oneshot::Sender<()>>,
    ) -> Result<(), String> {
        let registered = registered(link, &mut calls, given);
        let registered = tokio::time::timeout(REGISTRATION_TIMEOUT, registered).await;
        let given = registered.map_err(|_| "plugin registration timed out")??;
        let events = self.configure(link, &given).await?;
        let plugin = Arc::new(Plugin {
            index: given.index,
            base: given.base,
            events,
            link: Arc::clone(link),
        });
        self.synchronize(&plugin).await?;
        tracing::info!(
            plugin = plugin.name(),
            "NRI plugin connected and synchronized"
        );
        if let Some(ready) = ready {
            // Whoever started it may have ended.
            let _ = ready.send(());
        }
        while let Some(call) = calls.recv().await {
            self.serve(link, call).await;
        }
        tracing::info!(plugin = plugin.name(), "NRI plugin gone");
        Ok(())
    }

    /// Returns what it wants to be told of.
    async fn configure(&self, link: &Link, given: &Given) -> Result<i32, String> {
        let (runtime_name, runtime_version) = self.engine.version();
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let request = wire::ConfigureRequest {
            config: given.config.clone(),
            runtime_name,
            runtime_version,
            registration_timeout: millis(REGISTRATION_TIMEOUT),
            request_timeout: millis(REQUEST_TIMEOUT),
            nri_version: NRI_VERSION.to_owned(),
        };
        let answer = link.call("Configure", &request, REQUEST_TIMEOUT).await;
        let answer: wire::ConfigureResponse =
            answer.map_err(|error| format!("failed to configure plugin: {error}"))?;
        match answer.events {
            0 => Ok(Event::ALL),
            events if events & !Event::ALL != 0 => Err(format!(
                "invalid plugin events: {:#x}",
                events & !Event::ALL
            )),
            events => Ok(events),
        }
    }

    /// Tells a plugin what there is, and takes it in. Nothing is made meanwhile, so that it misses
    /// nothing.
    async fn synchronize(&self, plugin: &Arc<Plugin>) -> Result<(), String> {
        let _door = self.shut_door().await;
        let requests = parts(self.pods().await?, self.containers().await?);
        let mut updates = Vec::new();
        for request in requests {
            let more = request.more;
            let answer = (plugin.link).call("Synchronize", &request, REGISTRATION_TIMEOUT);
            let answer: wire::SynchronizeResponse = answer
                .await
                .map_err(|error| format!("failed to synchronize plugin: {error}"))?;
            if answer.more != more || (more && !answer.update.is_empty()) {
                return Err("plugin does not handle split sync requests".to_owned());
            }
            updates.extend(answer.update);
        }
        self.add(Arc::clone(plugin));
        self.apply_some(Updates(updates)).await;
        Ok(())
    }

    async fn pods(&self) -> Result<Vec<wire::PodSandbox>, String> {
        let all = self.engine.list_pod_sandboxes().await;
        let all = all.map_err(|error| error.to_string())?;
        let shown = all.into_iter().filter(|pod| self.shows(pod));
        Ok(shown
            .map(|pod| describe::pod(&pod, self.engine.sandbox_pid(&pod.id)))
            .collect())
    }

    async fn containers(&self) -> Result<Vec<wire::Container>, String> {
        let pods = self.engine.list_pod_sandboxes().await;
        let pods: BTreeMap<_, _> = (pods.map_err(|error| error.to_string())?.into_iter())
            .map(|pod| (pod.id.clone(), pod))
            .collect();
        let all = self.engine.list_containers().await;
        let mut told = Vec::new();
        for status in all.map_err(|error| error.to_string())? {
            if !(pods.get(&status.sandbox_id)).is_some_and(|pod| self.shows(pod)) {
                continue;
            }
            if status.state == ContainerState::Exited {
                // Its stop is no news.
                self.once(&status.id, || async {}).await;
                continue;
            }
            told.push(self.describe(&status).await);
        }
        Ok(told)
    }

    /// A call of a plugin that is one of ours.
    async fn serve(&self, link: &Link, call: Incoming) {
        if (call.service.as_str(), call.method.as_str()) != (RUNTIME_SERVICE, "UpdateContainers") {
            return refuse(link, &call).await;
        }
        let answer = match wire::UpdateContainersRequest::decode(call.payload) {
            Ok(request) => {
                self.evict(&request.evict).await;
                let failed = self.apply(request.update).await;
                Ok(wire::UpdateContainersResponse { failed })
            }
            Err(_) => Err((code::INVALID_ARGUMENT, "malformed request".to_owned())),
        };
        link.answer(call.stream, answer).await;
    }
}

async fn refuse(link: &Link, call: &Incoming) {
    let known = call.service == RUNTIME_SERVICE
        && ["RegisterPlugin", "UpdateContainers"].contains(&call.method.as_str());
    let fault = match known {
        true => (
            code::FAILED_PRECONDITION,
            format!("{} at the wrong time", call.method),
        ),
        false => (
            code::UNIMPLEMENTED,
            format!("unknown method {}/{}", call.service, call.method),
        ),
    };
    link.answer::<wire::Empty>(call.stream, Err(fault)).await;
}

/// Waits for the first call that a plugin has to make.
async fn registered(
    link: &Link,
    calls: &mut mpsc::Receiver<Incoming>,
    given: Option<Given>,
) -> Result<Given, String> {
    loop {
        let call = calls.recv().await;
        let call = call.ok_or("failed to register plugin, connection closed")?;
        let wanted = (RUNTIME_SERVICE, "RegisterPlugin");
        if (call.service.as_str(), call.method.as_str()) != wanted {
            refuse(link, &call).await;
            continue;
        }
        let identity = match given {
            // Whom we have started we know.
            Some(given) => Ok(given),
            None => identity(call.payload),
        };
        let answer = match &identity {
            Ok(_) => Ok(wire::Empty {}),
            Err(fault) => Err((code::UNKNOWN, fault.clone())),
        };
        link.answer(call.stream, answer).await;
        return identity;
    }
}

fn identity(payload: Bytes) -> Result<Given, String> {
    let request = wire::RegisterPluginRequest::decode(payload);
    let request = request.map_err(|error| error.to_string())?;
    let (index, base) = (request.plugin_idx, request.plugin_name);
    check_index(&index)?;
    check_name(&base)?;
    Ok(Given {
        index,
        base,
        config: String::new(),
    })
}

/// Whether this is an index of a plugin: two digits.
pub(crate) fn check_index(index: &str) -> Result<(), String> {
    match index.len() == 2 && index.bytes().all(|byte| byte.is_ascii_digit()) {
        true => Ok(()),
        false => Err(format!("invalid plugin index {index:?}, must be 2 digits")),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
    match !name.is_empty() && name.bytes().all(fits) {
        true => Ok(()),
        false => Err(format!("invalid plugin name {name:?}")),
    }
}

/// As many messages as it takes; the last one says so.
fn parts(
    pods: Vec<wire::PodSandbox>,
    containers: Vec<wire::Container>,
) -> Vec<wire::SynchronizeRequest> {
    let mut parts = vec![wire::SynchronizeRequest::default()];
    let mut bytes = 0;
    let mut room = |parts: &mut Vec<wire::SynchronizeRequest>, size: usize| {
        if bytes > 0 && bytes + size > PART_BYTES {
            if let Some(last) = parts.last_mut() {
                last.more = true;
            }
            parts.push(wire::SynchronizeRequest::default());
            bytes = 0;
        }
        bytes += size;
        parts.len() - 1
    };
    for pod in pods {
        let part = room(&mut parts, pod.encoded_len());
        parts[part].pods.push(pod);
    }
    for container in containers {
        let part = room(&mut parts, container.encoded_len());
        parts[part].containers.push(container);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_much_is_told_in_parts() {
        let pod = |size: usize| wire::PodSandbox {
            id: "p".repeat(size),
            ..Default::default()
        };
        let sizes = |pods: &[usize]| {
            let parts = parts(pods.iter().map(|size| pod(*size)).collect(), Vec::new());
            let told = parts.iter().map(|part| (part.pods.len(), part.more));
            told.collect::<Vec<_>>()
        };
        assert_eq!(sizes(&[]), [(0, false)]);
        assert_eq!(sizes(&[1, 2]), [(2, false)]);
        let half = PART_BYTES / 2;
        assert_eq!(sizes(&[half, half, 1]), [(1, true), (2, false)]);
        assert_eq!(sizes(&[3 * half, 1]), [(1, true), (1, false)]);
    }

    #[test]
    fn names_are_checked() {
        let with = |index: &str, name: &str| {
            let request = wire::RegisterPluginRequest {
                plugin_name: name.to_owned(),
                plugin_idx: index.to_owned(),
                nri_version: String::new(),
            };
            identity(request.encode_to_vec().into()).is_ok()
        };
        assert!(with("07", "my-plugin_1.0+x"));
        for (index, name) in [
            ("7", "a"),
            ("x7", "a"),
            ("070", "a"),
            ("07", ""),
            ("07", "a b"),
        ] {
            assert!(!with(index, name), "{index} {name}");
        }
    }
}
