//! Devices: registered, counted, given, kept over a crash, unwell, gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::Crew;
use parking_lot::Mutex;
use placement::grpc::Caller;
use placement::wire::pod_resources as api;
use placement::*;

use crate::plugin::{Plugin, device, register};

const RESOURCE: &str = "example.com/card";

struct Node {
    folder: tempfile::TempDir,
    crew: Crew,
    placement: Arc<Placement>,
    told: Arc<Mutex<Vec<String>>>,
}

fn open(
    folder: &tempfile::TempDir,
    grace: Duration,
) -> (Crew, Arc<Placement>, Arc<Mutex<Vec<String>>>) {
    let crew = Crew::new();
    let config = Config {
        plugin_grace: grace,
        machine: Machine::read(&folder.path().join("none"), 1 << 30),
        ..Config::below(folder.path())
    };
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let listener = told.clone();
    let pod = |uid: &str, is_active| KnownPod {
        uid: uid.into(),
        namespace: "default".into(),
        name: format!("pod-{uid}"),
        is_active,
        containers: vec!["main".into()],
    };
    let pods = vec![pod("u1", true), pod("u2", false)];
    let placement = Placement::open(
        &config,
        Arc::new(move || pods.clone()),
        Arc::new(move |uid: &str| listener.lock().push(uid.to_owned())),
        &crew,
    )
    .unwrap();
    (crew, placement, told)
}

impl Node {
    fn new(grace: Duration) -> Node {
        let folder = tempfile::tempdir().unwrap();
        let (crew, placement, told) = open(&folder, grace);
        Node {
            folder,
            crew,
            placement,
            told,
        }
    }

    fn sockets(&self) -> std::path::PathBuf {
        self.folder.path().join("device-plugins")
    }

    /// What is in memory is lost, what is written stays.
    async fn crash(&mut self) {
        self.crew.stop().raise();
        self.crew.finished().await.unwrap();
        let (crew, placement, told) = open(&self.folder, Duration::ZERO);
        (self.crew, self.placement, self.told) = (crew, placement, told);
    }

    async fn wait_amount(&self, capacity: usize, allocatable: usize) {
        let wanted = Amount {
            capacity,
            allocatable,
        };
        let mut changes = self.placement.changes();
        let arrived = async {
            while self.placement.amounts().get(RESOURCE) != Some(&wanted) {
                changes.changed().await.unwrap();
            }
        };
        let arrived = tokio::time::timeout(Duration::from_secs(30), arrived).await;
        assert!(
            arrived.is_ok(),
            "{wanted:?} is not {:?}",
            self.placement.amounts()
        );
    }
}

fn container(name: &str, role: Role, count: i64) -> ContainerWish {
    ContainerWish {
        name: name.into(),
        role,
        milli_cpus: 0,
        memory: BTreeMap::new(),
        extended: [(RESOURCE.to_owned(), count)].into(),
    }
}

fn pod(uid: &str, count: i64) -> PodWish {
    PodWish {
        uid: uid.into(),
        guaranteed: false,
        pod_level: false,
        containers: vec![container("main", Role::Main, count)],
    }
}

#[tokio::test]
async fn a_container_gets_the_devices_its_plugin_prefers() {
    let node = Node::new(Duration::ZERO);
    let plugin = Plugin::start(&node.sockets(), RESOURCE, &["a", "b", "c"]).await;
    node.wait_amount(3, 3).await;
    let wish = pod("u1", 2);
    node.placement.admit(&wish).await.unwrap();
    let options = node
        .placement
        .options("u1", &wish.containers[0])
        .await
        .unwrap();
    assert_eq!(options.envs, [("DEVICES".to_owned(), "b,c".to_owned())]);
    assert_eq!(options.devices[0].container_path, "/dev/x");
    assert_eq!(options.mounts[0].host_path, "/opt/x");
    assert_eq!(options.annotations["x.io/a"], "b");
    assert_eq!(*plugin.calls.lock(), ["allocate b,c", "start b,c"]);
    // A second start of the container asks for no other devices.
    node.placement
        .options("u1", &wish.containers[0])
        .await
        .unwrap();
    assert_eq!(plugin.calls.lock().len(), 3);
    let refused = node.placement.admit(&pod("u2", 2)).await.unwrap_err();
    assert_eq!(refused.reason, "UnexpectedAdmissionError");
    assert_eq!(
        refused.message,
        "Allocate failed due to requested number of devices unavailable for example.com/card. \
         Requested: 2, Available: 1, which is unexpected"
    );
    node.placement.release("u1");
    node.placement.admit(&pod("u2", 3)).await.unwrap();
}

#[tokio::test]
async fn init_containers_leave_their_devices_to_the_others() {
    let node = Node::new(Duration::ZERO);
    let _plugin = Plugin::start(&node.sockets(), RESOURCE, &["a", "b", "c"]).await;
    node.wait_amount(3, 3).await;
    let wish = PodWish {
        containers: vec![
            container("first", Role::Init, 2),
            container("proxy", Role::Sidecar, 1),
            container("main", Role::Main, 2),
        ],
        ..pod("u1", 0)
    };
    node.placement.admit(&wish).await.unwrap();
    let ids = |name: &str| -> Vec<String> {
        let held = node.placement.held("u1", name).into_iter();
        held.map(|device| device.id).collect()
    };
    assert_eq!(ids("first"), ["b", "c"]);
    assert_eq!(ids("proxy"), ["b"]);
    assert_eq!(ids("main"), ["a", "c"]);
}

