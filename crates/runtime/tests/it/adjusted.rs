//! What plugins do to containers and pods: looked at before they are made, changed, and refused.

use async_trait::async_trait;
use node_api::{PodSandboxStatus, RuntimeError, RuntimeService, SandboxState};
use runtime::{DeviceNode, DeviceRule, Extras, Gate, SandboxExtras};

use crate::host::Host;

#[tokio::test]
async fn a_container_is_made_as_it_was_drafted_but_for_what_is_changed() {
    let host = Host::new().await;
    let pod = host.pod().await;
    let mut config = host.shell(
        "env | grep -c ^HOSTNAME=; grep -c ' /etc/hosts ' /proc/self/mountinfo; \
         stat -c '%a %u %g %t:%T' /dev/plugged; head -c 1 /dev/plugged | wc -c",
    );
    config.envs.push(("GIVEN".to_owned(), "1".to_owned()));
    let (id, draft) = host.engine().draft_container(&pod, &config).await.unwrap();
    assert!(draft.env.iter().any(|pair| pair == "GIVEN=1"));
    assert!(draft.env.iter().any(|pair| pair.starts_with("HOSTNAME=")));
    assert!(host.engine().list_containers().await.unwrap().is_empty());
    // `/dev/zero`, by another name.
    let node = DeviceNode {
        path: "/dev/plugged".into(),
        kind: 'c',
        major: 1,
        minor: 5,
        mode: 0o640,
        uid: 3,
        gid: 4,
    };
    let extras = Extras {
        id: Some(id.clone()),
        device_nodes: vec![node.clone()],
        device_rules: vec![DeviceRule::character(1, Some(5))],
        without_env: vec!["HOSTNAME".to_owned()],
        without_mounts: vec!["/etc/hosts".into()],
        ..Extras::default()
    };
    let made = host.engine().create_container_with(&pod, config, extras);
    assert_eq!(made.await.unwrap(), id);
    let outline = host.engine().container_outline(&id).await.unwrap();
    assert_eq!(outline.devices, [node]);
    assert_eq!(outline.cgroup, draft.cgroup);
    host.engine().start_container(&id).await.unwrap();
    let status = host.ended(&id).await;
    let log = crate::host::log_of(&status.log_path);
    let said: Vec<_> = (log.lines())
        .filter_map(|line| line.strip_prefix("stdout F "))
        .collect();
    assert_eq!(said, ["0", "0", "640 3 4 1:5", "1"]);
    host.close().await;
}

/// Refuses pods after a look at them.
#[derive(Debug)]
struct Refusal;

#[async_trait]
impl Gate for Refusal {
    async fn pass(&self, sandbox: &PodSandboxStatus, pid: i32) -> Result<(), RuntimeError> {
        assert_eq!(sandbox.state, SandboxState::Ready);
        assert!(std::path::Path::new(&format!("/proc/{pid}/ns/net")).exists());
        Err(RuntimeError::Internal(format!("not {pid}")))
    }
}

#[tokio::test]
async fn a_pod_that_is_refused_leaves_nothing() {
    let host = Host::new().await;
    let extras = SandboxExtras {
        gate: Some(std::sync::Arc::new(Refusal)),
        ..SandboxExtras::default()
    };
    let made = host
        .engine()
        .run_pod_sandbox_with(host.pod_config(), extras);
    let fault = made.await.unwrap_err().to_string();
    let pid = fault.strip_prefix("not ").unwrap();
    // One that has ended has no namespaces, even before it is waited for.
    let namespace = std::fs::read_link(format!("/proc/{pid}/ns/net"));
    assert!(namespace.is_err(), "its supervisor runs");
    assert!(host.engine().list_pod_sandboxes().await.unwrap().is_empty());
    host.close().await;
}
