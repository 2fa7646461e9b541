//! Hooks: each at its moment and place, told the state; and what their faults do.

use std::path::Path;

use node_api::{ContainerConfig, ContainerState, Mount, RuntimeService};
use runtime::{Extras, Hook, Hooks, Moment};
use serde_json::json;

use crate::host::Host;

fn shell(script: &str) -> Hook {
    Hook {
        path: "/bin/sh".into(),
        args: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec!["PATH=/bin:/usr/bin".to_owned()],
        timeout: Some(20),
    }
}

fn hooks(list: &[(Moment, Hook)]) -> Hooks {
    let mut hooks = Hooks::default();
    for (moment, hook) in list {
        hooks.add(*moment, hook.clone());
    }
    hooks
}

async fn create(host: &Host, pod: &str, config: ContainerConfig, hooks: Hooks) -> String {
    let extras = Extras {
        hooks,
        ..Extras::default()
    };
    let made = host.engine().create_container_with(pod, config, extras);
    made.await.unwrap()
}

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn hooks_come_at_their_moments() {
    let host = Host::new().await;
    let pod = host.pod().await;
    let told = host.folder.path().join("told");
    std::fs::create_dir(&told).unwrap();
    let note = |name: &str, folder: &Path| {
        let file = folder.join("log");
        let script = format!(
            "echo {name} $(/bin/busybox readlink /proc/self/ns/mnt) $(cat) >> {}",
            file.display()
        );
        shell(&script)
    };
    // Before the root is changed it can be added to, where `config.json` says.
    let root = r#"root=$(sed 's/.*"root":{"path":"\([^"]*\)".*/\1/' config.json)"#;
    let adds = shell(&format!("{root}; echo 7 > $root/number"));
    let all = hooks(&[
        (Moment::Prestart, note("prestart", &told)),
        (Moment::CreateRuntime, note("createRuntime", &told)),
        (Moment::CreateContainer, note("createContainer", &told)),
        (Moment::CreateContainer, adds),
        (
            Moment::StartContainer,
            note("startContainer", Path::new("/told")),
        ),
        (Moment::Poststart, note("poststart", &told)),
        (Moment::Poststart, shell("exit 5")),
        (Moment::Poststop, shell("exit 6")),
        (Moment::Poststop, note("poststop", &told)),
    ]);
    // A program that ends sooner has no pid that could be told.
    let waits = "until /bin/busybox grep -q poststart /told/log; do sleep 0.01; done";
    let mut config = host.shell(&format!("cat /number; {waits}; echo program >> /told/log"));
    config
        .annotations
        .insert("vendor".to_owned(), "x".to_owned());
    config.mounts.push(Mount {
        container_path: "/told".into(),
        host_path: told.clone(),
        ..Mount::default()
    });
    let id = create(&host, &pod, config, all).await;
    host.engine().start_container(&id).await.unwrap();
    let status = host.ended(&id).await;
    assert_eq!(status.exit_code, 0, "{}", status.message);
    host.engine().remove_container(&id).await.unwrap();
    let mut said = lines(&told.join("log"));
    // The program and the hook after its start run side by side.
    said.retain(|line| line != "program");
    let ours = std::fs::read_link("/proc/self/ns/mnt").unwrap();
    let ours = ours.display().to_string();
    let expected = [
        ("prestart", true, "creating"),
        ("createRuntime", true, "creating"),
        ("createContainer", false, "creating"),
        ("startContainer", false, "created"),
        ("poststart", true, "running"),
        ("poststop", true, "stopped"),
    ];
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (line, (name, is_outside, state)) in said.iter().zip(expected) {
        let (moment, rest) = line.split_once(' ').unwrap();
        let (namespace, told) = rest.split_once(' ').unwrap();
        assert_eq!((moment, namespace == ours), (name, is_outside), "{line}");
        let told: serde_json::Value = serde_json::from_str(told).unwrap();
        assert_eq!(told["status"], state, "{line}");
        assert_eq!(told["id"], id.as_str(), "{line}");
        assert_eq!(told["annotations"]["vendor"], "x", "{line}");
        let inside = ["createContainer", "startContainer"].contains(&name);
        let pid = told["pid"].as_i64();
        assert_eq!(pid == Some(1), inside, "{line}");
        assert_eq!(pid.is_none(), name == "poststop", "{line}");
    }
    host.close().await;
}

/// A file of this machine's devices, as long as it is needed.
struct Devices(std::path::PathBuf);

impl Devices {
    fn new(host: &Host, spec: &serde_json::Value) -> Devices {
        let folder = Path::new("/var/run/cdi");
        std::fs::create_dir_all(folder).unwrap();
        let unique = host.cgroup_root.trim_start_matches('/');
        let path = folder.join(format!("{unique}.json"));
        std::fs::write(&path, spec.to_string()).unwrap();
        Devices(path)
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
        // It stays where others have files in it.
        let _ = std::fs::remove_dir("/var/run/cdi");
    }
}

