//! A device plugin.

use std::path::Path;
use std::sync::Arc;

use base::Crew;
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use placement::grpc::{self, Answer, Caller, Dispatch};
use placement::wire::device_plugin::*;
use prost::Message;
use tokio::sync::watch;
use tonic::Status;

pub(crate) struct Plugin {
    pub(crate) devices: watch::Sender<Vec<Device>>,
    pub(crate) calls: Arc<Mutex<Vec<String>>>,
    crew: Crew,
}

pub(crate) fn device(id: &str, health: &str, node: Option<i64>) -> Device {
    Device {
        id: id.into(),
        health: health.into(),
        topology: node.map(|id| TopologyInfo {
            nodes: vec![NumaNode { id }],
        }),
    }
}

impl Plugin {
    /// Serves beside the kubelet's socket, and registers there.
    pub(crate) async fn start(folder: &Path, resource: &str, devices: &[&str]) -> Plugin {
        let devices = devices.iter().map(|id| device(id, HEALTHY, None)).collect();
        Plugin::start_with(folder, resource, devices).await
    }

    pub(crate) async fn start_with(folder: &Path, resource: &str, devices: Vec<Device>) -> Plugin {
        let plugin = Plugin {
            devices: watch::Sender::new(devices),
            calls: Arc::default(),
            crew: Crew::new(),
        };
        let endpoint = format!("{}.sock", resource.replace('/', "-"));
        let listener = base::listener::replace(&folder.join(&endpoint)).unwrap();
        let (devices, calls) = (plugin.devices.clone(), plugin.calls.clone());
        let dispatch: Dispatch = Arc::new(move |path, body| {
            let answer = answer(&devices, &calls, &path, body);
            async move { answer }.boxed()
        });
        let stop = plugin.crew.stop();
        plugin
            .crew
            .spawn("plugin", grpc::serve(dispatch, listener, stop));
        register(folder, VERSION, &endpoint, resource)
            .await
            .unwrap();
        plugin
    }

    pub(crate) async fn stop(self) {
        self.crew.stop().raise();
        self.crew.finished().await.unwrap();
    }
}

pub(crate) async fn register(
    folder: &Path,
    version: &str,
    endpoint: &str,
    resource: &str,
) -> Result<Empty, Status> {
    let kubelet = Caller::connect(&folder.join("kubelet.sock")).await.unwrap();
    let request = RegisterRequest {
        version: version.into(),
        endpoint: endpoint.into(),
        resource_name: resource.into(),
        options: None,
    };
    kubelet.call(REGISTER, request).await
}

fn answer(
    devices: &watch::Sender<Vec<Device>>,
    calls: &Mutex<Vec<String>>,
    path: &str,
    body: bytes::Bytes,
) -> Result<Answer, Status> {
    match path {
        GET_OPTIONS => Ok(grpc::one(&DevicePluginOptions {
            pre_start_required: true,
            get_preferred_allocation_available: true,
        })),
        LIST_AND_WATCH => {
            let mut seen = devices.subscribe();
            seen.mark_changed();
            let lists = futures::stream::unfold(seen, |mut seen| async move {
                seen.changed().await.ok()?;
                let devices = seen.borrow_and_update().clone();
                let bytes = ListAndWatchResponse { devices }.encode_to_vec();
                Some((Ok(bytes.into()), seen))
            });
            Ok(lists.boxed())
        }
        GET_PREFERRED_ALLOCATION => {
            let request: PreferredAllocationRequest = grpc::take(body)?;
            let first = &request.container_requests[0];
            // It likes the last ones best.
            let size = usize::try_from(first.allocation_size).unwrap();
            let liked = first.available_device_ids.iter().rev().take(size);
            let liked = ContainerPreferredAllocationResponse {
                device_ids: liked.cloned().collect(),
            };
            Ok(grpc::one(&PreferredAllocationResponse {
                container_responses: vec![liked],
            }))
        }
        ALLOCATE => {
            let request: AllocateRequest = grpc::take(body)?;
            let ids = request.container_requests[0].device_ids.join(",");
            calls.lock().push(format!("allocate {ids}"));
            if ids.contains("broken") {
                return Err(Status::unknown("it is broken"));
            }
            let response = ContainerAllocateResponse {
                envs: [("DEVICES".to_owned(), ids)].into(),
                mounts: vec![Mount {
                    container_path: "/lib/x".into(),
                    host_path: "/opt/x".into(),
                    read_only: true,
                }],
                devices: vec![DeviceSpec {
                    container_path: "/dev/x".into(),
                    host_path: "/dev/null".into(),
                    permissions: "rw".into(),
                }],
                annotations: [("x.io/a".to_owned(), "b".to_owned())].into(),
                cdi_devices: Vec::new(),
            };
            Ok(grpc::one(&AllocateResponse {
                container_responses: vec![response],
            }))
        }
        PRE_START_CONTAINER => {
            let request: PreStartContainerRequest = grpc::take(body)?;
            calls
                .lock()
                .push(format!("start {}", request.device_ids.join(",")));
            Ok(grpc::one(&Empty {}))
        }
        other => Err(Status::unimplemented(other)),
    }
}
