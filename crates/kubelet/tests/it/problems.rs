//! What the kernel says becomes events and conditions of the node.

use std::io::Write;

use kubelet::ProblemMonitor;

use crate::rig::{NODE, Rig, condition, wait};

#[tokio::test]
async fn the_kernels_complaints_are_told() {
    let mut rig = Rig::new().await;
    let kernel_log = rig.folder.path().join("kmsg");
    nix::unistd::mkfifo(&kernel_log, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut log = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&kernel_log)
        .unwrap();
    let mut config = rig.config();
    config.problems.kernel_log = kernel_log;
    config.problems.monitors = vec![ProblemMonitor::kernel()];
    rig.restart_with(config).await;
    let holds = |expected: &'static str| {
        let rig = &rig;
        async move {
            wait(&format!("read-only {expected}"), || {
                let node = rig.api.get(&format!("/api/v1/nodes/{NODE}"))?;
                (condition(&node, "ReadonlyFilesystem") == expected).then_some(())
            })
            .await;
        }
    };
    holds("False").await;
    writeln!(log, "6,1,99999999999999,-;EXT4-fs error (device sda1): x").unwrap();
    writeln!(log, "6,2,99999999999999,-;Remounting filesystem read-only").unwrap();
    holds("True").await;
    wait("events", || {
        let error = rig.api.events_of("Ext4Error");
        let turned = rig.api.events_of("FilesystemIsReadOnly");
        (error == ["EXT4-fs error (device sda1): x"]
            && turned
                == [
                    "Node condition ReadonlyFilesystem is now: True, reason: FilesystemIsReadOnly, \
                     message: \"Remounting filesystem read-only\"",
                ])
        .then_some(())
    })
    .await;
}
