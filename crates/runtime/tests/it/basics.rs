//! Starting, ending, failing to start.

use std::time::Duration;

use node_api::{ContainerConfig, ContainerState, RuntimeService};

use crate::host::{Host, log_of};

#[tokio::test]
async fn exit_codes_and_logs() {
    let Some(host) = Host::new().await else { return };
    let (status, log) = host.run("echo hello; echo problem >&2; exit 3").await;
    assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
    let mut lines: Vec<&str> = log.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["stderr F problem", "stdout F hello"]);
    let (status, _) = host.run("exit 0").await;
    assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"));
    assert!(status.started_at > 0 && status.finished_at >= status.started_at);
    let (status, _) = host.run("kill -9 $$; sleep 5").await;
    assert!(status.exit_code == 0 || status.exit_code == 137, "the first process of a namespace is not killed from inside");
    host.close().await;
}
