//! Pods with devices, by a plugin at the kubelet's socket.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::Crew;
use futures::{FutureExt, StreamExt};
use placement::grpc::{self, Answer, Caller, Dispatch};
use placement::wire::device_plugin::*;
use prost::Message;
use serde_json::{Value, json};
use tokio::sync::watch;
use tonic::Status;

use crate::rig::{IMAGE, NODE, Rig, pod_path, wait};

const RESOURCE: &str = "example.com/card";

type Healths = watch::Sender<Vec<(&'static str, &'static str)>>;

/// Serves a plugin until the crew stops.
async fn plug_in(folder: &Path, healths: Healths, crew: &Crew) {
    let listener = base::listener::replace(&folder.join("card.sock")).unwrap();
    let dispatch: Dispatch = Arc::new(move |path, body| {
        let answer = answer(&healths, &path, body);
        async move { answer }.boxed()
    });
    crew.spawn("plugin", grpc::serve(dispatch, listener, crew.stop()));
    let kubelet = Caller::connect(&folder.join("kubelet.sock")).await.unwrap();
    let request = RegisterRequest {
        version: VERSION.into(),
        endpoint: "card.sock".into(),
        resource_name: RESOURCE.into(),
        options: None,
    };
    kubelet.call::<_, Empty>(REGISTER, request).await.unwrap();
}

fn answer(healths: &Healths, path: &str, body: bytes::Bytes) -> Result<Answer, Status> {
    match path {
        GET_OPTIONS => Ok(grpc::one(&DevicePluginOptions::default())),
        LIST_AND_WATCH => {
            let mut seen = healths.subscribe();
            seen.mark_changed();
            let lists = futures::stream::unfold(seen, |mut seen| async move {
                seen.changed().await.ok()?;
                let now = seen.borrow_and_update().clone();
                let devices = now.into_iter().map(|(id, health)| Device {
                    id: id.into(),
                    health: health.into(),
                    topology: None,
                });
                let list = ListAndWatchResponse {
                    devices: devices.collect(),
                };
                Some((Ok(list.encode_to_vec().into()), seen))
            });
            Ok(lists.boxed())
        }
        ALLOCATE => {
            let request: AllocateRequest = grpc::take(body)?;
            let ids = request.container_requests[0].device_ids.join(",");
            let device = DeviceSpec {
                container_path: "/dev/card".into(),
                host_path: "/dev/null".into(),
                permissions: "rw".into(),
            };
            let response = ContainerAllocateResponse {
                envs: [("CARDS".to_owned(), ids)].into(),
                devices: vec![device],
                ..ContainerAllocateResponse::default()
            };
            Ok(grpc::one(&AllocateResponse {
                container_responses: vec![response],
            }))
        }
        other => Err(Status::unimplemented(other)),
    }
}

fn wants(count: u32) -> Value {
    json!({"containers": [{
        "name": "main", "image": IMAGE, "command": ["run", "$(CARDS)"],
        "resources": {"limits": {(RESOURCE): count.to_string()}},
    }]})
}

async fn wait_node(rig: &Rig, capacity: &str, allocatable: &str) {
    wait("cards of the node", || {
        let node = rig.api.get(&format!("/api/v1/nodes/{NODE}"))?;
        let status = &node["status"];
        let same = status["capacity"][RESOURCE] == capacity
            && status["allocatable"][RESOURCE] == allocatable;
        same.then_some(())
    })
    .await;
}

#[tokio::test]
async fn pods_run_with_the_devices_they_ask_for() {
    let mut rig = Rig::new().await;
    let folder = rig.folder.path().join("kubelet/device-plugins");
    let (plugin, healths) = (Crew::new(), Healths::default());
    healths.send_replace(vec![("a", HEALTHY), ("b", HEALTHY)]);
    plug_in(&folder, healths.clone(), &plugin).await;
    wait_node(&rig, "2", "2").await;
    rig.create("one", wants(1));
    rig.wait_phase("one", "Running").await;
    let running = rig.runtime.running_of("one").unwrap().config;
    assert_eq!(running.envs[0], ("CARDS".to_owned(), "a".to_owned()));
    assert_eq!(running.command, ["run", "a"]);
    assert_eq!(running.devices[0].container_path, Path::new("/dev/card"));
    let health = |value: &str| {
        let expected =
            json!([{"name": RESOURCE, "resources": [{"resourceID": "a", "health": value}]}]);
        move |pod: &Value| {
            pod["status"]["containerStatuses"][0]["allocatedResourcesStatus"] == expected
        }
    };
    rig.wait_pod("one", "well", health("Healthy")).await;
    healths.send_replace(vec![("a", "Unhealthy"), ("b", HEALTHY)]);
    rig.wait_pod("one", "unwell", health("Unhealthy")).await;
    wait_node(&rig, "2", "1").await;
    // More than there are: the pod cannot run here.
    rig.create("two", wants(2));
    let refused = rig.wait_phase("two", "Failed").await;
    assert_eq!(refused["status"]["reason"], "UnexpectedAdmissionError");
    assert_eq!(
        refused["status"]["message"],
        "Pod was rejected: Allocate failed due to requested number of devices unavailable for \
         example.com/card. Requested: 2, Available: 1, which is unexpected"
    );
    // Another process of ours knows whose device it is, before the plugin is back.
    let mut config = rig.config();
    config.placement.plugin_grace = Duration::ZERO;
    rig.restart_with(config).await;
    rig.wait_pod("one", "well again", health("Healthy")).await;
    wait_node(&rig, "0", "0").await;
    plugin.stop().raise();
    plugin.finished().await.unwrap();
    rig.delete("one", 1);
    wait("removal", || {
        rig.api.get(&pod_path("one")).is_none().then_some(())
    })
    .await;
    rig.create("late", wants(1));
    let refused = rig.wait_phase("late", "Failed").await;
    assert_eq!(refused["status"]["reason"], "OutOfexample.com/card");
}