#[tokio::test]
async fn devices_bring_hooks_along() {
    let host = Host::new().await;
    let pod = host.pod().await;
    let told = host.folder.path().join("told");
    let hook = |moment: &str, script: &str| {
        let script = format!("{script} && echo {moment} >> {}", told.display());
        json!([{"hookName": moment, "path": "/bin/sh", "args": ["sh", "-c", script],
            "env": ["PATH=/bin:/usr/bin"], "timeout": 20}])
    };
    // The container's mounts are seen by its first process.
    let looks = r#"pid=$(sed 's/.*"pid":\([0-9]*\).*/\1/');
        root=$(sed 's/.*"root":{"path":"\([^"]*\)".*/\1/' config.json);
        test -x "/proc/$pid/root$root/bin/busybox""#;
    let unique = host.cgroup_root.trim_start_matches('/').to_lowercase();
    let kind = format!("sampan.test/{unique}");
    let spec = json!({
        "cdiVersion": "0.6.0", "kind": kind,
        "containerEdits": {"hooks": hook("prestart", looks)},
        "devices": [{"name": "one", "containerEdits": {"hooks": hook("createContainer", "true")}}],
    });
    let _devices = Devices::new(&host, &spec);
    let mut config = host.shell("true");
    config.cdi_devices = vec![format!("{kind}=one")];
    let id = host.start(&pod, config).await;
    assert_eq!(host.ended(&id).await.exit_code, 0);
    assert_eq!(lines(&told), ["prestart", "createContainer"]);
    host.close().await;
}

#[tokio::test]
async fn a_hook_that_fails_ends_the_start() {
    let host = Host::new().await;
    let pod = host.pod().await;
    let stopped = host.folder.path().join("stopped");
    let late = Hook {
        timeout: Some(1),
        ..shell("sleep 60")
    };
    let absent = Hook {
        path: "/no/such".into(),
        ..Hook::default()
    };
    let cases = [
        (
            Moment::CreateRuntime,
            shell("echo out; echo err >&2; exit 3"),
            "error running createRuntime hook #0: exit status 3, stdout: out\n, stderr: err\n",
        ),
        (
            Moment::CreateContainer,
            late,
            "error running createContainer hook #0: hook ran past specified timeout of 1.0s",
        ),
        (
            Moment::StartContainer,
            absent,
            "error running startContainer hook #0: fork/exec /no/such: no such file or directory",
        ),
    ];
    for (index, (moment, hook, expected)) in cases.into_iter().enumerate() {
        let last = shell(&format!("echo end >> {}", stopped.display()));
        let list = hooks(&[(moment, hook), (Moment::Poststop, last)]);
        let id = create(&host, &pod, host.shell("echo never"), list).await;
        let fault = host.engine().start_container(&id).await.unwrap_err();
        assert_eq!(fault.to_string(), expected);
        let status = host.engine().container_status(&id).await.unwrap();
        let end = (status.state, status.exit_code, status.reason.as_str());
        assert_eq!(end, (ContainerState::Exited, 128, "StartError"));
        assert_eq!(status.message, expected);
        host.engine().remove_container(&id).await.unwrap();
        assert_eq!(lines(&stopped).len(), index + 1);
    }
    let relative = hooks(&[(Moment::Poststart, Hook::default())]);
    let extras = Extras {
        hooks: relative,
        ..Extras::default()
    };
    let config = host.shell("");
    let refused = host
        .engine()
        .create_container_with(&pod, config, extras)
        .await;
    let expected = "poststart hook \"\": path is not absolute";
    assert_eq!(refused.unwrap_err().to_string(), expected);
    host.close().await;
}

#[tokio::test]
async fn a_server_that_dies_while_hooks_run_leaves_no_container_waiting() {
    let mut host = Host::new().await;
    let pod = host.pod().await;
    let (begun, over) = (
        host.folder.path().join("begun"),
        host.folder.path().join("over"),
    );
    for pipe in [&begun, &over] {
        nix::unistd::mkfifo(pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    let waits = shell(&format!(
        "echo > {}; cat {}",
        begun.display(),
        over.display()
    ));
    let list = hooks(&[(Moment::Prestart, waits)]);
    let id = create(&host, &pod, host.shell("echo never"), list).await;
    let (engine, started) = (host.engine().clone(), id.clone());
    let start = tokio::spawn(async move { engine.start_container(&started).await });
    let open = tokio::task::spawn_blocking(move || std::fs::read(begun));
    open.await.unwrap().unwrap();
    host.lose_engine().await;
    host.open().await;
    let status = host.ended(&id).await;
    assert_eq!(status.message, "the server ended while hooks were run");
    let release = tokio::task::spawn_blocking(move || std::fs::write(over, ""));
    release.await.unwrap().unwrap();
    assert!(start.await.unwrap().is_err());
    host.close().await;
}
