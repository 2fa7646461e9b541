//! The methods by their names: decode, call, encode.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use grpc::{Answer, Dispatch, take};
use prost::Message;
use tonic::Status;

use crate::Service;

const RUNTIME: &str = "/runtime.v1.RuntimeService/";
const IMAGES: &str = "/runtime.v1.ImageService/";

/// Items in one message of a list that is sent in parts.
const PART_MAX: usize = 256;

/// Whether a call is given up when its caller is gone. The others change what must not stay half
/// changed.
fn ends_with_its_caller(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    matches!(name, "ExecSync" | "PullImage" | "GetContainerEvents")
}

/// Answers calls.
pub(crate) fn dispatcher(service: Arc<Service>) -> Dispatch {
    Arc::new(move |path, body| {
        let service = Arc::clone(&service);
        Box::pin(async move {
            if ends_with_its_caller(&path) {
                return dispatch(&service, &path, body).await;
            }
            // What has begun to change a pod goes on when its caller has gone.
            let work = async move { dispatch(&service, &path, body).await };
            let ended = tokio::spawn(work).await;
            ended.unwrap_or_else(|_| Err(Status::internal("the call did not end")))
        })
    })
}

/// Carries a call out.
async fn dispatch(service: &Arc<Service>, path: &str, body: Bytes) -> Result<Answer, Status> {
    match (path.strip_prefix(RUNTIME), path.strip_prefix(IMAGES)) {
        (Some(name), _) => Box::pin(change(service, name, body)).await,
        (_, Some(name)) => Box::pin(images(service, name, body)).await,
        _ => Err(Status::unimplemented(format!("unknown service of {path}"))),
    }
}

async fn change(service: &Arc<Service>, name: &str, body: Bytes) -> Result<Answer, Status> {
    match name {
        "RunPodSandbox" => one(service.run_sandbox(take(body)?).await?),
        "StopPodSandbox" => one(service.stop_sandbox(take(body)?).await?),
        "RemovePodSandbox" => one(service.remove_sandbox(take(body)?).await?),
        "UpdatePodSandboxResources" => one(service.update_sandbox(take(body)?).await?),
        "CreateContainer" => one(service.create_container(take(body)?).await?),
        "StartContainer" => one(service.start_container(take(body)?).await?),
        "StopContainer" => one(service.stop_container(take(body)?).await?),
        "RemoveContainer" => one(service.remove_container(take(body)?).await?),
        "UpdateContainerResources" => one(service.update_container(take(body)?).await?),
        "ReopenContainerLog" => one(service.reopen_log(take(body)?).await?),
        "ExecSync" => one(service.exec_sync(take(body)?).await?),
        "Exec" => one(service.exec(take(body)?).await?),
        "Attach" => one(service.attach(take(body)?).await?),
        "PortForward" => one(service.port_forward(take(body)?).await?),
        _ => Box::pin(look(service, name, body)).await,
    }
}

async fn look(service: &Arc<Service>, name: &str, body: Bytes) -> Result<Answer, Status> {
    match name {
        "Version" => one(service.version()),
        "Status" => one(service.status(take(body)?).await),
        "RuntimeConfig" => one(service.runtime_config()),
        // The pod network knows its range by itself.
        "UpdateRuntimeConfig" => one(()),
        "PodSandboxStatus" => one(service.sandbox_status(take(body)?).await?),
        "ListPodSandbox" => one(service.list_sandboxes(take(body)?).await?),
        "StreamPodSandboxes" => {
            let all = service.list_sandboxes(take(body)?).await?;
            parts(all.items, |items| crate::wire::ListPodSandboxResponse {
                items,
            })
        }
        "ContainerStatus" => one(service.container_status(take(body)?).await?),
        "ListContainers" => one(service.list_containers(take(body)?).await?),
        "StreamContainers" => {
            let all = service.list_containers(take(body)?).await?;
            let part = |containers| crate::wire::ListContainersResponse { containers };
            parts(all.containers, part)
        }
        "GetContainerEvents" => Ok(crate::events::follow(Arc::clone(service))),
        _ => Box::pin(figures(service, name, body)).await,
    }
}

async fn figures(service: &Arc<Service>, name: &str, body: Bytes) -> Result<Answer, Status> {
    match name {
        "ContainerStats" => one(service.container_stats(take(body)?).await?),
        "ListContainerStats" => one(service.list_container_stats(take(body)?).await?),
        "StreamContainerStats" => {
            let all = service.list_container_stats(take(body)?).await?;
            let part = |stats| crate::wire::ListContainerStatsResponse { stats };
            parts(all.stats, part)
        }
        "PodSandboxStats" => one(service.sandbox_stats(take(body)?).await?),
        "ListPodSandboxStats" => one(service.list_sandbox_stats(take(body)?).await?),
        "StreamPodSandboxStats" => {
            let all = service.list_sandbox_stats(take(body)?).await?;
            let part = |stats| crate::wire::ListPodSandboxStatsResponse { stats };
            parts(all.stats, part)
        }
        "ListMetricDescriptors" => one(crate::metrics::descriptors()),
        "ListPodSandboxMetrics" => one(service.list_metrics().await?),
        "StreamPodSandboxMetrics" => {
            let all = service.list_metrics().await?;
            let part = |pod_metrics| crate::wire::ListPodSandboxMetricsResponse { pod_metrics };
            parts(all.pod_metrics, part)
        }
        other => Err(unknown(other)),
    }
}

async fn images(service: &Arc<Service>, name: &str, body: Bytes) -> Result<Answer, Status> {
    match name {
        "ListImages" => one(service.list_images(take(body)?).await?),
        "StreamImages" => {
            let all = service.list_images(take(body)?).await?;
            parts(all.images, |images| crate::wire::ListImagesResponse {
                images,
            })
        }
        "ImageStatus" => one(service.image_status(take(body)?).await?),
        "PullImage" => one(service.pull_image(take(body)?).await?),
        "RemoveImage" => one(service.remove_image(take(body)?).await?),
        "ImageFsInfo" => one(service.image_fs_info().await?),
        other => Err(unknown(other)),
    }
}

/// Checkpoints are among these.
fn unknown(name: &str) -> Status {
    Status::unimplemented(format!("method {name} is not implemented"))
}

fn one<M: Message>(message: M) -> Result<Answer, Status> {
    Ok(grpc::one(&message))
}

/// A list in messages that no client finds too long.
fn parts<T, M: Message>(items: Vec<T>, message: impl Fn(Vec<T>) -> M) -> Result<Answer, Status> {
    let mut messages = Vec::new();
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        let part = message(items.by_ref().take(PART_MAX).collect());
        messages.push(Ok(Bytes::from(part.encode_to_vec())));
    }
    Ok(futures::stream::iter(messages).boxed())
}
