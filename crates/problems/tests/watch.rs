//! A log that grows, and programs that look.

#![expect(clippy::unwrap_used, reason = "a test fails by its panic")]

use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use problems::{Config, Finding, Monitor, Truth, watch};
use tokio::sync::mpsc;

fn kinds(findings: &[Finding]) -> Vec<(&str, Truth)> {
    let all = findings.iter().map(|finding| match finding {
        Finding::Event { reason, .. } => (reason.as_str(), Truth::True),
        Finding::Condition { kind, state } => (kind.as_str(), state.truth),
    });
    all.collect()
}

async fn next(findings: &mut mpsc::Receiver<Finding>, count: usize) -> Vec<Finding> {
    let mut all = Vec::new();
    while all.len() < count {
        all.push(findings.recv().await.unwrap());
    }
    all
}

#[tokio::test]
async fn the_kernels_log_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let kernel_log = folder.path().join("kmsg");
    nix::unistd::mkfifo(&kernel_log, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Open for both, so that neither side waits for the other.
    let mut log = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&kernel_log)
        .unwrap();
    let config = Config {
        kernel_log,
        ..Config::default()
    };
    let (sender, mut findings) = mpsc::channel(16);
    let watching = tokio::spawn(watch(config, sender));
    let first = next(&mut findings, 2).await;
    let well = [
        ("KernelDeadlock", Truth::False),
        ("ReadonlyFilesystem", Truth::False),
    ];
    assert_eq!(kinds(&first), well);
    // Long after now, whenever the machine was started.
    writeln!(
        log,
        "6,2,99999999999999,-;EXT4-fs error (device sda1)\n SUBSYSTEM=x;EXT4-fs error (no)"
    )
    .unwrap();
    writeln!(
        log,
        "6,3,99999999999999,-;EXT4-fs (sda1): Remounting filesystem read-only"
    )
    .unwrap();
    let found = next(&mut findings, 2).await;
    assert_eq!(
        kinds(&found),
        [
            ("Ext4Error", Truth::True),
            ("ReadonlyFilesystem", Truth::True)
        ]
    );
    let expected = "EXT4-fs error (device sda1)";
    assert!(matches!(&found[0], Finding::Event { message, .. } if message == expected));
    drop(findings);
    watching.await.unwrap();
}

#[tokio::test]
async fn a_log_that_cannot_be_read_is_no_problem() {
    let config = Config {
        kernel_log: "/nowhere/kmsg".into(),
        ..Config::default()
    };
    let (sender, mut findings) = mpsc::channel(16);
    watch(config, sender).await;
    assert_eq!(findings.recv().await, None);
}

#[tokio::test]
async fn programs_say_what_is_wrong_and_when_it_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    std::fs::write(&state, "1").unwrap();
    let program = folder.path().join("check");
    let script = format!(
        "#!/bin/sh\necho it is $1\nexit $(cat {})\n",
        state.display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = program.to_str().unwrap();
    let text = format!(
        r#"{{"plugin": "custom",
        "pluginConfig": {{"invoke_interval": "1s", "timeout": "30s", "max_output_length": 8}},
        "conditions": [{{"type": "ClockProblem", "reason": "ClockIsRight", "message": "clock is right"}}],
        "rules": [
            {{"type": "permanent", "condition": "ClockProblem", "reason": "ClockIsWrong", "path": "{path}", "args": ["wrong"]}},
            {{"type": "temporary", "reason": "ClockWrong", "path": "{path}", "args": ["so"]}}
        ]}}"#
    );
    let config = Config {
        monitors: vec![Monitor::read(&text).unwrap()],
        ..Config::default()
    };
    let (sender, mut findings) = mpsc::channel(16);
    let watching = tokio::spawn(watch(config, sender));
    let first = next(&mut findings, 3).await;
    let expected = [
        ("ClockProblem", Truth::False),
        ("ClockProblem", Truth::True),
        ("ClockWrong", Truth::True),
    ];
    assert_eq!(kinds(&first), expected);
    let Finding::Condition { state: wrong, .. } = &first[1] else {
        panic!("{first:?}");
    };
    assert_eq!(
        (wrong.reason.as_str(), wrong.message.as_str()),
        ("ClockIsWrong", "it is wr")
    );
    std::fs::write(&state, "0").unwrap();
    loop {
        match findings.recv().await.unwrap() {
            Finding::Condition { state, .. } => {
                assert_eq!(
                    (state.truth, state.reason.as_str()),
                    (Truth::False, "ClockIsRight")
                );
                break;
            }
            Finding::Event { reason, .. } => assert_eq!(reason, "ClockWrong"),
        }
    }
    drop(findings);
    watching.await.unwrap();
}