#[tokio::test]
async fn allocations_survive_a_crash() {
    let mut node = Node::new(Duration::from_secs(300));
    let plugin = Plugin::start(&node.sockets(), RESOURCE, &["a", "b"]).await;
    node.wait_amount(2, 2).await;
    node.placement.admit(&pod("u1", 1)).await.unwrap();
    let before = node.placement.held("u1", "main");
    node.crash().await;
    assert_eq!(node.placement.held("u1", "main"), before);
    // Until the plugin is back there are no devices for anybody else.
    node.wait_amount(0, 0).await;
    assert!(node.placement.admit(&pod("u2", 1)).await.is_err());
    plugin.stop().await;
    let plugin = Plugin::start(&node.sockets(), RESOURCE, &["a", "b"]).await;
    node.wait_amount(2, 2).await;
    node.placement.admit(&pod("u2", 1)).await.unwrap();
    assert_eq!(*plugin.calls.lock(), ["allocate a"]);
    node.placement.retain(|uid| uid == "u2");
    assert_eq!(node.placement.held("u1", "main"), []);
}

#[tokio::test]
async fn unwell_devices_are_not_given_and_their_pods_are_told() {
    let node = Node::new(Duration::ZERO);
    let plugin = Plugin::start(&node.sockets(), RESOURCE, &["a", "b"]).await;
    node.wait_amount(2, 2).await;
    node.placement.admit(&pod("u1", 1)).await.unwrap();
    plugin.devices.send_replace(vec![
        device("a", "Healthy", None),
        device("b", "Unhealthy", None),
    ]);
    node.wait_amount(2, 1).await;
    assert!(!node.placement.held("u1", "main")[0].healthy);
    assert_eq!(*node.told.lock(), ["u1"]);
    node.placement.admit(&pod("u2", 1)).await.unwrap();
    assert_eq!(node.placement.held("u2", "main")[0].id, "a");
    plugin.stop().await;
    node.wait_amount(0, 0).await;
    let refused = node.placement.admit(&pod("u3", 1)).await.unwrap_err();
    assert!(
        refused
            .message
            .contains("cannot allocate unregistered device"),
        "{refused}"
    );
    node.placement.retain(|_| false);
    let refused = node.placement.admit(&pod("u3", 1)).await.unwrap_err();
    assert_eq!(refused.reason, "OutOfexample.com/card");
}

#[tokio::test]
async fn a_plugin_that_fails_gives_nothing() {
    let node = Node::new(Duration::ZERO);
    let _plugin = Plugin::start(&node.sockets(), RESOURCE, &["broken"]).await;
    node.wait_amount(1, 1).await;
    let refused = node.placement.admit(&pod("u1", 1)).await.unwrap_err();
    assert!(
        refused
            .message
            .contains("desc = it is broken, which is unexpected"),
        "{refused}"
    );
    assert_eq!(node.placement.held("u1", "main"), []);
    let folder = node.sockets();
    let refused = register(&folder, "v9", "x.sock", RESOURCE)
        .await
        .unwrap_err();
    assert_eq!(
        refused.message(),
        "requested API version \"v9\" is not supported by kubelet. Supported version is [\"v1beta1\"]"
    );
    let refused = register(&folder, "v1beta1", "x.sock", "cpu")
        .await
        .unwrap_err();
    assert_eq!(refused.message(), "the ResourceName \"cpu\" is invalid");
    let refused = register(&folder, "v1beta1", "none.sock", RESOURCE)
        .await
        .unwrap_err();
    assert!(
        refused
            .message()
            .starts_with("failed to dial device plugin")
    );
}

#[tokio::test]
async fn monitors_see_who_has_what() {
    let node = Node::new(Duration::ZERO);
    let devices = vec![
        device("a", "Healthy", Some(0)),
        device("b", "Healthy", None),
    ];
    let _plugin = Plugin::start_with(&node.sockets(), RESOURCE, devices).await;
    node.wait_amount(2, 2).await;
    node.placement.admit(&pod("u1", 2)).await.unwrap();
    let socket = node.folder.path().join("pod-resources/kubelet.sock");
    let caller = Caller::connect(&socket).await.unwrap();
    let list: api::ListPodResourcesResponse = caller.call(api::LIST, api::Empty {}).await.unwrap();
    assert_eq!(list.pod_resources.len(), 1);
    let shown = &list.pod_resources[0];
    assert_eq!(
        (shown.name.as_str(), shown.namespace.as_str()),
        ("pod-u1", "default")
    );
    let devices = &shown.containers[0].devices;
    assert_eq!(devices[0].device_ids, ["a"]);
    assert_eq!(devices[0].topology.as_ref().unwrap().nodes[0].id, 0);
    assert_eq!(devices[1].topology, None);
    let named = |name: &str| api::GetPodResourcesRequest {
        pod_name: name.into(),
        pod_namespace: "default".into(),
    };
    let one: api::GetPodResourcesResponse = caller.call(api::GET, named("pod-u2")).await.unwrap();
    assert_eq!(one.pod_resources.unwrap().containers[0].devices, []);
    let missing = caller
        .call::<_, api::GetPodResourcesResponse>(api::GET, named("x"))
        .await;
    assert_eq!(
        missing.unwrap_err().message(),
        "pod x in namespace default not found"
    );
    let all: api::AllocatableResourcesResponse = caller
        .call(api::GET_ALLOCATABLE, api::Empty {})
        .await
        .unwrap();
    assert_eq!(all.devices.len(), 2);
}
