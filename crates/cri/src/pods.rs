//! Sandboxes: run, stopped, removed, told about.

use node_api::PodSandboxStatus;
use tonic::Status;

use crate::{Service, convert, missing, refused, wire};

/// Ids of this length are whole; shorter ones are beginnings that people type.
const ID_LENGTH: usize = 64;

impl Service {
    pub(crate) async fn run_sandbox(
        &self,
        request: wire::RunPodSandboxRequest,
    ) -> Result<wire::Identifier, Status> {
        let config = request.config.ok_or_else(|| missing("config"))?;
        let config = convert::sandbox_config(config, request.runtime_handler)?;
        let id = self.runtime.run_pod_sandbox(config).await;
        Ok(wire::Identifier {
            id: id.map_err(refused)?,
        })
    }

    pub(crate) async fn stop_sandbox(&self, request: wire::Named) -> Result<(), Status> {
        let id = self.sandbox_id(request.id).await?;
        self.runtime.stop_pod_sandbox(&id).await.map_err(refused)
    }

    pub(crate) async fn remove_sandbox(&self, request: wire::Named) -> Result<(), Status> {
        let id = self.sandbox_id(request.id).await?;
        self.runtime.remove_pod_sandbox(&id).await.map_err(refused)
    }

    pub(crate) async fn update_sandbox(
        &self,
        request: wire::UpdatePodSandboxResourcesRequest,
    ) -> Result<(), Status> {
        let id = self.sandbox_id(request.pod_sandbox_id).await?;
        let Some(wish) = request.resources else {
            return Ok(());
        };
        let updated = self
            .runtime
            .update_pod_sandbox_resources(&id, convert::resources(wish));
        updated.await.map_err(refused)
    }

    pub(crate) async fn sandbox_status(
        &self,
        request: wire::Named,
    ) -> Result<wire::PodSandboxStatusResponse, Status> {
        let id = self.sandbox_id(request.id).await?;
        let found = self
            .runtime
            .pod_sandbox_status(&id)
            .await
            .map_err(refused)?;
        let info = match request.verbose {
            true => details(&found.config)?,
            false => wire::Map::new(),
        };
        Ok(wire::PodSandboxStatusResponse {
            status: Some(convert::sandbox_status(found)),
            info,
            ..wire::PodSandboxStatusResponse::default()
        })
    }

    pub(crate) async fn list_sandboxes(
        &self,
        request: wire::ListPodSandboxRequest,
    ) -> Result<wire::ListPodSandboxResponse, Status> {
        let filter = request.filter.unwrap_or_default();
        let all = self.runtime.list_pod_sandboxes().await.map_err(refused)?;
        let fits = |sandbox: &PodSandboxStatus| {
            let state: i32 = convert::sandbox_state(sandbox.state).into();
            sandbox.id.starts_with(&filter.id)
                && filter.state.as_ref().is_none_or(|wish| wish.state == state)
                && selects(&filter.label_selector, &sandbox.config.labels)
        };
        let item = |sandbox: PodSandboxStatus| wire::PodSandbox {
            metadata: Some(convert::sandbox_metadata(&sandbox.config)),
            state: convert::sandbox_state(sandbox.state).into(),
            created_at: sandbox.created_at,
            labels: sandbox.config.labels,
            annotations: sandbox.config.annotations,
            runtime_handler: sandbox.config.runtime_handler,
            id: sandbox.id,
        };
        Ok(wire::ListPodSandboxResponse {
            items: all.into_iter().filter(fits).map(item).collect(),
        })
    }

    /// The whole id; one that fits nothing, or more than one, stays as it is.
    pub(crate) async fn sandbox_id(&self, given: String) -> Result<String, Status> {
        if given.is_empty() {
            return Err(missing("sandbox id"));
        }
        if given.len() >= ID_LENGTH {
            return Ok(given);
        }
        let all = self.runtime.list_pod_sandboxes().await.map_err(refused)?;
        Ok(whole(given, all.into_iter().map(|sandbox| sandbox.id)))
    }

    /// The same of a container.
    pub(crate) async fn container_id(&self, given: String) -> Result<String, Status> {
        if given.is_empty() {
            return Err(missing("container id"));
        }
        if given.len() >= ID_LENGTH {
            return Ok(given);
        }
        let all = self.runtime.list_containers().await.map_err(refused)?;
        Ok(whole(given, all.into_iter().map(|container| container.id)))
    }
}

fn whole(given: String, ids: impl Iterator<Item = String>) -> String {
    let mut candidates = ids.filter(|id| id.starts_with(&given));
    match (candidates.next(), candidates.next()) {
        (Some(only), None) => only,
        _ => given,
    }
}

/// Whether labels have all that a selector names.
pub(crate) fn selects(selector: &wire::Map, labels: &wire::Map) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

/// What was asked for, as those who want details see it.
pub(crate) fn details<T: serde::Serialize>(config: &T) -> Result<wire::Map, Status> {
    let text = serde_json::to_string(&serde_json::json!({ "config": config }));
    let text = text.map_err(|error| Status::internal(error.to_string()))?;
    Ok(wire::Map::from([("info".to_owned(), text)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_names_one_thing_or_nothing() {
        let ids = || ["abc", "abd", "x"].map(str::to_owned).into_iter();
        assert_eq!(whole("abc".into(), ids()), "abc");
        assert_eq!(whole("ab".into(), ids()), "ab");
        assert_eq!(whole("x".into(), ids()), "x");
        assert_eq!(whole("y".into(), ids()), "y");
    }
}
