//! What the kernel says becomes events and conditions of the node.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use kubelet::ProblemMonitor;

use crate::rig::{NODE, Rig, condition, wait};

/// A log that the test writes.
fn kernel_log(rig: &Rig) -> (PathBuf, File) {
    let path = rig.folder.path().join("kmsg");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let log = File::options().read(true).write(true).open(&path).unwrap();
    (path, log)
}

#[tokio::test]
async fn the_kernels_complaints_are_told() {
    let mut rig = Rig::new().await;
    let (kernel_log, mut log) = kernel_log(&rig);
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

#[tokio::test]
async fn kills_for_want_of_the_machines_memory_are_told() {
    let mut rig = Rig::new().await;
    let (kernel_log, mut log) = kernel_log(&rig);
    let mut config = rig.config();
    config.problems.kernel_log = kernel_log;
    config.problems.system_ooms = true;
    rig.restart_with(config).await;
    for line in [
        // A container's own limit comes first and is not told.
        "python invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=937",
        "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=c1,mems_allowed=0,\
         oom_memcg=/kubepods/burstable/pod6a/c1,task_memcg=/kubepods/burstable/pod6a/c1,\
         task=python,pid=8337,uid=0",
        "Memory cgroup out of memory: Killed process 8337 (python) total-vm:13692kB, \
         anon-rss:9100kB, file-rss:5484kB, shmem-rss:0kB, UID:0",
        "stress invoked oom-killer: gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE), order=0",
        "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,\
         global_oom,task_memcg=/user.slice,task=stress,pid=4312,uid=0",
        "Out of memory: Killed process 4312 (stress) total-vm:1948412kB, anon-rss:1943564kB, \
         file-rss:128kB, shmem-rss:0kB, UID:0",
    ] {
        writeln!(log, "3,1,99999999999999,-;{line}").unwrap();
    }
    wait("event", || {
        let told = rig.api.events_of("SystemOOM");
        (!told.is_empty()).then(|| {
            assert_eq!(
                told,
                ["System OOM encountered, victim process: stress, pid: 4312"]
            );
        })
    })
    .await;
}
